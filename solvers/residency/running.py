"""Policies on a trace: fitted and set on one part, run and timed on the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from placement.residency import POLICIES, Clock, Simulated, Slots, StepTimes, compute_times, simulate, tier_of_experts
from placement.residency.policies import PolicyName
from solvers.residency.choosing import Chosen, Ground, choose
from solvers.residency.outcome import PolicyFigures, Residency
from solvers.residency.preparing import Prepared
from solvers.residency.request import ResidencyRequest
from solvers.sources.parts import Named
from solvers.sources.source import open_source
from traces import InputError, LoadCounts, Profile, Trace
from traces.support.kinds import check_names, checked

__all__ = ["simulate_residency"]

Tell = Callable[[str], None]
HINDSIGHT: Final = "the experts that these steps use most stay: no fixed set hits more"


def _silent(_: str) -> None:
    pass


@checked
def simulate_residency(
    source: Named, *, request: ResidencyRequest | None = None, tell: Tell = _silent, **asked: Any
) -> Residency:
    """Say which experts should stay in a GPU's memory where not all fit, and what the others cost, policy by policy.

    Rates, transitions and settings are fitted on one part of the trace, and all policies run on the other. Both are
    read up to 16 million chosen experts, which the notes say.

    Parameters
    ----------
    source : Trace or path
        With token identity.
    request : ResidencyRequest, optional
        In place of `asked`.
    tell : callable
        Gets what is being done, in words.
    **asked
        Fields of `ResidencyRequest`: resident, machine, model, batch_tokens and others.

    Raises
    ------
    InputError
        If the source, the request, machine and model do not fit each other.

    Examples
    --------
    >>> simulate_residency("trace.npz", resident=0.5, machine="h200:1x1", model="olmoe").best  # doctest: +SKIP
    'lfu_aged'
    """
    if request is None:
        check_names(asked, ResidencyRequest, "a request for residency")
        request = ResidencyRequest(**asked)
    elif asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    opened = source if isinstance(source, Trace | LoadCounts | Profile) else open_source(source)
    if not isinstance(opened, Trace):
        detail = "A cache needs tokens, in their order: the source holds counts, or statistics."
        raise InputError.of("counts_only", "/trace", detail, "Give a trace with token identity (topk_ids).")
    ready = Prepared.of(opened, request, tell)
    return _outcome(ready, *(_computed(ready, tell) if request.cold == "compute" else _fetched(ready, tell)))


def _outcome(ready: Prepared, rows: list[PolicyFigures], notes: tuple[str, ...]) -> Residency:
    accesses, size = ready.judged.accesses, ready.expert_bytes
    rooms = next(row.slots_per_layer for row in rows if row.name == "static")
    slots = Slots.per_layer(rooms) if rooms else Slots.shared(ready.total, accesses.num_layers)
    rate = ready.judged.fitted.rate
    resident = slots.hottest(rate * ready.judged.clock.transfer.reshape(rate.shape))
    practical = [row for row in rows if row.practical]
    return Residency(
        best=min(practical, key=lambda row: row.step).name,
        reference=rows[-1].name,
        fits=ready.fits,
        unit=ready.judged.clock.unit,
        slots=ready.total,
        experts=ready.experts,
        expert_bytes=size,
        memory_gb=None if size is None else ready.total * size / 1e9,
        steps=accesses.num_steps,
        accesses=len(accesses),
        tokens=int(accesses.step_tokens.sum()),
        batch_tokens=ready.request.batch_tokens,
        phase=ready.request.phase,
        policies=tuple(rows),
        layer_ids=ready.layer_ids,
        resident=tuple(tuple(np.flatnonzero(layer).tolist()) for layer in resident),
        notes=(*ready.notes, *notes),
    )


def _fetched(ready: Prepared, tell: Tell) -> tuple[list[PolicyFigures], tuple[str, ...]]:
    """Run every policy that fetches what is missing."""
    rows, notes, like = list[PolicyFigures](), tuple[str, ...](), None
    request, layers = ready.request, ready.judged.accesses.num_layers
    buffer = ready.prefetch_experts * request.lookahead
    for name, policy in POLICIES.items():
        if policy.ahead is not None and (ready.fits or buffer > ready.total or request.lookahead >= layers):
            continue
        tell(f"running {name}")
        chosen = choose(name, ready.past, ready.total, request.budget, ready.prefetch_experts, like)
        like = chosen if name == "lfu_aged" else like
        rows.append(_row(ready, name, chosen, *ready.judged.run(name, chosen)))
    if len(rows) < len(POLICIES) and not ready.fits:
        what = "look ahead more layers than there are" if request.lookahead >= layers else "hold more than all slots"
        notes = (f"Policies with a buffer are left out: they would {what}.",)
    return rows, notes


def _computed(ready: Prepared, tell: Tell) -> tuple[list[PolicyFigures], tuple[str, ...]]:
    """Run what stays for good, where the host computes the rest: as fitted, and in hindsight."""
    layers, rate = ready.judged.accesses.num_layers, ready.judged.fitted.rate
    shared = Chosen(budget="shared", slots=Slots.shared(ready.total, layers))
    equal = Chosen(budget="equal", slots=Slots.equal(ready.total, layers))
    tried = [chosen for chosen in (shared, equal) if ready.request.budget in (None, chosen.budget)]
    tell("running static")
    best = min(tried, key=lambda chosen: _cold(ready, ready.past, chosen)[1].mean)
    row = _row(ready, "static", best, *_cold(ready, ready.judged, best))
    used = np.bincount(ready.judged.accesses.item, minlength=rate.size).reshape(rate.shape)
    known = replace(ready.judged, fitted=replace(ready.judged.fitted, rate=used.astype(np.float64)))
    after = _row(ready, "static", shared, *_cold(ready, known, shared))
    return [row, replace(after, name="hindsight", summary=HINDSIGHT, practical=False)], ()


def _cold(ready: Prepared, ground: Ground, chosen: Chosen) -> tuple[Simulated, StepTimes]:
    """Run what stays for good beside a host that reads an expert, or computes its tokens where that takes longer."""
    time, (speed, flops) = ready.time, ready.request.host
    assert time is not None
    assert ready.expert_bytes is not None
    done = simulate(ground.accesses, "static", chosen.slots, ground.fitted)
    clock: Clock = replace(
        ground.clock,
        host_read=ready.expert_bytes / speed / 1e6,
        host_per_token=2.0 * time.model.shape.expert_weights / flops / 1e9,
    )
    return done, clock.computing(ground.accesses, done, compute_times(ground.accesses, time, done.kind))


def _row(ready: Prepared, name: PolicyName, chosen: Chosen, done: Simulated, times: StepTimes) -> PolicyFigures:
    accesses, policy = ready.judged.accesses, POLICIES[name]
    moved = done.moved(accesses) if ready.request.cold == "fetch" else np.zeros(ready.experts, np.int64)
    tier = tier_of_experts(ready.judged.fitted.rate, ready.tiers)
    each = np.bincount(tier, weights=moved, minlength=len(ready.tiers)) / accesses.num_steps
    settings: dict[str, float] = {"half_life_steps": chosen.half_life} if policy.rule == "aged" else {}
    if policy.ahead is not None:
        settings |= {"prefetch_experts": chosen.prefetch_experts}
        settings |= {"confidence": chosen.confidence} if policy.ahead != "known" else {}
    per_step = float(moved.sum()) / accesses.num_steps
    return PolicyFigures(
        name=name,
        summary=policy.summary,
        practical=policy.practical,
        hit_rate=done.hit_rate,
        cache_hit_rate=done.cache_hit_rate,
        prefetch_hit_rate=done.prefetch_hit_rate,
        transfers_per_step=per_step,
        wasted_per_step=done.wasted / accesses.num_steps,
        moved={one.name: float(count) for one, count in zip(ready.tiers, each, strict=True)},
        gb_per_step=None if ready.expert_bytes is None else per_step * ready.expert_bytes / 1e9,
        step=times.mean,
        step_p99=times.p99,
        waited=times.waited,
        budget=chosen.budget,
        slots_per_layer=() if chosen.budget == "shared" else tuple(chosen.slots.room.tolist()),
        settings=settings,
    )
