"""What is asked of a re-plan: declared once, read by Python and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, Lt, Unit, doc

from placement.problem.constraints import Constraints
from placement.problem.objective import Objective
from solvers.requests.fields import MAX_SLOTS, HoldOutOf, TokensPerGpu, settle_engine, settle_topology
from solvers.requests.request import Request
from solvers.searching.limits import Limits
from traces.support.declared import check_declared
from traces.support.errors import Violations
from traces.support.words import Phase

if TYPE_CHECKING:
    from placement import Plan, Topology
    from placement.time import TimeModel
else:  # help texts are made from the fields: the classes themselves take long to import
    Plan = Topology = object

__all__ = ["ReplanRequest"]

TIMED = ("horizon_s", "phase", "tokens_per_gpu")
HORIZON_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class ReplanRequest:
    """Everything that is asked of a re-plan but the plan that runs and the trace.

    Attributes
    ----------
    topology : Topology, str or None
        All ranks that run the plan, and after them those that are new; None: that of the machine, else the plan's own.
    machine : str or None
        The same as GPUs, ``h200:4x8``. With a model: gains are in milliseconds, and weighed against what moving costs.
    model : str or None
        Name of a preset, or the path of a ``config.json``: size of experts, and time.
    dead_gpus : tuple of int
        Ranks of the running plan that are gone, or about to go.
    horizon_s : float or None
        Seconds for which a new plan is expected to be good; an hour by default.
    stall_ms : float
        What a step of a re-plan stops the engine for, beside its transfers.
    checkpoint_gb_s : float
        At which a GPU loads experts that no GPU holds.
    max_moves : int or None
        Experts that may be sent, all layers together.
    step_experts, step_bytes : int or None
        The same for each step.
    staging_experts : int or None
        Experts of a layer that a GPU has room for beside its slots; as many as it has slots by default, which is what
        the buffers of SGLang and vLLM hold.
    phase, tokens_per_gpu
        Of the passes that are timed; see `AdviceRequest`.
    engine, slots_per_gpu, redundant_experts, expert_bytes, objective, constraints, limits, solver, hold_out, \
