"""A trace made ready for policies: its two parts as accesses, what the past says, the slots, and a clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from placement.residency import Accesses, Clock, Fitted, Tier, compute_times, read_tokens, tier_of_experts
from placement.time import TimeModel
from solvers.residency.choosing import Ground
from solvers.residency.request import ResidencyRequest
from solvers.sources.source import split, told_while_read
from traces import InputError, Trace
from traces.model.presets import load_model
from traces.model.shape import WEIGHT_BYTES
from traces.phases import phase_or_all

__all__ = ["Prepared"]

CHOSEN_ON: Final = 500_000  # accesses of the fitted part, spread over it, that settings are chosen on


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Everything that policies are run on.

    Attributes
    ----------
    request : ResidencyRequest
    time : TimeModel or None
        Of the GPU, where one is named.
    expert_bytes : float or None
    tiers : tuple of Tier
    past, judged : Ground
        The part that is fitted, or as much of it as settings are chosen on, and the other one.
    total : int
        Slots of the GPU.
    prefetch_experts : int
    layer_ids : tuple of int
    notes : tuple of str
    """

    request: ResidencyRequest
    time: TimeModel | None
    expert_bytes: float | None
    tiers: tuple[Tier, ...]
    past: Ground
    judged: Ground
    total: int
    prefetch_experts: int
    layer_ids: tuple[int, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, trace: Trace, request: ResidencyRequest, tell: Callable[[str], None]) -> Prepared:
        """Read a trace.

        Raises
        ------
        InputError
            If trace, machine and model do not fit each other.
        """
        time = request.time_model()
        size = _expert_bytes(request, time)
        _check_model(trace, request, time)
        chosen, notes = phase_or_all(trace, request.phase)
        tell("reading")
        watched, told = told_while_read(chosen)
        assert isinstance(watched, Trace)
        fit, held_out, split_notes = split(watched, request.hold_out, request.hold_out_by)
        assert fit is not None
        fit_tokens = read_tokens(fit)
        tokens = fit_tokens if held_out is None else read_tokens(held_out)
        phase, batch = request.phase, request.batch_tokens
        past = Accesses.of(fit_tokens, phase=phase, batch_tokens=batch)
        judged = past if held_out is None else Accesses.of(tokens, phase=phase, batch_tokens=batch)
        tell("fitting")
        fitted = Fitted.of(fit_tokens, past, request.lookahead)
        total = _slots(request, size, judged)
        _check_memory(request, time, size, total)
        notes = (*told(), *split_notes, *notes, *_notes_on_time(trace, request, time, size))
        notes = (*notes, _taken(request))
        if fit_tokens.cut or tokens.cut:
            notes = (*notes, f"The first {len(fit_tokens):,} and {len(tokens):,} tokens of both parts were read.")
        tiers = request.links
        past = past.spread(CHOSEN_ON)
        grounds = [
            Ground(accesses=part, fitted=fitted, clock=_clock(part, fitted, tiers, time, size))
            for part in (past, judged)
        ]
        return cls(
            request=request,
            time=time,
            expert_bytes=size,
            tiers=tiers,
            past=grounds[0],
            judged=grounds[1],
            total=total,
            prefetch_experts=request.prefetch_experts or _moved_meanwhile(grounds[0].clock, request.lookahead),
            layer_ids=tuple(trace.layer_ids.tolist()),
            notes=notes,
        )

    @property
    def experts(self) -> int:
        """Experts of all layers."""
        return self.judged.fitted.rate.size

    @property
    def fits(self) -> bool:
        """Whether all experts fit."""
        return self.total == self.experts


def _expert_bytes(request: ResidencyRequest, time: TimeModel | None) -> float | None:
    if request.model is None:
        return None if request.expert_bytes is None else float(request.expert_bytes)
    shape = load_model(request.model).shape if time is None else time.model.shape
    return shape.expert_weights * WEIGHT_BYTES[request.weight_dtype or shape.weight_dtype]


