"""What else could be done: more redundancy, groups of other sizes, and layouts without expert parallelism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from placement import Plan, Problem
from placement.advice.timing import mean_step_ms
from placement.advice.without_ep import (
    Alternative,
    all_gather,
    data_parallel,
    expert_counts,
    fits,
    pulled_weights,
    tensor_parallel,
    weights_gb,
)
from placement.engines import engine_of
from placement.problem.objective import SettledObjective
from placement.time import Machine
from solvers.advising.wider import around_hottest, with_hottest, with_replicas
from solvers.judging.judge import QUICK, QUICK_WORK, Judge
from solvers.plans import NoPlanError
from solvers.searching.limits import Limits
from solvers.solving.solving import solve
from traces import InputError

__all__ = ["Setting", "alternatives"]

EXTRA_SLOTS: Final = (1, 2, 4)
HOTTEST: Final = (1, 4)
QUICK_LIMITS: Final = Limits(work=QUICK_WORK)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What alternatives are compared in.

    Attributes
    ----------
    problem : Problem
        On the tokens that plans are fitted on.
    judge : Judge
        Of the tokens held out.
    fit : Judge
        Of the tokens that plans are fitted on.
    running, found : Plan
    step_ms_before, step_ms_after : float
    """

    problem: Problem
    judge: Judge
    fit: Judge
    running: Plan
    found: Plan
    step_ms_before: float
    step_ms_after: float

    @property
    def running_gb(self) -> float:
        """Weights of experts on a GPU under the plan that runs."""
        return weights_gb(self.judge.time, self.running.slots_per_gpu)

    def told(self, name: str, step_ms: float | None, gb: float | None, detail: str) -> Alternative:
        """Return an alternative with what follows from its step and memory."""
        return Alternative(
            name=name,
            step_ms=step_ms,
            gain_fraction=None if step_ms is None else 1 - step_ms / self.step_ms_before,
            memory_gb=gb,
            extra_memory_gb=None if gb is None else gb - self.running_gb,
            detail=detail,
        )


def alternatives(setting: Setting, phases: Alternative, tell: Callable[[str], None]) -> tuple[Alternative, ...]:
    """Return everything else that could be done, each timed on the tokens held out.

    Parameters
    ----------
    setting : Setting
    phases : Alternative
        A plan per phase, which only the whole trace can tell of.
    tell : callable
        Gets what is being done, in words.
    """
    time, running = setting.judge.time, setting.running
    told = setting.told
    gb = weights_gb(time, setting.found.slots_per_gpu)
    rows = [
        told("leave_alone", setting.step_ms_before, setting.running_gb, "The plan that runs; nothing is moved."),
        told("rearrange", setting.step_ms_after, gb, "The plan that was found, with as many slots as run now."),
    ]
    tell("timing redundancy levels")
    rows += _redundancy(setting)
    tell("timing the hottest experts on every rank")
    rows += [_hottest(setting, count) for count in HOTTEST]
    tell("timing other layouts")
    counts = expert_counts(setting.judge.sample, running.num_experts)
    rows += [told("no_ep_tensor_parallel", *tensor_parallel(time, counts))]
    rows += [told("no_ep_data_parallel", *data_parallel(time, counts))]
    step, detail = all_gather(time, setting.judge.times(running))
    rows.append(told("allgather_reduce_scatter", step, setting.running_gb, detail))
    rows += _group_sizes(setting)
    rows.append(phases)
    rows.append(told("pull_weights", *pulled_weights(time, counts)))
    return tuple(rows)


