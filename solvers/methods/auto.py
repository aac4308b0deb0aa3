"""What a newcomer gets: a plan in milliseconds, a good one in seconds, and what no plan can beat with the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from placement import Problem
from solvers.methods.eplb.router_groups import grouped_eplb
from solvers.methods.registry import Solver, solver_from
from solvers.methods.set_partition.gpu_sets import count_sets
from solvers.searching.search import Search
from solvers.survival.effort import OutOfEffortError

__all__ = ["Auto", "has_time_for_bounds", "search_share"]

QUICK_STEPS = 2_000_000_000  # a second or two; at a step per nanosecond and core
QUICK_BOOLEANS = 2_000  # of a model that is often solved in seconds; chosen by trial
BASELINES = ("contiguous", "round_robin", "random", "eplb", "load_balance")
NULL_CASES = ("round_robin", "random")  # hardly ever better than the others
# Where a search takes over and loads count, these are where it starts, or what it leaves behind in its first seconds.
# With 58 x 256 experts each would take a twentieth of ten seconds, to be scored; and where replicas are dealt over many
# blocks the search starts from load_balance, which is better than they are (9.55 against 9.71 and 35.8). With 92 x 896,
# the pairs of experts that grace asks for take more memory than all else, 1.2 GB.
STARTS = ("eplb", "grace")
# Of a layer, times GPUs: decided in tenths of a second, whatever it starts from;
# chosen by trial.
TINY_SETS = 20_000
# Methods for small problems, in their order, and what small is.
EXACT: dict[str, dict[str, int]] = {
    "chain_dp": {"max_steps": QUICK_STEPS},
    "set_partition": {"max_sets": TINY_SETS},
    "assignment": {},
    "cp_sat": {"max_booleans": QUICK_BOOLEANS},
}
QUICK_SETS = 3_000_000  # of a layer, times GPUs: a program is solved in less than a second; chosen by trial
SETS_PER_S = 700_000  # of all layers, times GPUs, that a core prices and decides; chosen by trial
SETS_ROUNDS = 20  # that look at all of them; most layers need 5 to 20
# Of the time, and seconds at most, for a plan that sets of experts start from; chosen by trial.
SETS_START, SETS_START_S = 0.4, 5.0
SETS_SHARE = 0.85  # of what is left then; what they don't decide is for a last search; chosen by trial
# Searches of which the bound gets a tenth, and half; see docs/decisions/0008-auto-splits-its-time.md.
SHORT_S, LONG_S = 10.0, 60.0
# With redundant experts on many blocks of a large problem, half a minute is for the search: more gains it little (0.3 %
# of 58 x 256 in the second half of a minute), and a bound takes as long (docs/decisions/0031-spread.md).
HARD_SEARCH_S, HARD_SHARE = 27.0, 0.45
GAP_SHARE = 0.15  # of the search before the bound, where a gap is all that is asked for; chosen by trial
# Slots in all layers from which on annealing is slow to get anywhere from random plans; chosen by
# trial.
LARGE = 5_000
# Of the work of the search, whose trials take about as long as an entry of the bound's matrices; from the times by size
# in docs/bounds.md.
BOUND_WORK = 0.5
MORE_ROUNDS = 2  # without a better plan, before a search without limits on time and work ends; chosen by trial
# A round whose plan takes more than a fifth of its time to be scored gains nothing, and ends after the limit.
ROUND_OFFERS = 5
SETTLED = 1e-5  # relative gain of a round that counts as none; chosen by trial; far below what other tokens leave open


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Portfolio: baselines, assignment sweeps, exact methods where they are small enough, annealing, then the bound.

    It runs them and keeps the best plan on the problem's own objective. The baselines take milliseconds. What time they
    leave is split between annealing and the bound; what the bound leaves goes to annealing from the best plan. Under a
    work limit annealing gets as much work as it would get alone.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "Tries the baselines, searches jointly, then proves how good the best plan is."

    def supports(self, problem: Problem) -> str | None:
        """Every problem is supported."""
        return None

    def run(self, problem: Problem, search: Search, *, like: Problem | None = None, bounds: bool = True) -> None:
        """Run the portfolio; where a problem stands for a larger one, `like`, without the methods that are not for it.

        See `solvers.solving.warm_up`: what is not needed need not be loaded, bounds neither.
        """
        portfolio = _Portfolio(problem, search, problem if like is None else like)
        dispatched = problem.objective.execution == "dispatch" and problem.objective.dedup != "none"
        stands_in = like is not None and _is_large(like)

        def worth(name: str) -> bool:
            starts = name in STARTS and dispatched and problem.load_counts
            brief = search.offers_take_long or stands_in
            return not (brief and name in NULL_CASES) and not (starts and (brief or _is_hard(problem)))

        for name in BASELINES:
            if worth(name):
                portfolio.run(solver_from(name), 0.05)
        if (grouped := grouped_eplb(problem)) is not None and worth("eplb"):
            portfolio.run(grouped, 0.05)
        if dispatched and worth("grace"):
            portfolio.run(solver_from("grace"), 0.05)
        portfolio.run(solver_from("chain_dp", EXACT["chain_dp"]), 0.5)
        portfolio.run(solver_from("set_partition", EXACT["set_partition"]), 0.3)
        portfolio.run(solver_from("assignment"), 0.25 if _is_large(problem) else 0.05)
        limited = search.work is not None or search.remaining_s is not None
        if limited:  # what may take hours needs a limit
            portfolio.run(solver_from("cp_sat", EXACT["cp_sat"]), 0.3)
        again, share = search.work is None, search_share(search.remaining_s)
        bounds = bounds and has_time_for_bounds(problem, search.remaining_s)
        if _is_hard(problem):
            seconds = search.remaining_s or math.inf
            share = max(share, HARD_SHARE, min(1.0, HARD_SEARCH_S / seconds)) if bounds else 1.0
        sets = solver_from("set_partition", {"max_sets": QUICK_SETS})
        fits = sets.supports(problem) is None and (limited or not problem.objective.imbalance_weight)
        if fits and _time_for_sets(problem, search) and not problem.objective.imbalance_weight:
            share = min(SETS_START, SETS_START_S / (search.remaining_s or math.inf))
        elif search.wanted_gap is not None:  # then the bound decides when it ends
            share = min(share, GAP_SHARE)
        # Without a sample of tokens, replicas are priced by expected loads.
        search_by = "annealing" if solver_from("annealing").supports(problem) is None else "load_search"
        portfolio.run(solver_from(search_by), share, work_share=1.0)
        if fits and _time_for_sets(problem, search):  # bound and plan at once
            portfolio.run(sets, SETS_SHARE, work_share=1.0)
        elif bounds:
            portfolio.bound(1.0 if search.remaining_s is None or search.remaining_s < LONG_S else 0.8)
        idle = 0
        while again and portfolio.going_on and (search.remaining_s is not None or idle < MORE_ROUNDS):
            if search.offers_that_fit < ROUND_OFFERS:
                break
            before = search.best_score
            portfolio.run(solver_from(search_by), 0.97, from_best=True)
            after = search.best_score
            assert before is not None
            assert after is not None
            idle = idle + 1 if before - after <= SETTLED * abs(before) else 0


def _time_for_sets(problem: Problem, search: Search) -> bool:
    """Whether linear programs over sets of experts get somewhere in all layers with what is left."""
    sets = count_sets(problem) * problem.num_layers
    if search.work is not None and sets * SETS_ROUNDS > search.work:
        return False
    return search.remaining_s is None or sets <= SETS_PER_S * search.workers * search.remaining_s


def has_time_for_bounds(problem: Problem, seconds: float | None) -> bool:
    """Whether a bound is tried in what is left of the time; on hard problems, half a minute is for the search alone."""
    return seconds is None or seconds > LONG_S / 2 or not _is_hard(problem)


def _is_large(problem: Problem) -> bool:
    return problem.num_layers * problem.num_slots > LARGE


def _is_hard(problem: Problem) -> bool:
    """Whether bounds are of little use: a large problem with redundant experts on more than two blocks."""
    objective, nodes = problem.objective, problem.topology.num_nodes
    dispatched = objective.execution == "dispatch" and objective.dedup != "none"
    blocks = nodes if nodes > 1 else problem.num_gpus
    return _is_large(problem) and dispatched and problem.spare_replicas > 0 and blocks > 2


def search_share(seconds: float | None) -> float:
    """Return the share of the remaining time that the search gets before the bound: 0.9 at 10 s, half at a minute.

    A search gains ever less from more time, a bound goes on rising for minutes.
    """
    if seconds is None or seconds <= 0:
        return 0.9
    slope = 0.4 / math.log(LONG_S / SHORT_S)
    return float(np.clip(0.9 - slope * math.log(seconds / SHORT_S), 0.35, 0.95))


class _Portfolio:
    """The methods of one run, in order; those that can't take `like` are left out as well."""

    def __init__(self, problem: Problem, search: Search, like: Problem) -> None:
        self.problem, self.search, self.like = problem, search, like
        self._rank = 0

    @property
    def going_on(self) -> bool:
        return not self.search.done and not self.search.proven

    @property
    def without_plan(self) -> bool:
        return self.search.best is None and self.search.limit != "cancelled"

    def run(self, solver: Solver, share: float, *, work_share: float | None = None, from_best: bool = False) -> None:
        """Run a method for a share of the time that remains, unless it does not fit or all is settled."""
        self._rank += 1
        # Without a plan yet, the first baseline runs even if the instant bound took all the time there was.
        if any(solver.supports(each) is not None for each in (self.problem, self.like)):
            return
        if not (self.going_on or self.without_plan):
            return
        part = self.search.part(share, self._rank, solver.name, work_share=work_share)
        if from_best:
            part.start, part.seed = self.search.best, self.search.seed + self._rank
        try:
            solver.run(self.problem, part)
        except OutOfEffortError as error:
            part.note(f"ended early: {error}")

    def bound(self, share: float) -> None:
        """Raise the bound."""
        from solvers.bounds import raise_bound

        self._rank += 1
        if self.going_on:
            raise_bound(self.problem, self.search.part(share, self._rank, "bound", work_share=BOUND_WORK))
