"""Plans between the one that runs and a better one: the best use of every move.

Between two plans of a layer, whatever moves can be cut into cycles of GPUs: each GPU gives one expert to the next, so
every cycle alone leaves a valid plan. Cycles, in bundles, give each layer some plans to choose from; which layer takes
which, at a price per move, is a shortest path through the layers (Viterbi), since traffic couples neighbours only.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from placement import Pin, Problem, Score, score
from placement.cost.feasibility import broken_constraints, load_cap_misses
from placement.cost.shares import expected_gpu_load, expected_share, guarded_gpu_load, load_spread
from placement.moves.freedom import Freedom
from placement.moves.relabel import relabelled_table
from placement.plan.plan import replicas_on_gpu
from solvers.fronts.pareto import nondominated
from solvers.fronts.search import FrontSearch

__all__ = ["add_balanced_mixes", "add_mixes", "cycles", "with_few_free"]

Table = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Cycles = list[list[tuple[int, int, int]]]  # (expert, from, to)
BUNDLES = 8  # of cycles, in which moves are offered: finer ones cost a pairwise price each. Chosen by trial
MAX_TARGETS = 6  # better plans that moves may lead to, each in two namings. Chosen by trial
# Plans; under context-coherent execution every two of them are priced in every layer; 576 prices per layer. Chosen by
# trial.
MAX_MIXED = 24
DEAR = 1e6  # a price at which nothing moves that need not
OUTSIDE = -1  # where replicas come from that are new, and go to that are dropped


def add_mixes(run: FrontSearch, points: int) -> None:
    """Add to the pool what lies between its first plan, the start, and its best ones."""
    problem, start = run.problem, run.pool[0]
    better = sorted((item for item in run.pool[1:]), key=lambda item: item.score.total)[:MAX_TARGETS]
    better = [item for item in better if item.score.total < start.score.total]
    if not better or run.stopped:
        return
    source = better[0]
    targets = [named for item in better for named in (item.table, _renamed(problem, start.table, item.table))]
    nearest = targets[1]
    target_cycles = [cycles(a, b, problem.num_gpus) for a, b in zip(start.table, nearest, strict=True)]
    bundles = [
        _applied(start.table, problem.slots_per_gpu, target_cycles, _bundle(target_cycles, number))
        for number in range(BUNDLES)
    ]
    order = _Mix(problem, [start.table, *bundles]).order()
    prefixes = []
    for length in range(1, BUNDLES):
        chosen = [
            [item for number in order[layer][:length] for item in _bundle(target_cycles, number)[layer]]
            for layer in range(problem.num_layers)
        ]
        prefixes.append(_applied(start.table, problem.slots_per_gpu, target_cycles, chosen))
    options = [start.table, *bundles, *prefixes, *targets]
    mix = _Mix(problem, [table for table in options if not broken_constraints(problem, table).found])
    for table in mix.front(points):
        if run.out_of_time:
            return
        run.add(table, problem, source, {"against": "bytes_moved"})


def add_balanced_mixes(run: FrontSearch, points: int) -> None:
    """Add to the pool what its plans, mixed layer by layer, have between balance and traffic."""
    if run.stopped or len(run.pool) < 2:
        return
    keeping = [item for item in run.pool if not load_cap_misses(run.problem, item.table)] or run.pool
    best = nondominated([item.imbalance for item in keeping], [item.traffic for item in keeping])
    chosen = [keeping[item] for item in best][:MAX_MIXED]
    chosen += [item for item in reversed(keeping) if item not in chosen][: MAX_MIXED - len(chosen)]
    mix = _Mix(run.problem, [item.table for item in chosen], [item.score for item in chosen])
    for table in mix.front(points):
        if run.out_of_time:
            return
        run.add(table, run.problem, chosen[0], {"against": "imbalance", "mixed": True})


def with_few_free(run: FrontSearch, share: float) -> Problem | None:
    """Return the problem with all experts pinned to their GPUs of the start plan but a share of each layer's.

    Free are the experts that the best plan so far moves, the heaviest first.

    Returns
    -------
    Problem or None
        None where no plan is better than the start.
    """
    problem, start = run.problem, run.pool[0]
    best = min(run.pool, key=lambda item: item.score.total)
    if best is start:
        return None
    before, after = (replicas_on_gpu(item.table, problem.num_experts, problem.num_gpus) for item in (start, best))
    moved = (before != after).any(axis=2)
    count = max(2, round(share * problem.num_experts))
    order = np.argsort(-(problem.relative_load + moved), axis=1, kind="stable")[:, :count]
    held = before > 0
    np.put_along_axis(held, order[:, :, None], False, axis=1)
    layer_ids = problem.profile.layer_ids
    pins = tuple(
        Pin(expert=int(expert), gpu=int(gpu), layer_id=int(layer_ids[layer]))
        for layer, expert, gpu in np.argwhere(held)
    )
    constraints = replace(problem.constraints, pins=(*problem.constraints.pins, *pins))
    return replace(problem, constraints=constraints)


def _renamed(problem: Problem, start: Table, target: Table) -> Table:
    """Name the target's GPUs so that as few experts as possible move."""
    return relabelled_table(start, target, problem.num_experts, Freedom.of(problem))[0]


