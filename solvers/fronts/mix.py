"""What each layer may take from several plans, and the best choice at a price per move: a shortest path."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from placement import Problem, Score, score
from placement.cost.shares import expected_gpu_load, expected_share, guarded_gpu_load, load_spread
from placement.plan.plan import replicas_on_gpu
from solvers.fronts.pareto import nondominated

__all__ = ["Mix"]

Table = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
DEAR = 1e6  # a price at which nothing moves that need not


class Mix:
    """What each layer may take, what that costs, and the best choice at a price per move.

    Parameters
    ----------
    problem : Problem
    tables : list of (L, S) int32
        The first one is the plan that runs.
    scores : list of Score, optional
        Of the tables: the price is then one of the imbalance, not of moves, and all else that costs is the traffic.
    """

    def __init__(self, problem: Problem, tables: list[Table], scores: list[Score] | None = None) -> None:
        self.problem, self.tables = problem, tables
        counts = [replicas_on_gpu(table, problem.num_experts, problem.num_gpus) for table in tables]
        held = [count > 0 for count in counts]
        self.moves = np.stack([(after & ~held[0]).sum(axis=(1, 2)) for after in held], axis=1).astype(np.float64)
        self.unary = np.stack([_balance_cost(problem, count) for count in counts], axis=1)  # (L, M)
        if scores is not None:
            self.moves = np.stack([item.max_load for item in scores], axis=1) / problem.num_layers
            self.unary[:] = 0.0
        weight = problem.objective.traffic_weight
        self.pair = np.zeros((problem.num_layers - 1, len(tables), len(tables)))
        if problem.objective.execution != "context_coherent":
            known = [score(problem, table) for table in tables] if scores is None else scores
            self.unary += weight * np.stack([item.traffic_by_layer for item in known], axis=1)
        elif (affinity := problem.profile.affinity) is not None:
            share = np.stack([expected_share(problem, count) for count in counts])  # (M, L, E, G)
            hop, total = problem.topology.hop_cost, max(float(affinity.sum()), 1.0)
            for layer, pairs in enumerate(affinity):
                onward = pairs.astype(np.float64) @ (share[:, layer + 1] @ hop.T)
                self.pair[layer] = weight / total * np.einsum("aeg,beg->ab", share[:, layer], onward)

    def order(self) -> list[list[int]]:
        """Rank the tables but the first, layer by layer, by what each saves per move where the others stay."""
        alone = self.unary - self.unary[:, :1]
        alone[1:] += self.pair[:, 0, :] - self.pair[:, 0, :1]
        alone[:-1] += self.pair[:, :, 0] - self.pair[:, :1, 0]
        rate = alone / np.maximum(self.moves, 1)
        return [np.argsort(row[1:], kind="stable").tolist() for row in rate]

    def front(self, points: int) -> list[Table]:
        """Return about twice as many mixes as points, from no move to the best plan: ever other prices in the gaps."""
        ends = [self._best(0.0), self._best(DEAR)]
        found = {tuple(choice.tolist()): self._figures(choice) for choice in ends}
        tried: set[tuple[float, float]] = set()
        while len(found) < 2 * points:
            figures = list(found.values())
            kept = [figures[i] for i in nondominated(*zip(*figures, strict=True))]
            gaps = [(b[0] - a[0], a, b) for a, b in pairwise(kept) if (a[0], b[0]) not in tried]
            if not gaps:
                break
            _, a, b = max(gaps, key=lambda gap: gap[0])
            tried.add((a[0], b[0]))
            choice = self._best((a[1] - b[1]) / (b[0] - a[0]))
            found.setdefault(tuple(choice.tolist()), self._figures(choice))
        rows = np.arange(self.problem.num_layers)
        stack = np.stack(self.tables)
        return [stack[np.array(choice), rows] for choice in found]

    def _best(self, price: float) -> npt.NDArray[np.int64]:
        """Return the table that each layer takes at this price per move, (L,)."""
        own = self.unary + (price + 1e-12) * self.moves
        total, before = own[0], []
        for layer in range(1, len(own)):
            reach = total[:, None] + self.pair[layer - 1]
            before.append(reach.argmin(axis=0))
            total = reach.min(axis=0) + own[layer]
        choice = [int(total.argmin())]
        for step in reversed(before):
            choice.append(int(step[choice[-1]]))
        return np.array(choice[::-1])

    def _figures(self, choice: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return moves and cost of a choice."""
        rows = np.arange(len(choice))
        cost = self.unary[rows, choice].sum() + self.pair[rows[:-1], choice[:-1], choice[1:]].sum()
        return float(self.moves[rows, choice].sum()), float(cost)


def _balance_cost(problem: Problem, replicas: npt.NDArray[np.int64]) -> Floats:
    """Return the layers' parts of the objective's terms on loads, (L,); the spread as if there were no tolerance."""
    objective, caps = problem.objective, problem.load_caps
    cost = objective.imbalance_weight * (expected_gpu_load(problem, replicas).max(axis=1) - 1)
    if caps is not None:
        over = np.maximum(guarded_gpu_load(problem, replicas) - caps[:, None], 0)
        cost = cost + objective.load_excess_weight * over.sum(axis=1)
    if problem.load_counts:
        cost = cost + objective.load_spread_weight * load_spread(problem, replicas)
    return np.asarray(cost / problem.num_layers, dtype=np.float64)