hold_out_by, seed
        See `Request`; slots are those that run by default.

    Raises
    ------
    InputError
        If a field is of another type or out of its range, or has no effect.
    """

    topology: Annotated[
        Topology | str | None, doc("All ranks that run the plan, then new ones: 4x8, 5x8; as the plan says by default.")
    ] = None
    machine: Annotated[
        str | None, doc("The same as GPUs, h200:4x8: with a model, gains are in ms and weighed against the moves.")
    ] = None
    model: Annotated[str | None, doc("Model by name, such as deepseek-v3, or the path of its config.json.")] = None
    dead_gpus: Annotated[tuple[int, ...], doc("Ranks that are gone, or about to go: 3,7.")] = ()
    horizon_s: Annotated[
        float | None,
        Ge(0),
        Le(1e9),
        Unit("s"),
        doc("Seconds for which a new plan is expected to be good; 3,600 by default."),
    ] = None
    stall_ms: Annotated[
        float, Ge(0), Le(1e9), doc("What each step stops the engine for, beside its transfers; measure your own.")
    ] = 910.0
    checkpoint_gb_s: Annotated[
        float, Ge(0.001), Le(10_000), doc("GB/s at which a GPU loads experts that no GPU holds.")
    ] = 1.0
    max_moves: Annotated[int | None, Ge(0), doc("Experts that may be sent, all layers together.")] = None
    step_experts: Annotated[int | None, Ge(1), doc("Experts that one step may send; one step by default.")] = None
    step_bytes: Annotated[int | None, Ge(1), Unit("bytes"), doc("The same in bytes; needs their size.")] = None
    staging_experts: Annotated[
        int | None, Ge(1), Le(MAX_SLOTS), doc("Experts that a GPU has room for beside its slots; a layer by default.")
    ] = None
    phase: Annotated[Phase | None, doc("Phase whose passes are timed; prefill by default.")] = None
    tokens_per_gpu: TokensPerGpu = None
    engine: Annotated[
        str | None, doc("Engine that serves, as in sglang or sglang:static: how tokens travel, its file.")
    ] = None
    slots_per_gpu: Annotated[
        int | None, Ge(1), Le(MAX_SLOTS), doc("Expert slots per GPU and layer from now on; as many as run by default.")
    ] = None
    redundant_experts: Annotated[
        int | None, Ge(0), Le(MAX_SLOTS), doc("Slots of a layer beyond one per expert from now on.")
    ] = None
    expert_bytes: Annotated[
        int | None, Ge(1), Unit("bytes"), doc("Size of one expert's weights in a layer, where no model says it.")
    ] = None
    objective: Objective = field(default_factory=Objective)
    constraints: Constraints = field(default_factory=Constraints)
    limits: Limits = field(default_factory=Limits)
    solver: Annotated[str, doc("Method; see `solvers`.")] = "auto"
    hold_out: Annotated[
        float | None, Ge(0), Lt(1), doc("Share to judge by, which no plan is fitted on; 0.5 by default.")
    ] = None
    hold_out_by: HoldOutOf = None
    seed: Annotated[int, Ge(0), doc("Seed of the search and of what is drawn.")] = 0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        self._check_effects(found)
        settle_topology(self, found)
        settle_engine(self, found)
        found.raise_if_any()

    def _check_effects(self, found: Violations) -> None:
        """Report what has no effect, or is said twice."""
        if self.hold_out == 0:
            detail = "Nothing is held out, so that a plan would be judged by what it was fitted on."
            found.add("hold_out_range", "/hold_out", detail, "Give a share above 0, or leave it out.")
        if self.machine is not None and self.topology is not None:
            detail = "The machine says how its GPUs form nodes."
            found.add("without_effect", "/topology", detail, "Give the machine or the topology.")
        if self.model is not None and self.expert_bytes is not None:
            detail = "The model says how large its experts are."
            found.add("without_effect", "/expert_bytes", detail, "Give the model or the size.")
        for name in TIMED if not self.timed else ():
            if getattr(self, name) is not None:
                detail = "Gains are in time only on a machine and a model."
                found.add("without_effect", f"/{name}", detail, "Give machine and model as well, or leave it out.")
        if self.step_bytes is not None:
            if self.step_experts is not None:
                detail = "A step has one budget."
                found.add("budget_twice", "/step_bytes", detail, "Give it in experts or in bytes.")
            if self.model is None and self.expert_bytes is None:
                detail = "The size of an expert is not known."
                found.add("no_expert_bytes", "/step_bytes", detail, "Give the model, expert_bytes, or step_experts.")
        if self.slots_per_gpu is not None and self.redundant_experts is not None:
            detail = "Slots are said twice."
            found.add("slots_twice", "/slots_per_gpu", detail, "Give slots_per_gpu or redundant_experts.")

    @property
    def timed(self) -> bool:
        """Whether gains are in milliseconds."""
        return self.machine is not None and self.model is not None

    @property
    def good_for_s(self) -> float:
        """The horizon, settled."""
        return HORIZON_S if self.horizon_s is None else self.horizon_s

    @property
    def timed_phase(self) -> Phase:
        """The phase, settled."""
        return self.phase or "prefill"

    def time_model(self) -> TimeModel | None:
        """Return the time model of the machine without its dead GPUs; None where machine or model is not given.

        Raises
        ------
        InputError
            If machine or model are not known.
        """
        if self.machine is None or self.model is None:
            return None
        from placement.engines import engine_of
        from placement.moves.carry import machine_without
        from placement.time import Machine, TimeModel

        served: Any = None if self.engine is None else engine_of(self.engine).engine.name
        return TimeModel.of(
            machine_without(Machine.parse(self.machine), self.dead_gpus),
            self.model,
            phase=self.timed_phase,
            tokens_per_gpu=self.tokens_per_gpu,
            framework=served if served in ("sglang", "tensorrt-llm", "vllm") else None,
        )

    def planning(self, topology: Topology, slots_per_gpu: int, expert_bytes: int | None) -> Request:
        """Return the request for a plan on the GPUs that are there."""
        return Request(
            topology=topology,
            engine=self.engine,
            slots_per_gpu=slots_per_gpu,
            expert_bytes=expert_bytes,
            objective=self.objective,
            constraints=self.constraints,
            limits=self.limits,
            solver=self.solver,
            hold_out=self.hold_out,
            hold_out_by=self.hold_out_by,
            seed=self.seed,
        )
