"""What is asked of time: the machine, the model, and the forward passes that are timed; declared once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from annotated_types import Ge, doc

from solvers.requests.fields import MAX_TOKENS, TokensPerGpu, topology_of_machine
from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations
from traces.support.words import Phase

if TYPE_CHECKING:
    from placement import Topology
    from placement.time import TimeModel

__all__ = ["MAX_TOKENS", "Framework", "Overlap", "Served", "Timed"]

Framework = Literal["sglang", "tensorrt-llm", "vllm"]
Overlap = Literal["none", "two_batch"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """How a model is served: what a forward pass takes beside the plan.

    Attributes
    ----------
    tokens_per_gpu : int or None
        Of a forward pass: 4,096 in prefill and 128 in decode by default.
    backend : str or None
        Of the all-to-all; see `placement.time.TimeModel`.
    overlap : {"none", "two_batch"}
    framework : {"sglang", "tensorrt-llm", "vllm"} or None
        Whose kernels are wanted; the engine's own by default.
    weight_dtype : str or None
        How experts are served, where not as the config says.
    rest_ms : float or None
        Milliseconds per layer beside experts and their exchange, measured.
    """

    tokens_per_gpu: TokensPerGpu = None
    backend: Annotated[
        str | None, doc("All-to-all: deepep_normal in prefill and deepep_low_latency in decode by default.")
    ] = None
    overlap: Annotated[Overlap, doc("Two-batch overlap: half a batch travels while the other computes.")] = "none"
    framework: Annotated[Framework | None, doc("Whose kernels are wanted; those of the engine by default.")] = None
    weight_dtype: Annotated[str | None, doc("How experts are served, where not as the config says: fp8_block.")] = None
    rest_ms: Annotated[
        float | None, Ge(0), doc("Milliseconds per layer beside experts and exchange, where you measured them.")
    ] = None

    def _check_served(self, pointer: str, found: Violations) -> None:
        if self.weight_dtype is None:
            return
        from traces.model.shape import WEIGHT_BYTES

        if self.weight_dtype not in WEIGHT_BYTES:
            detail = f"{self.weight_dtype!r:.60} is no way to store weights that is known."
            found.add("unknown_choice", f"{pointer}/weight_dtype", detail, f"Give one of {', '.join(WEIGHT_BYTES)}.")

    def _model_of(
        self, machine: str, model: str, phase: Phase, engine: str | None, tokens: int | None, pointer: str = ""
    ) -> TimeModel:
        """Return the time model of one phase.

        Raises
        ------
        InputError
            If machine, model or back end are not known.
        """
        from placement.engines import engine_of
        from placement.time import TimeModel, coefficients_of

        framework = self.framework
        if framework is None and engine is not None:
            served: Any = engine_of(engine).engine.name
            framework = served if served in get_args(Framework) else None
        found = TimeModel.of(
            machine,
            model,
            phase=phase,
            tokens_per_gpu=tokens,
            framework=framework,
            backend=self.backend,
            overlap=self.overlap,
            weight_dtype=self.weight_dtype,
            rest_ms=self.rest_ms,
        )
        if self.backend not in (None, "links", found.inside.backend):
            known = coefficients_of(found.machine.gpus[0].name)
            names = ["links", "hierarchical", *(each.backend for each in (known.exchanges if known else ()))]
            detail = f"No all-to-all {self.backend!r:.60} was measured on {found.machine.gpus[0].name}."
            raise InputError.of("unknown_backend", f"{pointer}/backend", detail, f"Give one of {', '.join(names)}.")
        return found


@dataclass(frozen=True, kw_only=True)
class Timed(Served):
    """Time as the objective; without machine and model, hop costs and weights are.

    Attributes
    ----------
    machine : str or None
        GPUs and nodes, ``h200:4x8``; see `placement.time.Machine`.
    model : str or None
        Name of a preset, or the path of a ``config.json``; see `traces.model.presets`.
    timed_phase : {"prefill", "decode"}
        Phase whose passes are timed.
    tokens_per_gpu, backend, overlap, framework, weight_dtype, rest_ms
        See `Served`.

    Raises
    ------
    InputError
        If a field is of another type or out of its range, or machine and model are not both there.
    """

    machine: Annotated[
        str | None,
        doc(
            "Minimise milliseconds per forward pass on these GPUs: h200:4x8; classes joined by +: h200:2x8+h20:2x8; "
            "a node's uplink in GB/s: h200:4x8@100."
        ),
    ] = None
    model: Annotated[str | None, doc("Model by name, such as deepseek-v3, or the path of its config.json.")] = None
    timed_phase: Annotated[Phase, doc("Phase whose forward passes are timed.")] = "prefill"

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "/time", found)
        self._check_served("/time", found)
        if (self.machine is None) != (self.model is None):
            missing, there = ("machine", "model") if self.machine is None else ("model", "machine")
            remedy = f"Give the {missing} as well, or leave the {there} out."
            found.add("field_missing", f"/time/{missing}", f"Time needs a {missing} beside the {there}.", remedy)
        if self.machine is None and self.model is None:
            for item in fields(self):
                if getattr(self, item.name) != item.default:
                    detail = f"{item.name} is of the time model, and no machine is named."
                    found.add(
                        "without_effect", f"/time/{item.name}", detail, "Name machine and model, or leave it out."
                    )
        found.raise_if_any()

    def __bool__(self) -> bool:
        return self.machine is not None

    def time_model(self, engine: str | None) -> TimeModel:
        """Return the time model.

        Raises
        ------
        InputError
            If machine, model or back end are not known.
        """
        assert self.machine is not None
        assert self.model is not None
        return self._model_of(self.machine, self.model, self.timed_phase, engine, self.tokens_per_gpu, "/time")

    def topology(self, engine: str | None) -> Topology:
        """Return the topology that follows from the machine; the speeds of device classes from model and phase.

        Raises
        ------
        InputError
            If machine, model or back end are not known.
        """
        assert self.machine is not None
        return topology_of_machine(self.machine, lambda: self.time_model(engine))
