"""Advice on prefill and decode together: a plan for each, one plan for both, and pools of GPUs for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from placement import Plan
from placement.advice.without_ep import FOR_EXPERTS, weights_gb
from placement.time import TimeModel
from solvers.advising.advice import Advice, TwoPhases
from solvers.advising.advising import advise_phase, request_of_advice, tokens_of
from solvers.advising.request import AdviceRequest
from solvers.judging.judge import Judge
from solvers.sources.parts import Named
from traces.support.kinds import checked
from traces.support.words import Phase

__all__ = ["advise_both"]

BOTH: Final[tuple[Phase, Phase]] = ("prefill", "decode")


@checked
def advise_both(
    source: Named,
    *,
    request: AdviceRequest | None = None,
    workers: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
    **asked: Any,
) -> TwoPhases:
    """Advise on prefill and decode, each with passes of its own size; say what one plan for both costs.

    Parameters
    ----------
    source, request, workers, tell, **asked
        See `advise`.

    Raises
    ------
    InputError
    NoPlanError

    References
    ----------
    .. [1] Y. Zhong et al., DistServe, OSDI 2024: prefill and decode on GPUs of their own.
    """
    request = request_of_advice(request, {"phase": "both"} | asked if request is None else asked)
    trace = tokens_of(source)
    found: dict[Phase, tuple[Advice, Judge]] = {}
    for phase in BOTH:
        tell(phase)
        found[phase] = advise_phase(trace, request, phase, workers=workers, tell=tell)
    tell("one plan for both")
    one = _one_plan(found)
    pools = _pools(found)
    return TwoPhases(
        phases={phase: advice for phase, (advice, _) in found.items()},
        one_plan=one,
        separate_pools=pools,
        reasons=_reasons(one, pools, trace.columns),
    )


def _one_plan(found: dict[Phase, tuple[Advice, Judge]]) -> dict[str, Any]:
    """Return what each phase takes under the other's plan, and which plan costs both less."""
    rows: list[dict[str, Any]] = []
    for owner in BOTH:
        plan = found[owner][0].plan
        row: dict[str, Any] = {"of": owner}
        for phase in BOTH:
            advice, judge = found[phase]
            step = advice.step_ms_after if phase == owner else judge.step_ms(plan)
            row |= {f"{phase}_step_ms": step, f"{phase}_cost_fraction": step / advice.step_ms_after - 1}
        rows.append(row)
    return min(rows, key=lambda row: row["prefill_cost_fraction"] + row["decode_cost_fraction"])


def _pools(found: dict[Phase, tuple[Advice, Judge]]) -> dict[str, Any]:
    """Return what a pool of GPUs for each phase needs."""
    pools: dict[str, Any] = {}
    for phase in BOTH:
        advice, judge = found[phase]
        time = judge.time
        whole = weights_gb(time, time.model.shape.num_experts)
        room = FOR_EXPERTS * min(gpu.memory_gb for gpu in time.machine.gpus)
        pools[phase] = {
            "least_gpus": math.ceil(whole / room),
            "gpus": time.machine.num_gpus,
            "expert_gb_per_gpu": weights_gb(time, advice.plan.slots_per_gpu),
            "tokens_per_s_per_gpu": time.tokens_per_gpu / advice.step_ms_after * 1e3,
        }
    prefill, decode = pools["prefill"], pools["decode"]
    ratio = decode["tokens_per_s_per_gpu"] / prefill["tokens_per_s_per_gpu"]
    moved = moved_gb(found["prefill"][0].plan, found["decode"][0].plan, found["prefill"][1].time)
    return pools | {
        "prefill_gpus_per_decode_gpu": ratio,
        "moved_gb": moved,
        "detail": (
            f"Each pool holds all experts: at least {prefill['least_gpus']} GPUs. For as many tokens of prompts as of "
            f"answers, {ratio:.3g} GPUs of prefill per GPU of decode; n times as many with prompts n times as long. "
            f"Going from one plan to the other on the same GPUs moves {moved:.3g} GB."
        ),
    }


def moved_gb(before: Plan, after: Plan, time: TimeModel) -> float:
    """Return gigabytes of experts that GPUs must load which they did not hold, of the layers of the plans."""
    held = [_held(plan) for plan in (before, after)]
    return int((held[1] & ~held[0]).sum()) * weights_gb(time, 1, 1)


def _held(plan: Plan) -> Any:
    """Return which experts each GPU holds, (L, G, E) bool."""
    layers, gpus = plan.num_layers, plan.num_gpus
    table = plan.physical_to_logical_map.reshape(layers, gpus, -1)
    held = np.zeros((layers, gpus, plan.num_experts), bool)
    layer, gpu, slot = np.nonzero(table >= 0)
    held[layer, gpu, table[layer, gpu, slot]] = True
    return held


def _reasons(one: dict[str, Any], pools: dict[str, Any], columns: frozenset[str]) -> tuple[str, ...]:
    prefill, decode = (100 * one[f"{phase}_cost_fraction"] for phase in BOTH)
    found = [
        f"One plan for both, that of {one['of']}, costs {prefill:+.1f} % of a prefill step and {decode:+.1f} % of a "
        "decode step.",
        pools["detail"],
    ]
    if "phase" not in columns:
        found.append(
            "The trace does not tell phases: both plans are fitted on the same tokens, in passes of other sizes."
        )
    return tuple(found)
