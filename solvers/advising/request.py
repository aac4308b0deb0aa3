"""What is asked of an advice: declared once, read by Python, the command line and REST alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from annotated_types import Ge, Le, Lt, Unit, doc

from solvers.request import MAX_SLOTS, Request
from solvers.searching.limits import Limits
from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations
from traces.support.words import HoldOutBy, Phase

if TYPE_CHECKING:
    from placement import Plan
    from placement.time import TimeModel
else:  # help texts are made from the fields: the classes themselves take long to import
    Plan = object

__all__ = ["AdviceRequest", "Framework", "Phases"]

Phases = Literal["prefill", "decode", "both"]
Framework = Literal["sglang", "tensorrt-llm", "vllm"]
Overlap = Literal["none", "two_batch"]
MAX_TOKENS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class AdviceRequest:
    """Everything that is asked of an advice but the trace.

    Attributes
    ----------
    machine : str
        GPUs and nodes, ``h200:4x8``; see `placement.time.Machine`.
    model : str
        Name of a preset, or the path of a ``config.json``; see `traces.model.presets`.
    phase : {"prefill", "decode", "both"}
        Tokens of this phase are used where the trace tells phases.
    tokens_per_gpu : int or None
        Of a forward pass: 4,096 in prefill and 128 in decode by default.
    decode_tokens_per_gpu : int or None
        Of a decode pass, where both phases are asked for.
    engine : str or None
        See `Request`.
    plan : Plan or None
        The plan that runs; None: the engine's own layout when nobody plans.
    backend : str or None
        Of the all-to-all; see `placement.time.TimeModel`.
    overlap : {"none", "two_batch"}
    framework : {"sglang", "tensorrt-llm", "vllm"} or None
        Whose kernels are wanted; the engine's own by default.
    weight_dtype : str or None
        How experts are served, where not as the config says.
    rest_ms : float or None
        Milliseconds per layer beside experts and their exchange, measured.
    alternatives : bool
        Whether to time what else could be done.
    slots_per_gpu, redundant_experts, limits, solver, seed, hold_out, hold_out_by
        See `Request`.

    Raises
    ------
    InputError
        If a field is of another type or out of its range.
    """

    machine: Annotated[str, doc("GPUs, nodes and GPUs per node: h200:4x8; classes joined by +: h200:2x8+h20:2x8.")]
    model: Annotated[str, doc("Model by name, such as deepseek-v3, or the path of its config.json.")]
    phase: Annotated[Phases, doc("Phase whose passes are timed; both: a plan for each, and one for both.")] = "prefill"
    tokens_per_gpu: Annotated[
        int | None,
        Ge(1),
        Le(MAX_TOKENS),
        Unit("tokens"),
        doc("Tokens of a rank in a forward pass; 4,096 in prefill and 128 in decode by default."),
    ] = None
    decode_tokens_per_gpu: Annotated[
        int | None, Ge(1), Le(MAX_TOKENS), Unit("tokens"), doc("The same of a decode pass, with phase both.")
    ] = None
    engine: Annotated[
        str | None, doc("Engine that serves, as in sglang or sglang:static: its layout, how tokens travel.")
    ] = None
    plan: Annotated[Plan | None, doc("Plan that runs now; the engine's own layout by default.")] = None
    backend: Annotated[
        str | None, doc("All-to-all: deepep_normal in prefill and deepep_low_latency in decode by default.")
    ] = None
    overlap: Annotated[Overlap, doc("Two-batch overlap: half a batch travels while the other computes.")] = "none"
    framework: Annotated[Framework | None, doc("Whose kernels are wanted; those of the engine by default.")] = None
    weight_dtype: Annotated[str | None, doc("How experts are served, where not as the config says: fp8_block.")] = None
    rest_ms: Annotated[
        float | None, Ge(0), doc("Milliseconds per layer beside experts and exchange, where you measured them.")
    ] = None
    alternatives: Annotated[bool, doc("Also time what else could be done.")] = True
    slots_per_gpu: Annotated[
        int | None, Ge(1), Le(MAX_SLOTS), doc("Expert slots per GPU and layer; as many as run now by default.")
    ] = None
    redundant_experts: Annotated[
        int | None, Ge(0), Le(MAX_SLOTS), doc("Slots of a layer beyond one per expert, all GPUs together.")
    ] = None
    limits: Limits = field(default_factory=Limits)
    solver: Annotated[str, doc("Method; see `solvers`.")] = "auto"
    hold_out: Annotated[
        float | None, Ge(0), Lt(1), doc("Share to judge the plan by, which it is not fitted on; 0.5 by default.")
    ] = None
    hold_out_by: Annotated[
        HoldOutBy | None, doc("What the share is of: sequences (default), time, or source (files, data sets, tasks).")
    ] = None
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
        if self.weight_dtype is not None:
            from traces.model.shape import WEIGHT_BYTES

            if self.weight_dtype not in WEIGHT_BYTES:
                detail = f"{self.weight_dtype!r:.60} is no way to store weights that is known."
                found.add("unknown_choice", "/weight_dtype", detail, f"Give one of {', '.join(WEIGHT_BYTES)}.")
        if self.engine is not None:
            from placement.engines import engine_of

            try:
                object.__setattr__(self, "engine", str(engine_of(self.engine)))
            except InputError as error:
                found.extend(error)
        if self.plan is not None:
            from placement import Plan as APlan

            if not isinstance(self.plan, APlan):
                found.add("wrong_type", "/plan", f"{type(self.plan).__name__} is no Plan.", "Give a placement.Plan.")
            else:
                for name in ("slots_per_gpu", "redundant_experts"):
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
        from placement.engines import engine_of
        from placement.time import TimeModel

        framework = self.framework
        if framework is None and self.engine is not None:
            served: Any = engine_of(self.engine).engine.name
            framework = served if served in get_args(Framework) else None
        tokens = self.tokens_per_gpu
        if phase == "decode" and self.phase == "both":
            tokens = self.decode_tokens_per_gpu
        model = TimeModel.of(
            self.machine,
            self.model,
            phase=phase,
            tokens_per_gpu=tokens,
            framework=framework,
            backend=self.backend,
            overlap=self.overlap,
            weight_dtype=self.weight_dtype,
            rest_ms=self.rest_ms,
        )
        if self.backend not in (None, "links", model.inside.backend):
            from placement.time import coefficients_of

            known = coefficients_of(model.machine.gpus[0].name)
            names = ["links", *(each.backend for each in (known.exchanges if known else ()))]
            detail = f"No all-to-all {self.backend!r:.60} was measured on {model.machine.gpus[0].name}."
            raise InputError.of("unknown_backend", "/backend", detail, f"Give one of {', '.join(names)}.")
        return model

    def planning(self, time: TimeModel, **changed: Any) -> Request:
        """Return the request for a plan on the machine."""
        slots = self.slots_per_gpu if self.plan is None else self.plan.slots_per_gpu
        own: dict[str, Any] = {
            "topology": time.machine.topology(),
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
