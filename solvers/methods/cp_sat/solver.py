"""Proven optima of small problems, replicas included: constraint programming on the problem's own objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.plan.plan import replicas_on_gpu
from solvers.arrange.in_order import in_order
from solvers.methods.cp_sat.model import PlacementModel
from solvers.methods.cp_sat.patterns import ReplicaPatterns, count_patterns
from solvers.methods.cp_sat.sizes import count_booleans
from solvers.searching.cp_sat import run_cp_sat
from solvers.searching.search import Search
from traces import Violations

__all__ = ["CpSat"]

LOCAL_WORK = 1_000_000  # of one neighbourhood: about a second; chosen by trial

Replicas = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CpSat:
    """CP-SAT on one boolean per layer, expert and replica pattern (the GPUs that hold its replicas).

    Loads and traffic depend on patterns alone, whatever the replica policy, so nothing of the objective is approximated
    but the standard errors of loads. These are convex: tangents are added at each plan found, and the model is solved
    again until its bound meets the score.

    Attributes
    ----------
    max_booleans : int
        Largest model to try.
    neighbourhood_layers : int
        0 to decide all layers at once. Else so many consecutive layers are improved at a time, the others as they are,
        in sweeps over the model until nothing improves; that proves nothing.
    """

    max_booleans: int = 20_000
    neighbourhood_layers: int = 0

    name: ClassVar[str] = "cp_sat"
    summary: ClassVar[str] = (
        "Constraint programming (CP-SAT) on the whole objective, with replicas: proven optima of small problems."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if self.max_booleans < 1:
            found.add("option_range", "/options/max_booleans", f"{self.max_booleans} booleans.", "Give at least 1.")
        if self.neighbourhood_layers < 0:
            detail = f"{self.neighbourhood_layers} layers."
            found.add("option_range", "/options/neighbourhood_layers", detail, "Give 0 (all layers) or more.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Problems whose model has few booleans."""
        if problem.objective.activated_weight:
            return "its model does not count activated experts."
        if problem.replicas_limited:
            return "its model has no budget of replicas."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        layers = self.neighbourhood_layers or problem.num_layers
        needs = min(layers, problem.num_layers) * problem.num_experts * count_patterns(problem)
        # Pins and exclusions leave out patterns; that the enumeration itself is short is what counts here.
        if needs <= self.max_booleans:
            needs = count_booleans(problem, ReplicaPatterns.of(problem), layers, self.max_booleans)
        if needs > self.max_booleans:
            return f"its model has {needs:,} booleans or more, above max_booleans = {self.max_booleans:,}."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan in order, or start from the best so far, then every better one that CP-SAT finds."""
        if search.best is None:
            search.offer(in_order(problem, search))
        run = _Run(problem, search)
        whole = not 0 < self.neighbourhood_layers < problem.num_layers
        spent = run.whole() if whole else run.sweep(self.neighbourhood_layers)
        if spent is not None:
            search.progress(spent)


class _Run:
    """One search: its patterns, its offers, the work that it has spent."""

    def __init__(self, problem: Problem, search: Search) -> None:
        self.problem, self.search = problem, search
        self.patterns = ReplicaPatterns.of(problem)
        self.step = 0
        self.spent = 0

    @property
    def best(self) -> Replicas:
        assert self.search.best is not None
        return replicas_on_gpu(self.search.best, self.problem.num_experts, self.problem.num_gpus)

    def whole(self) -> int | None:
        """Solve with all layers free; return the work spent if a limit ended it."""
        problem = self.problem
        model = PlacementModel(problem, self.patterns, range(problem.num_layers), self.best)
        touched: set[bytes] = set()
        solution = self.best
        while solution.tobytes() not in touched:
            touched.add(solution.tobytes())
            model.touch(solution)
            found = self._solve(model, proves=True, work=self._left())
            if found is None or self.search.proven:
                return self._spent()
            solution = found
        return None

    def sweep(self, layers: int) -> int | None:
        """Improve overlapping windows of layers, from first to last, until a whole sweep finds nothing."""
        problem = self.problem
        firsts = sorted({*range(0, problem.num_layers - layers, max(1, layers // 2)), problem.num_layers - layers})
        idle = 0
        while idle < len(firsts):
            for first in firsts:
                before, left = self.search.best_score, self._left()
                model = PlacementModel(problem, self.patterns, range(first, first + layers), self.best)
                model.touch(self.best)
                self._solve(model, proves=False, work=min(LOCAL_WORK, left))
                if self.search.done or self._left() <= 0:
                    return self._spent()
                idle = 0 if self.search.best_score != before else idle + 1
                if idle == len(firsts):
                    break
        return None

    def _left(self) -> float:
        work = self.search.work
        return np.inf if work is None else work - self.spent

    def _spent(self) -> int:
        """Return the work spent; all of it where CP-SAT stopped a moment before."""
        work = self.search.work
        return self.spent if work is None or self.search.done or self.search.proven else max(self.spent, work)

    def _solve(self, model: PlacementModel, *, proves: bool, work: float) -> Replicas | None:
        """Offer the plans that CP-SAT finds, and report bounds where the model `proves` them.

        Returns
        -------
        (L, E, G) int64 or None
            Replicas of the model's optimum; None if a limit came first.
        """
        settings = {
            "linearization_level": 2,  # pairs and messages are sums, which linear programs bound; chosen by trial
            "cut_level": 0,  # chosen by trial
            # Else a load above its optimum may come down by the smallest unit at a time.
            "binary_search_num_conflicts": 10,
            # The presolve of 9.15 cuts off optima where rows have large coefficients, as those of loads: a step of it
            # adds them up in 32 bits (or-tools issue 5293), and probing does too. Without it, runs take as long.
            "cp_model_presolve": not model.loads.terms,
            "presolve_inclusion_work_limit": 0,
        }

        def bound(value: float) -> None:
            if np.isfinite(value):
                self.search.bound(max(0.0, model.bound(value)))

        model.hint(self.best)
        found = run_cp_sat(
            model.cp,
            self.search,
            work=work,
            settings=settings,
            on_solution=lambda holds: self._offer(model, holds),
            on_bound=bound if proves else None,
        )
        self.spent += found.work
        if found.status == "infeasible":
            raise RuntimeError("CP-SAT finds the model infeasible although there is a plan")
        if found.status != "optimal":
            return None
        if proves:
            bound(found.bound)
        return replicas_on_gpu(model.table(found.holds), self.problem.num_experts, self.problem.num_gpus)

    def _offer(self, model: PlacementModel, holds: Callable[[Any], bool]) -> None:
        self.step += 1
        self.search.offer(model.table(holds), self.step)
