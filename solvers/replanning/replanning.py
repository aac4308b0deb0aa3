"""Re-planning on a trace: what runs is carried over, better plans are named after it, and the best few moves judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, score
from placement.moves.cost import Moves
from placement.moves.freedom import Freedom
from placement.moves.relabel import moved_experts, relabelled_table
from placement.topology.file import topology_to_dict
from solvers.advising.candidates import best_plan
from solvers.fronts.few import POINTS, few_moves, fewest_with_most
from solvers.fronts.pareto import nondominated
from solvers.replanning.judging import TimeMeasure
from solvers.replanning.request import ReplanRequest
from solvers.replanning.result import Replan, ReplanPoint
from solvers.replanning.setting import Setting
from solvers.replanning.verdict import Bill, reasons_of, verdict_of
from solvers.replanning.way import way_to
from solvers.solving.solving import solve
from solvers.sources.parts import Named
from solvers.sources.source import open_source
from traces import InputError, LoadCounts, Profile, Trace
from traces.support.kinds import check_names, checked

__all__ = ["replan"]

Tell = Callable[[str], None]
Table = npt.NDArray[np.int32]


def _silent(_: str) -> None:
    pass


@checked
def replan(
    running: Plan,
    source: Named,
    *,
    request: ReplanRequest | None = None,
    workers: int | None = None,
    tell: Tell = _silent,
    **asked: Any,
) -> Replan:
    """Say whether to leave the plan that runs, and how to change it with few moves.

    Plans are found on one part of the trace and judged on the other, which they have never seen.

    Parameters
    ----------
    running : Plan
    source : Trace, LoadCounts or path
        What was recorded lately. Milliseconds on a machine and a model, of counts those of an expected pass.
    request : ReplanRequest, optional
        In place of `asked`.
    workers : int, optional
        Threads of searches; all available cores by default.
    tell : callable
        Gets what is being done, in words.
    **asked
        Fields of `ReplanRequest`: machine, model, horizon_s, dead_gpus and others.

    Raises
    ------
    InputError
        If the plan, the source, the request and the machine do not fit each other.
    NoPlanError
        If no plan was found.

    Examples
    --------
    >>> replan(running, "today.npz", machine="h200:4x8", model="deepseek-v3").verdict  # doctest: +SKIP
    'leave_it'
    """
    if request is None:
        check_names(asked, ReplanRequest, "a re-plan")
        request = ReplanRequest(**asked)
    elif asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    opened = source if isinstance(source, Trace | LoadCounts | Profile) else open_source(source)
    tell("reading and profiling")
    search = _Search(setting=Setting.of(running, opened, request, workers), workers=workers, tell=tell)
    return search.result(search.target())


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Targets, plans between, and the way to the one that is chosen."""

    setting: Setting
    workers: int | None
    tell: Tell

    def target(self) -> tuple[Table, int, int]:
        """Search; return the map to go to under the names that move least, and moves without and with these names."""
        setting, measure = self.setting, self.setting.measure
        problem, request = setting.problem, setting.request
        start = None if setting.start is None else problem.plan(setting.start)
        if isinstance(measure, TimeMeasure):
            found, _ = best_plan(
                problem,
                measure.judge_of_fit,
                start,
                solver=request.solver,
                limits=request.limits,
                seed=request.seed,
                workers=self.workers,
                tell=self.tell,
            )
        else:
            self.tell("searching")
            found = solve(problem, request.solver, limits=request.limits, seed=request.seed, workers=self.workers).plan
        table = found.physical_to_logical_map
        held = setting.carried.table
        named, _ = relabelled_table(held, table, problem.num_experts, Freedom.of(problem))
        moved = [moved_experts(held, each, problem.num_experts, problem.num_gpus) for each in (table, named)]
        return named, moved[0], moved[1]

    def result(self, found: tuple[Table, int, int]) -> Replan:
        """Judge plans between what runs and what was found."""
        target, without, named = found
        setting = self.setting
        problem, start = setting.problem, setting.start
        self.tell("weighing moves")
        tables = [target] if start is None else [start, *few_moves(problem, start, [target], POINTS)]
        plans = [problem.plan(table, score=score(problem, table).total) for table in tables]
        moves = [setting.moves(table) for table in tables]
        values = [setting.measure.fitted(plan) for plan in plans]
        own = None if setting.running is None else setting.measure.fitted(setting.running)
        kept = self._kept(moves, values)
        chosen = self._choose([moves[item] for item in kept], [values[item] for item in kept], own)
        plan, best = plans[kept[chosen]], moves[kept[chosen]]
        self.tell("judging on what was held out")
        judged = None if setting.running is None else setting.measure.judge(setting.running, plan)
        alone = judged if judged is not None else setting.measure.judge(plan, plan)
        way = way_to(setting, plan)
        transfers = [step.transfer_s for step in way.steps]
        bill = Bill(
            stall_s=setting.request.stall_ms / 1e3 * len(way.steps),
            transfer_s=None if None in transfers else float(sum(item or 0.0 for item in transfers)),
            horizon_s=setting.request.good_for_s,
        )
        verdict = verdict_of(judged, setting.measure, bill, best.experts, broken=bool(setting.broken))
        timed = setting.measure.in_time
        return Replan(
            verdict=verdict,
            reasons=(
                *setting.broken,
                *reasons_of(verdict, judged, setting.measure, bill, best, setting.carried, setting.notes),
            ),
            unit=setting.measure.unit,
            before=None if judged is None else judged.before,
            after=alone.after,
            gain_fraction=None if judged is None else judged.fraction,
            gain_interval=None if judged is None else judged.interval,
            horizon_s=bill.horizon_s,
            saved_s=judged.fraction * bill.horizon_s if timed and judged is not None else None,
            stall_s=bill.stall_s,
            transfer_s=bill.transfer_s,
            plan=plan.replacing(provenance=self._provenance()),
            moves=best,
            without_relabelling=without,
            with_relabelling=named,
            front=tuple(
                ReplanPoint(
                    moved_experts=moves[item].experts,
                    moved_bytes=moves[item].bytes,
                    between_nodes=moves[item].between_nodes,
                    value=values[item],
                    gain_fraction=None if own is None else setting.measure.gain(own, values[item]),
                    transfer_s=moves[item].transfer_s(setting.links),
                    chosen=place == chosen,
                )
                for place, item in enumerate(kept)
            ),
            rollout=way,
            plans=tuple(
                problem.plan(step.table, provenance=self._provenance() | {"step": number})
                for number, step in enumerate(way.steps, 1)
            ),
            carried=setting.carried,
        )

    def _kept(self, moves: list[Moves], values: list[float]) -> list[int]:
        """Return the plans to choose from, from few moves to many."""
        most = self.setting.request.max_moves
        counts = [item.experts for item in moves]
        there = [item for item in range(len(moves)) if most is None or counts[item] <= most]
        if not there:
            detail = f"At least {min(counts):,} experts have to move here; {most} may."
            raise InputError.of("max_moves_range", "/max_moves", detail, f"Allow at least {min(counts)}.")
        kept = nondominated([float(counts[item]) for item in there], [values[item] for item in there])
        return [there[item] for item in kept]

    def _choose(self, moves: list[Moves], values: list[float], own: float | None) -> int:
        """Return which plan to propose: the fewest moves with most of the time that is saved, or of the score's gain.

        One that moves something, if any is better: whether it pays is judged on what was held out.
        """
        if self.setting.measure.in_time:
            per_step = own if own is not None else max(values)
            net, budget = [], self.setting.step_experts
            for moved, value in zip(moves, values, strict=True):
                steps = math.ceil(moved.experts / (budget or moved.experts)) if moved.experts else 0
                cost = self.setting.request.stall_ms / 1e3 * steps + (moved.transfer_s(self.setting.links) or 0.0)
                net.append((1 - value / per_step) * self.setting.request.good_for_s - cost)
            gains = np.array(net)
        else:
            gains = max(values) - np.array(values)
        if not moves[0].experts and len(gains) > 1:
            gains[0] = -math.inf
        return fewest_with_most(gains)

    def _provenance(self) -> dict[str, Any]:
        problem = self.setting.problem
        known: dict[str, Any] = {
            "solver": "replan",
            "seed": self.setting.request.seed,
            "predecessor": self.setting.predecessor,
        }
        known |= {"trace_digest": problem.profile.digest, "topology": topology_to_dict(problem.topology)}
        return known | ({} if problem.engine is None else {"engine": problem.engine})