def cycles(start: Table, target: Table, num_gpus: int) -> Cycles:
    """Cut the difference of two rows (S,) of maps into cycles.

    Returns
    -------
    list of cycles of (expert, from, to)
        GPUs; -1 is outside, and expert -1 an empty slot. Each cycle alone leaves every GPU with as many slots filled
        as it has.
    """
    before, after = (np.sort(row.reshape(num_gpus, -1), axis=1) for row in (start, target))
    leaves: dict[int, list[int]] = {}
    arrives: dict[int, list[int]] = {}
    for gpu in range(num_gpus):
        old, new = before[gpu].tolist(), after[gpu].tolist()
        for expert in list(old):
            if expert in new:
                old.remove(expert)
                new.remove(expert)
        for expert in old:
            leaves.setdefault(expert, []).append(gpu)
        for expert in new:
            arrives.setdefault(expert, []).append(gpu)
    edges: dict[int, list[tuple[int, int]]] = {}
    for expert in sorted(leaves.keys() | arrives.keys()):
        out, into = leaves.get(expert, []), arrives.get(expert, [])
        length = max(len(out), len(into))
        out, into = out + [OUTSIDE] * (length - len(out)), into + [OUTSIDE] * (length - len(into))
        for a, b in zip(out, into, strict=True):
            edges.setdefault(a, []).append((expert, b))
    found = []
    while edges:
        path: list[tuple[int, int, int]] = []
        visited: dict[int, int] = {}
        gpu = next(iter(edges))
        while gpu not in visited:
            visited[gpu] = len(path)
            expert, onward = edges[gpu].pop()
            if not edges[gpu]:
                del edges[gpu]
            path.append((expert, gpu, onward))
            gpu = onward
        found.append(path[visited[gpu] :])
        for expert, a, b in path[: visited[gpu]]:  # the way into the cycle is not part of it
            edges.setdefault(a, []).append((expert, b))
    return sorted(found, key=len)


def _bundle(every: list[Cycles], number: int) -> list[list[int]]:
    """Return the cycles of a bundle, layer by layer."""
    return [list(range(number, len(layer), BUNDLES)) for layer in every]


def _applied(start: Table, per_gpu: int, every: list[Cycles], chosen: list[list[int]]) -> Table:
    """Return the start with the chosen cycles of each layer."""
    table = start.copy()
    for row, known, numbers in zip(table, every, chosen, strict=True):
        gone: dict[int, list[int]] = {}
        new: dict[int, list[int]] = {}
        for expert, a, b in (move for number in numbers for move in known[number]):
            gone.setdefault(a, []).append(expert)
            new.setdefault(b, []).append(expert)
        for gpu in gone.keys() - {OUTSIDE}:
            slots = row[gpu * per_gpu : (gpu + 1) * per_gpu]
            for old, expert in zip(gone[gpu], new[gpu], strict=True):
                slots[np.flatnonzero(slots == old)[0]] = expert
    return table


class _Mix:
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
        affinity = problem.profile.affinity
        if problem.objective.execution != "context_coherent":
            known = [score(problem, table) for table in tables] if scores is None else scores
            self.unary += weight * np.stack([item.traffic_by_layer for item in known], axis=1)
        elif affinity is not None:
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
