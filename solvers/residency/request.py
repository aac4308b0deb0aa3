"""What is asked about experts that don't fit: declared once, read by Python, the command line and REST alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, Unit, doc

from placement.residency.tiers import Tier, check_tiers
from solvers.requests.fields import MAX_TOKENS, HoldOutOf
from traces.support.declared import check_declared
from traces.support.errors import Violations
from traces.support.words import Phase

if TYPE_CHECKING:
    from placement.time import TimeModel

__all__ = ["Budget", "Cold", "ResidencyRequest"]

Budget = Literal["shared", "equal", "by_gain"]
Cold = Literal["fetch", "compute"]
HOST_GB_S = 200.0  # eight channels of DDR5-4800, two thirds of 307 GB/s
HOST_TFLOPS = 10.0  # AMX in 16 bits, half of what KTransformers reports for a socket
MAX_BYTES = 1 << 50


@dataclass(frozen=True, kw_only=True)
class ResidencyRequest:
    """Everything that is asked about residency but the trace.

    Attributes
    ----------
    resident : float or None
        Share of all experts that one GPU keeps; or `memory_gb`.
    memory_gb : float or None
        What it has for experts.
    machine : str or None
        One GPU, ``h200:1x1``; None: only transfers are timed.
    model : str or None
        See `traces.model.presets`.
    expert_bytes : int or None
        Of one expert, where no model says it. Without both, the unit of time is the transfer of one expert.
    weight_dtype : str or None
        How experts are served, where not as the config says.
    rest_ms : float or None
        Milliseconds per layer beside its experts, measured.
    phase : {"prefill", "decode"}
        See `placement.residency.Accesses.of`.
    batch_tokens : int
        Tokens of a step.
    tiers : tuple of Tier
        Where experts lie that are not resident, the fastest first; ``host`` by default.
    budget : {"shared", "equal", "by_gain"} or None
        One cache for all layers, as many slots for each, or as many as gain most on the part that is fitted; None:
        what each policy does best with there.
    lookahead : int
        Layers that experts are predicted ahead.
    prefetch_experts : int or None
        Of a layer at most; None: as many as the link moves while a layer is computed, at least one.
    cold : {"fetch", "compute"}
        What becomes of an expert that is not resident: the GPU fetches it, or the host computes it.
    host_gb_s, host_tflops : float or None
        The host's memory bandwidth and what it computes, where it does; 200 GB/s and 10 TFLOPS by default.
    hold_out, hold_out_by
        See `solvers.Request`.

    Raises
    ------
    InputError
        If a field is of another type or out of its range, or has no effect beside the others.
    """

    resident: Annotated[float | None, Gt(0), Le(1), doc("Share of all experts that stay on the GPU.")] = None
    memory_gb: Annotated[float | None, Gt(0), Le(1e9), doc("Gigabytes for experts, in place of resident.")] = None
    machine: Annotated[str | None, doc("One GPU, such as h200:1x1; without it only transfers are timed.")] = None
    model: Annotated[str | None, doc("Model by name, such as deepseek-v3, or the path of its config.json.")] = None
    expert_bytes: Annotated[
        int | None, Ge(1), Le(MAX_BYTES), Unit("bytes"), doc("Size of one expert, where no model says it.")
    ] = None
    weight_dtype: Annotated[str | None, doc("How experts are served, where not as the config says: fp8_block.")] = None
    rest_ms: Annotated[
        float | None, Ge(0), Le(1e6), doc("Milliseconds per layer beside its experts, where you measured them.")
    ] = None
    phase: Annotated[Phase, doc("Steps: consecutive tokens, or one token of each of several sequences.")] = "decode"
    batch_tokens: Annotated[int, Ge(1), Le(MAX_TOKENS), Unit("tokens"), doc("Tokens of a step.")] = 1
    tiers: Annotated[
        tuple[Tier, ...],
        doc("Where the other experts lie, the fastest first: host (default), disk, gpu, or any with its GB/s."),
    ] = ()
    budget: Annotated[
        Budget | None,
        doc("Slots: one cache, equal ones per layer, or by gain; what each policy does best with by default."),
    ] = None
    lookahead: Annotated[int, Ge(1), Le(1000), doc("Layers that experts are predicted ahead.")] = 1
    prefetch_experts: Annotated[
        int | None, Ge(1), Le(4096), doc("Experts of a layer that are fetched ahead; what the link allows by default.")
    ] = None
    cold: Annotated[Cold, doc("An expert that is not resident: fetch it, or compute it on the host.")] = "fetch"
    host_gb_s: Annotated[
        float | None, Ge(0.001), Le(1e6), doc("GB/s of the host's memory, where it computes; 200 by default.")
    ] = None
    host_tflops: Annotated[
        float | None, Ge(0.001), Le(1e6), doc("TFLOPS of the host, where it computes; 10 by default.")
    ] = None
    hold_out: Annotated[
        float | None, Ge(0), Lt(1), doc("Share to judge by, which nothing is fitted on; 0.5 by default.")
    ] = None
    hold_out_by: HoldOutOf = None

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        if (self.resident is None) == (self.memory_gb is None):
            detail = "How much is resident is said twice." if self.resident else "Nothing says how much is resident."
            found.add("resident_or_memory", "/resident", detail, "Give a share of the experts, or gigabytes for them.")
        if self.machine is not None and self.model is None:
            detail = "A machine computes a model, and none is given."
            found.add("field_missing", "/model", detail, "Name the model, such as deepseek-v3; or leave machine out.")
        if self.memory_gb is not None and self.model is None and self.expert_bytes is None:
            detail = "How many experts that is follows from the size of one, which nobody says."
            found.add("field_missing", "/expert_bytes", detail, "Give expert_bytes, or a model.")
        if self.hold_out == 0:
            detail = "Nothing is held out, so that policies would be judged by the tokens that they were fitted on."
            found.add("hold_out_range", "/hold_out", detail, "Give a share above 0, or leave it out.")
        self._check_effect(found)
        if all(isinstance(tier, Tier) for tier in self.tiers):
            check_tiers(self.tiers, found)
        else:
            found.add("wrong_type", "/tiers", "Not all of them are tiers.", Tier.MADE_BY)
        if self.weight_dtype is not None:
            from traces.model.shape import WEIGHT_BYTES

            if self.weight_dtype not in WEIGHT_BYTES:
                detail = f"{self.weight_dtype!r:.60} is no way to store weights that is known."
                found.add("unknown_choice", "/weight_dtype", detail, f"Give one of {', '.join(WEIGHT_BYTES)}.")
        found.raise_if_any()

    def _check_effect(self, found: Violations) -> None:
        cold = "Without cold=compute the host computes nothing."
        fetches = "Nothing is fetched where the host computes what is not resident."
        idle = {
            "expert_bytes": (self.model is not None, "The model says how large its experts are.", "Leave one out."),
            "weight_dtype": (self.model is None, "There is no model that it would be of.", "Name the model."),
            "rest_ms": (self.machine is None, "Without a machine only transfers are timed.", "Name the machine."),
            "host_gb_s": (self.cold == "fetch", cold, "Leave it out."),
            "host_tflops": (self.cold == "fetch", cold, "Leave it out."),
            "prefetch_experts": (self.cold == "compute", fetches, "Leave it out."),
            "tiers": (self.cold == "compute", fetches, "Leave them out."),
        }
        for name, (without, detail, remedy) in idle.items():
            if without and getattr(self, name) not in (None, ()):
                found.add("without_effect", f"/{name}", detail, remedy)
        if self.cold == "compute" and self.machine is None:
            detail = "What the host takes compares with what the GPU takes, and no machine is given."
            found.add("field_missing", "/machine", detail, "Name machine and model.")
        if self.cold == "compute" and self.budget == "by_gain":
            detail = "Experts that stay for good gain most in one cache for all layers."
            found.add("without_effect", "/budget", detail, "Give shared or equal.")

    @property
    def links(self) -> tuple[Tier, ...]:
        """The tiers, one where none is given."""
        return self.tiers or (Tier.parse("host"),)

    @property
    def host(self) -> tuple[float, float]:
        """GB/s and TFLOPS of the host."""
        return self.host_gb_s or HOST_GB_S, self.host_tflops or HOST_TFLOPS

    def time_model(self) -> TimeModel | None:
        """Return the time model of the GPU; None without a machine.

        Raises
        ------
        InputError
            If machine or model are not known, or there are several GPUs.
        """
        if self.machine is None or self.model is None:
            return None
        from placement.time import Machine, TimeModel
        from traces import InputError

        machine = Machine.parse(self.machine)
        if machine.num_gpus > 1:
            detail = f"{self.machine} has {machine.num_gpus} GPUs; residency is of the experts of one."
            remedy = f"Give {machine.gpus[0].name}:1x1; other GPUs' memory is a tier, gpu."
            raise InputError.of("several_gpus", "/machine", detail, remedy)
        return TimeModel.of(
            machine,
            self.model,
            phase=self.phase,
            tokens_per_gpu=self.batch_tokens,
            weight_dtype=self.weight_dtype,
            rest_ms=self.rest_ms,
        )