def _redundancy(setting: Setting) -> list[Alternative]:
    """Time more slots per GPU, each level with what a further slot buys."""
    engine = setting.problem.engine
    if engine is not None and not engine_of(engine).engine.has_replicas:
        detail = f"{engine_of(engine).engine.title} has no redundant experts."
        return [setting.told("redundant_experts", None, None, detail)]
    rows, previous, at = [], setting.step_ms_after, setting.found.slots_per_gpu
    time = setting.judge.time
    for extra in EXTRA_SLOTS:
        slots = setting.found.slots_per_gpu + extra
        gb = weights_gb(time, slots)
        name = f"redundant_experts_{slots * setting.running.num_gpus - setting.running.num_experts}"
        if slots > setting.problem.num_experts:
            break
        if not fits(time, gb):
            rows.append(setting.told(name, None, gb, f"{slots} slots per GPU: {gb:.0f} GB of experts don't fit."))
            continue
        plans = [with_replicas(setting.found, setting.problem.profile.load, extra)]
        balanced = _quick(replace(setting.problem, slots_per_gpu=slots, redundant_experts=None))
        plans += [] if balanced is None else [balanced]
        plan = min(plans, key=setting.fit.step_ms)
        step = setting.judge.step_ms(plan)
        each = (previous - step) / (slots - at)
        detail = (
            f"{slots} slots per GPU and layer: each slot more buys {each:+.3g} ms of a step for "
            f"{weights_gb(time, 1):.2g} GB per GPU."
        )
        rows.append(setting.told(name, step, gb, detail))
        previous, at = step, slots
    return rows


def _hottest(setting: Setting, count: int) -> Alternative:
    """Time the plan that was found with the hottest experts of every layer on every rank beside it."""
    found, time = setting.found, setting.judge.time
    gb = weights_gb(time, found.slots_per_gpu + count)
    name = f"hottest_{count}_on_every_rank"
    hot = "The hottest expert" if count == 1 else f"The {count} hottest experts"
    what = f"{hot} of each layer on every rank, so that their tokens stay"
    if found.num_experts <= count:
        return setting.told(name, None, gb, "There are no more experts than that.")
    if not fits(time, gb):
        return setting.told(name, None, gb, f"{what}: {gb:.0f} GB of experts don't fit.")
    travel: SettledObjective = replace(setting.judge.travel, replica_policy="same_gpu")
    fit, judge = (replace(each, travel=travel) for each in (setting.fit, setting.judge))
    load = setting.problem.profile.load
    plans = {"as in the plan that was found": with_hottest(found, load, count)}
    plans["balanced anew"] = around_hottest(found, load, count)
    rest = min(plans, key=lambda rest: fit.step_ms(plans[rest]))
    return setting.told(name, judge.step_ms(plans[rest]), gb, f"{what}; the rest {rest}.")


def _group_sizes(setting: Setting) -> list[Alternative]:
    """Time groups of half and a quarter of the ranks, each with all experts, side by side."""
    time, rows = setting.judge.time, []
    gpus = time.machine.num_gpus
    for size in (gpus // 2, gpus // 4):
        if size < 2 or gpus % size or len(time.machine.kinds) > 1:
            continue
        slots = -(-setting.problem.num_experts // size)
        gb = weights_gb(time, slots)
        what = f"{gpus // size} groups of {size} GPUs, each with all experts ({slots} slots per GPU)"
        if not fits(time, gb):
            rows.append(setting.told(f"ep_{size}", None, gb, f"{what}: {gb:.0f} GB of experts don't fit."))
            continue
        machine = Machine(
            name=f"{size} GPUs of {time.machine.name}",
            gpus=time.machine.gpus[:size],
            node_of_gpu=time.machine.node_of_gpu[:size],
            uplink_gb_s=time.machine.uplink_gb_s[: time.machine.node_of_gpu[size - 1] + 1],
        )
        smaller = replace(time, machine=machine)
        try:
            problem = replace(setting.problem, topology=smaller.topology, slots_per_gpu=slots, redundant_experts=None)
        except InputError:  # an engine without redundant experts, whose experts don't divide
            continue
        plan = _quick(problem)
        if plan is None:
            continue
        sample = setting.judge.sample.of_size(smaller.pass_tokens)
        judge = replace(setting.judge, time=smaller, sample=sample)
        step = mean_step_ms(smaller, judge.times(plan))
        rows.append(setting.told(f"ep_{size}", step, gb, f"{what}, balanced by load."))
    return rows


def _quick(problem: Problem) -> Plan | None:
    try:
        return solve(problem, QUICK, limits=QUICK_LIMITS, workers=1).plan
    except (NoPlanError, InputError):
        return None