def _check_model(trace: Trace, request: ResidencyRequest, time: TimeModel | None) -> None:
    if request.model is None:
        return
    shape = load_model(request.model).shape if time is None else time.model.shape
    if shape.num_experts != trace.num_experts or shape.top_k < trace.top_k:
        detail = (
            f"{request.model} has {shape.num_experts} experts and top-{shape.top_k}, the trace {trace.num_experts} and "
            f"top-{trace.top_k}."
        )
        raise InputError.of("model_differs", "/model", detail, "Name the model that was recorded.")


def _notes_on_time(
    trace: Trace, request: ResidencyRequest, time: TimeModel | None, size: float | None
) -> tuple[str, ...]:
    alone = "Times are of transfers alone: no machine is given to compute on meanwhile."
    told = time.notes if time is not None else (alone,) if size is not None else ()
    if request.model is None:
        return told
    whole = len(load_model(request.model).layout.moe_layers)
    if whole == trace.num_layers:
        return told
    return (
        *told,
        f"Slots and steps are of the {trace.num_layers} MoE layers recorded; the model has {whole}.",
    )


def _slots(request: ResidencyRequest, size: float | None, accesses: Accesses) -> int:
    experts = accesses.num_layers * accesses.num_experts
    if request.resident is not None:
        total = math.floor(request.resident * experts + 1e-9)
    else:
        assert request.memory_gb is not None
        assert size is not None
        total = min(experts, math.floor(request.memory_gb * 1e9 / size))
    if total < 1:
        detail = f"That is less than one of {experts} experts."
        place = "/resident" if request.resident is not None else "/memory_gb"
        raise InputError.of("no_slots", place, detail, "Give room for one expert at least.")
    return total


def _taken(request: ResidencyRequest) -> str:
    """Return what is taken of links, or of the host, which every time follows from."""
    if request.cold == "compute":
        speed, flops = request.host
        return f"The host is taken to read {speed:g} GB/s of weights and to compute {flops:g} TFLOPS."
    several = " Belady moves the fewest, and not the cheapest." if len(request.links) > 1 else ""
    links = ", ".join(f"{tier.name} at {tier.gb_s:g} GB/s" for tier in request.links)
    return f"Experts are taken to come from {links}.{several}"


def _check_memory(request: ResidencyRequest, time: TimeModel | None, size: float | None, total: int) -> None:
    if time is None or size is None:
        return
    gpu, wanted = time.machine.gpus[0], total * size / 1e9
    if wanted > gpu.memory_gb:
        detail = f"{total:,} experts take {wanted:.0f} GB, and {gpu.name} has {gpu.memory_gb:g}."
        place = "/resident" if request.resident is not None else "/memory_gb"
        raise InputError.of(
            "does_not_fit", place, detail, "Keep fewer resident, and leave room for what else there is."
        )


def _clock(
    accesses: Accesses, fitted: Fitted, tiers: Sequence[Tier], time: TimeModel | None, size: float | None
) -> Clock:
    tier = tier_of_experts(fitted.rate, tiers)
    if size is None:
        each = np.array([tiers[0].gb_s / one.gb_s for one in tiers])
    else:
        each = np.array([size / one.gb_s / 1e6 for one in tiers])
    transfer: npt.NDArray[np.float64] = each[tier]
    if time is None:
        unit: Any = "transfers" if size is None else "ms"
        return Clock(unit=unit, transfer=transfer, compute=np.zeros(len(accesses.start) - 1))
    return Clock(
        unit="ms",
        transfer=transfer,
        compute=compute_times(accesses, time),
        rest=time.rest_ms,
        dense=time.rest_ms * time.dense_layers,
    )


def _moved_meanwhile(clock: Clock, lookahead: int) -> int:
    """Return how many experts the link moves while the layers between are computed, at least one."""
    window = lookahead * (clock.rest + float(clock.compute.mean()))
    return max(1, math.floor(window / float(clock.transfer.min())))
