"""What is asked of an advice: declared once, read by Python, the command line and REST alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, Unit, doc

from solvers.requests.fields import MAX_SLOTS, MAX_TOKENS, HoldOutOf, RedundantExperts, check_plan, settle_engine
from solvers.requests.request import Request
from solvers.requests.served import Served
from solvers.searching.limits import Limits
from traces.support.declared import check_declared
from traces.support.errors import Violations
from traces.support.words import Phase

if TYPE_CHECKING:
    from placement import Plan
    from placement.time import TimeModel
else:  # help texts are made from the fields: the classes themselves take long to import
    Plan = object

__all__ = ["AdviceRequest", "Phases"]

Phases = Literal["prefill", "decode", "both"]


@dataclass(frozen=True, kw_only=True)
class AdviceRequest(Served):
    """Everything that is asked of an advice but the trace.

    Attributes
    ----------
    machine : str
        GPUs and nodes, ``h200:4x8``; see `placement.time.Machine`.
    model : str
        Name of a preset, or the path of a ``config.json``; see `traces.model.presets`.
    phase : {"prefill", "decode", "both"}
        Tokens of this phase are used where the trace tells phases.
    decode_tokens_per_gpu : int or None
        Of a decode pass, where both phases are asked for.
    engine : str or None
        See `Request`.
    plan : Plan or None
        The plan that runs; None: the engine's own layout when nobody plans.
    alternatives : bool
        Whether to time what else could be done.
    slots_per_gpu, redundant_experts, limits, solver, seed, hold_out, hold_out_by
        See `Request`.
    tokens_per_gpu, backend, overlap, framework, weight_dtype, rest_ms
        See `Served`.

    Raises
    ------
    InputError
        If a field is of another type or out of its range.
    """

    machine: Annotated[
        str,
        doc(
            "GPUs, nodes and GPUs per node: h200:4x8; classes joined by +: h200:2x8+h20:2x8; a node's uplink in GB/s: "
            "h200:4x8@100."
        ),
    ]
    model: Annotated[str, doc("Model by name, such as deepseek-v3, or the path of its config.json.")]
    phase: Annotated[Phases, doc("Phase whose passes are timed; both: a plan for each, and one for both.")] = "prefill"
    decode_tokens_per_gpu: Annotated[
        int | None, Ge(1), Le(MAX_TOKENS), Unit("tokens"), doc("The same of a decode pass, with phase both.")
    ] = None
    engine: Annotated[
        str | None, doc("Engine that serves, as in sglang or sglang:static: its layout, how tokens travel.")
    ] = None
    plan: Annotated[Plan | None, doc("Plan that runs now; the engine's own layout by default.")] = None
    alternatives: Annotated[bool, doc("Also time what else could be done.")] = True
    slots_per_gpu: Annotated[
        int | None, Ge(1), Le(MAX_SLOTS), doc("Expert slots per GPU and layer; as many as run now by default.")
    ] = None
    redundant_experts: RedundantExperts = None
    limits: Limits = field(default_factory=Limits)
    solver: Annotated[str, doc("Method; see `solvers`.")] = "auto"
    hold_out: Annotated[
        float | None, Ge(0), Lt(1), doc("Share to judge the plan by, which it is not fitted on; 0.5 by default.")
    ] = None
    hold_out_by: HoldOutOf = None
    seed: Annotated[int, Ge(0), doc("Seed of the search and of the bootstrap.")] = 0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        if self.hold_out == 0:
            detail = "Nothing is held out, so that a plan would be judged by the tokens that it was fitted on."
            found.add("hold_out_range", "/hold_out", detail, "Give a share above 0, or leave it out.")
        if self.decode_tokens_per_gpu is not None and self.phase != "both":
            detail = f"There is one phase, {self.phase}."
            found.add("without_effect", "/decode_tokens_per_gpu", detail, "Give tokens_per_gpu, or phase both.")
        self._check_served("", found)
        settle_engine(self, found)
        check_plan(self.plan, "/plan", found)
        for name in ("slots_per_gpu", "redundant_experts") if self.plan is not None else ():
            if getattr(self, name) is not None:
                detail = "The plan that runs says how many slots there are."
                found.add("without_effect", f"/{name}", detail, "Leave it out: other levels are alternatives.")
        found.raise_if_any()

    def time_model(self, phase: Phase) -> TimeModel:
        """Return the time model of one phase.

        Raises
        ------
        InputError
            If machine, model or back end are not known.
        """
        tokens = self.tokens_per_gpu
        if phase == "decode" and self.phase == "both":
            tokens = self.decode_tokens_per_gpu
        return self._model_of(self.machine, self.model, phase, self.engine, tokens)

    def planning(self, time: TimeModel, **changed: Any) -> Request:
        """Return the request for a plan on the machine."""
        slots = self.slots_per_gpu if self.plan is None else self.plan.slots_per_gpu
        own: dict[str, Any] = {
            "topology": time.topology,
            "engine": self.engine,
            "slots_per_gpu": slots,
            "redundant_experts": self.redundant_experts,
            "limits": self.limits,
            "solver": self.solver,
            "hold_out": self.hold_out,
            "hold_out_by": self.hold_out_by,
            "seed": self.seed,
        }
        return Request(**(own | changed))
