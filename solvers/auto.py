"""What a newcomer gets: every method that fits, cheapest first, then the joint search for the rest of the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from placement import Problem
from solvers.registry import Solver, solver_from
from solvers.search import Search

__all__ = ["Auto"]

QUICK_STEPS = 2_000_000_000  # a second or two
QUICK = ("contiguous", "round_robin", "random", "eplb", "load_balance")


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Portfolio: baselines, assignment sweeps, exact methods where they are small enough, annealing.

    It runs them and keeps the best plan on the problem's own objective. The baselines take milliseconds; annealing gets
    the time that the others leave, and under a work limit as much work as it would get alone.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "Tries the baselines, then searches jointly for the rest of the time; keeps the best plan."

    def supports(self, problem: Problem) -> str | None:
        """Every problem is supported."""
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Run the portfolio."""
        rank = 0

        def run(solver: Solver, share: float) -> None:
            nonlocal rank
            rank += 1
            if solver.supports(problem) is None and not search.done and not search.proven:
                solver.run(problem, search.part(share, rank, solver.name))

        for name in QUICK:
            run(solver_from(name), 0.05)
        run(solver_from("assignment"), 0.05)
        run(solver_from("chain_dp", {"max_steps": QUICK_STEPS}), 0.5)
        if search.work is not None or search.remaining_s is not None:  # its library needs a limit of its own
            run(solver_from("exflow", {"max_rows": 2000, "backend": "cp_sat"}), 0.3)
        run(solver_from("annealing"), 1.0)
