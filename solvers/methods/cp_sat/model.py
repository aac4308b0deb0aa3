"""The CP-SAT model of a placement problem: one boolean per layer, expert and replica pattern, rounded costs.

Every coefficient of a cost is rounded down, so the model's objective is never above the problem's, and neither is its
bound. What is left out (nothing but the standard errors of loads, which tangents replace) is never negative.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.replay.replay import POLICIES, homes_of
from solvers.methods.cp_sat.kernels import destinations
from solvers.methods.cp_sat.patterns import ReplicaPatterns

__all__ = ["PlacementModel", "TokenGroups", "count_booleans"]

Array = npt.NDArray[np.float64]
Replicas = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]
BITS = 50  # of the largest objective: below the 53 that a float holds, in which CP-SAT reports its bound
MAX_PARTS = 10_000  # least common multiple of the numbers of replicas
DEPTH = 3  # experts after the first by whose patterns symmetry is broken
ROUNDING = 1e-14  # of the coefficients' sum: what float arithmetic may add before they are rounded down


class TokenGroups:
    """Sampled tokens of a layer that cost the same whatever the plan: same experts, each served alike.

    Attributes
    ----------
    experts : list of tuple of int
        Experts of each group.
    serves : list of (K, P) int16
        GPU that serves each expert by pattern.
    homes : (n, G) int64
        Tokens of each group by home rank.
    """

    def __init__(self, patterns: ReplicaPatterns, layer: int) -> None:
        problem = patterns.problem
        sample, G = problem.profile.sample, problem.num_gpus
        assert sample is not None
        ids = np.sort(sample.topk_ids[:, layer], axis=1)
        homes = homes_of(problem.objective, G, sample.rows, sample.seq_id, sample.source_rank)
        counts = patterns.replicas.sum(axis=1)
        gpus = np.zeros((len(counts), int(counts.max())), np.int64)
        for row, replicas in zip(gpus, patterns.replicas, strict=True):
            row[: replicas.sum()] = np.repeat(np.arange(G), replicas)
        policy, node = POLICIES[problem.objective.replica_policy], problem.topology.node_of_gpu
        serves = destinations(ids, sample.rows, homes, layer, gpus, counts, policy, node)
        key = np.concatenate([ids, serves.reshape(len(ids), -1)], axis=1)
        unique, group = np.unique(key, axis=0, return_inverse=True)
        K = ids.shape[1]
        held = unique[:, :K] >= 0
        self.experts = [tuple(row[kept].tolist()) for row, kept in zip(unique[:, :K], held, strict=True)]
        self.serves = [row.reshape(K, -1)[kept].astype(np.int64) for row, kept in zip(unique[:, K:], held, strict=True)]
        self.homes = np.zeros((len(unique), G), np.int64)
        np.add.at(self.homes, (group.ravel(), homes), 1)

    @property
    def booleans(self) -> int:
        """Booleans for the GPUs and nodes that the groups' tokens may reach."""
        return sum(len(np.unique(serves)) for experts, serves in self._several())

    def _several(self) -> Iterable[tuple[tuple[int, ...], npt.NDArray[np.int64]]]:
        return ((e, s) for e, s in zip(self.experts, self.serves, strict=True) if len(e) > 1)


def near_hops(problem: Problem) -> tuple[Array, float]:
    """Return what a message from GPU g to h saves against the dearest hop, (G, G), and that hop's cost."""
    hop = problem.topology.hop_cost
    most = float(hop.max())
    return most - hop, most


def count_booleans(problem: Problem, patterns: ReplicaPatterns, layers: int, limit: int) -> int:
    """Return the booleans that `layers` consecutive layers need, at most; counting ends above `limit`."""
    objective, allowed = problem.objective, patterns.allowed
    window = min(layers, problem.num_layers)
    by_layer = allowed.sum(axis=(1, 2))
    by_boundary = np.zeros(max(0, problem.num_layers - 1), np.int64)
    if objective.traffic_weight and objective.execution == "context_coherent":
        affinity = problem.profile.affinity
        assert affinity is not None
        saves = (near_hops(problem)[0] > 0).astype(np.int64)
        levels = np.stack([(allowed @ (patterns.fair == share)) for share in patterns.levels], axis=3).sum(axis=3)
        if len(patterns.levels) > 1:
            by_layer = by_layer + levels.sum(axis=(1, 2))
        for row in range(len(by_boundary)):
            ways = levels[row].astype(np.int64) @ saves @ levels[row + 1].T
            by_boundary[row] = (ways * (affinity[row] > 0)).sum()
    elif objective.traffic_weight and objective.dedup != "none":
        for row in range(problem.num_layers):
            if by_layer.sum() > limit:
                break
            by_layer[row] += TokenGroups(patterns, row).booleans
    one = np.convolve(by_layer, np.ones(window, np.int64), "valid")
    two = np.convolve(by_boundary, np.ones(window - 1, np.int64), "valid") if window > 1 else np.zeros_like(one)
    return int((one + two).max())


class PlacementModel:
    """The model of some layers, the others as they are in a map.

    Parameters
    ----------
    problem : Problem
    patterns : ReplicaPatterns
    rows : range
        Layers to decide.
    around : (L, E, G) int64
        Replicas of the map that the other layers keep.
    """

    def __init__(self, problem: Problem, patterns: ReplicaPatterns, rows: range, around: Replicas) -> None:
        from ortools.sat.python import cp_model

        self.problem, self.patterns, self.rows, self.around = problem, patterns, rows, around
        self.cp = cp_model.CpModel()
        self.constant = 0.0
        self._cost: dict[int, float] = {}
        self._levels: dict[tuple[int, int, int], list[tuple[int, Any]]] = {}
        self._room: dict[tuple[int, int, int, int, int, int], list[Any]] = {}
        self.has = {
            (row, e): {int(p): self.cp.new_bool_var("") for p in np.flatnonzero(patterns.allowed[row, e])}
            for row in rows
            for e in range(problem.num_experts)
        }
        self._places()
        self._break_symmetry()
        if problem.objective.traffic_weight:
            self._traffic()
        self._set_scale()
        self._loads()
        costs = {number: rounded for number, cost in self._cost.items() if (rounded := self._down(cost))}
        traffic = [self.cp.get_bool_var_from_proto_index(number) for number in costs]
        whole, ones = cp_model.LinearExpr.weighted_sum, [1] * len(self._load_terms)
        self.cp.minimize(whole([*traffic, *self._load_terms], [*costs.values(), *ones]))

    def _places(self) -> None:
        """One pattern per expert, room on every GPU, groups on one node."""
        problem, patterns, cp = self.problem, self.patterns, self.cp
        for ways in self.has.values():
            cp.add_exactly_one(ways.values())
        for row in self.rows:
            of_row = [self.has[row, e] for e in range(problem.num_experts)]
            for g, room in enumerate(problem.capacity.tolist()):
                held = [(v, int(patterns.replicas[p, g])) for ways in of_row for p, v in ways.items()]
                cp.add(sum(count * v for v, count in held if count) <= room)
            for group in problem.constraints.groups:
                if row not in np.arange(problem.num_layers)[problem.rows_of(group)].reshape(-1):
                    continue
                for n in range(problem.topology.num_nodes):
                    first, *others = (
                        sum(v for p, v in of_row[e].items() if patterns.on_node[p, n]) for e in group.experts
                    )
                    for other in others:
                        cp.add(first == other)

    def _break_symmetry(self) -> None:
        """Of plans that differ by the names of equal GPUs, keep one: expert after expert, the first of each orbit."""
        self._orbits: dict[int, list[tuple[int, Any]]] = {}
        whole = len(self.rows) == self.problem.num_layers
        if len(self.patterns.renamed) == 1 or not whole:
            return
        coupled = self.problem.objective.execution == "context_coherent"
        for row in self.rows[:1] if coupled else self.rows:
            self._forbid_images(row, 0, self.patterns.renamed, [])

    def _forbid_images(self, row: int, expert: int, names: npt.NDArray[np.int64], chosen: list[Any]) -> None:
        if len(names) == 1 or expert == self.problem.num_experts or len(chosen) > DEPTH:
            return
        smallest = names.min(axis=0)
        for p, literal in self.has[row, expert].items():
            if smallest[p] < p:
                self.cp.add_bool_or([*(v.negated() for v in chosen), literal.negated()])
            else:
                self._forbid_images(row, expert + 1, names[names[:, p] == p], [*chosen, literal])

    def canonical(self, replicas: Replicas) -> npt.NDArray[np.int64]:
        """Return the patterns (L, E) of a map, with GPUs renamed as the model wants them."""
        number = self.patterns.numbers(replicas)
        renamed = self.patterns.renamed
        if len(renamed) == 1 or len(self.rows) < len(number):
            return number
        coupled = self.problem.objective.execution == "context_coherent"
        for first in range(1 if coupled else len(number)):
            images = renamed[:, number[first]]
            best = renamed[np.lexsort(images.T[::-1])[0]]
            part = slice(None) if coupled else slice(first, first + 1)
            number[part] = best[number[part]]
        return number

    def _traffic(self) -> None:
        objective = self.problem.objective
        if objective.execution == "context_coherent":
            for row in range(max(0, self.rows[0] - 1), min(self.rows[-1] + 1, self.problem.num_layers - 1)):
                self._pairs(row)
            self._partners_need_room()
        elif objective.dedup == "none":
            for row in self.rows:
                cost = objective.traffic_weight * self.patterns.assignment_cost(row)
                self._charge(row, cost)
        else:
            self._messages()

    def _charge(self, row: int, cost: Array) -> None:
        """Add what each expert costs by pattern, (E, P)."""
        for e in range(len(cost)):
            for p, literal in self.has[row, e].items():
                self._cost[literal.index] = self._cost.get(literal.index, 0.0) + float(cost[e, p])

    def _pairs(self, row: int) -> None:
        """Model the pairs of layers `row` and `row + 1`: a boolean for each two places that save something."""
        problem, patterns = self.problem, self.patterns
        affinity = problem.profile.affinity
        assert affinity is not None
        scale = problem.objective.traffic_weight / max(float(affinity.sum()), 1.0)
        saved, most = near_hops(problem)
        counts = affinity[row] * scale
        self.constant += float(counts.sum()) * most
        if row not in self.rows or row + 1 not in self.rows:
            free, fixed = (row, row + 1) if row in self.rows else (row + 1, row)
            weight, gain = (counts, saved) if free == row else (counts.T, saved.T)
            there = patterns.fair[patterns.numbers(self.around[fixed])]
            self._charge(free, -weight @ there @ gain.T @ patterns.fair.T)
            return
        near = np.argwhere(saved > 0).tolist()
        # What an expert has in common with those of the other layer: [layer, expert, GPU, level] -> by expert and GPU.
        for i, j in np.argwhere(affinity[row] > 0).tolist():
            partners: dict[tuple[int, int, int, int], dict[int, list[tuple[Any, float]]]] = {}
            for g, h in near:
                for (s, here), (t, there_too) in itertools.product(self._on(row, i, g), self._on(row + 1, j, h)):
                    both = self.cp.new_bool_var("")
                    share, other = patterns.levels[s], patterns.levels[t]
                    self._cost[both.index] = -float(counts[i, j] * saved[g, h] * share * other)
                    self.cp.add_implication(both, here)
                    self.cp.add_implication(both, there_too)
                    partners.setdefault((row, i, g, s), {}).setdefault(h, []).append((both, other))
                    partners.setdefault((row + 1, j, h, t), {}).setdefault(g, []).append((both, share))
            for (at, e, g, s), by_gpu in partners.items():
                self._tie(dict(self._on(at, e, g))[s], by_gpu)
                for h, several in by_gpu.items():
                    self._room.setdefault((at, e, g, s, h, row), []).extend(v for v, _ in several)

    def _on(self, row: int, expert: int, gpu: int) -> list[tuple[int, Any]]:
        """Return literals for the shares that an expert may have on a GPU, with the number of the share's level."""
        if (row, expert, gpu) not in self._levels:
            fair, found = self.patterns.fair, []
            for number, level in enumerate(self.patterns.levels):
                ways = [v for p, v in self.has[row, expert].items() if fair[p, gpu] == level]
                if len(ways) > 1:
                    literal = self.cp.new_bool_var("")
                    self.cp.add_exactly_one([*ways, literal.negated()])
                    ways = [literal]
                found += [(number, v) for v in ways]
            self._levels[row, expert, gpu] = found
        return self._levels[row, expert, gpu]

    def _tie(self, here: Any, by_gpu: dict[int, list[tuple[Any, float]]]) -> None:
        """Give a partner one share per GPU, and 1 in all at most: only where the expert itself is `here`."""
        for several in by_gpu.values():
            if len(several) > 1:
                self.cp.add_at_most_one([*(v for v, _ in several), here.negated()])
        if len(by_gpu) > 1:
            whole = math.lcm(*range(1, int(self.patterns.replicas.sum(axis=1).max()) + 1))
            if whole <= MAX_PARTS:
                parts = [(v, round(share * whole)) for several in by_gpu.values() for v, share in several]
                self.cp.add(sum(part * v for v, part in parts) <= whole * here)

    def _partners_need_room(self) -> None:
        """Add the row and column bound: an expert's partners on a GPU are no more than its slots."""
        for (at, e, g, s, h, _), partners in self._room.items():
            room = int(self.problem.capacity[h])
            if len(partners) > room:
                self.cp.add(sum(partners) <= room * dict(self._on(at, e, g))[s])

    def _messages(self) -> None:
        """Dispatch with deduplication: a boolean for each GPU, and node, that a group of tokens reaches."""
        problem, topology = self.problem, self.problem.topology
        G, hop, node = problem.num_gpus, topology.hop_cost, topology.node_of_gpu
        sample, by_node = problem.profile.sample, problem.objective.dedup == "node"
        assert sample is not None
        active = int((sample.topk_ids >= 0).any(axis=2).sum())
        scale = problem.objective.traffic_weight / max(active, 1)
        last_hop = hop[topology.entry_gpu[:, node], np.arange(G)] if by_node else hop
        first_hop = np.take_along_axis(hop, topology.entry_gpu, axis=1)
        for row in self.rows:
            groups = TokenGroups(self.patterns, row)
            for experts, serves, homes in zip(groups.experts, groups.serves, groups.homes, strict=True):
                ways = [[(v, int(serves[k, p])) for p, v in self.has[row, e].items()] for k, e in enumerate(experts)]
                self._reached(ways, np.arange(G), homes @ last_hop * scale)
                if by_node:
                    self._reached(ways, node, homes @ first_hop * scale)

    def _reached(self, ways: list[list[tuple[Any, int]]], part: npt.NDArray[np.int64], cost: Array) -> None:
        """Add a cost for each part of the GPUs that one of the experts, by its pattern, is served on."""
        for place in np.flatnonzero(cost > 0):
            here = [[v for v, g in choices if part[g] == place] for choices in ways]
            if len(ways) == 1:
                for v in here[0]:
                    self._cost[v.index] = self._cost.get(v.index, 0.0) + float(cost[place])
            elif any(here):
                reached = self.cp.new_bool_var("")
                self._cost[reached.index] = float(cost[place])
                for literals in here:
                    if literals:
                        self.cp.add_at_most_one([*literals, reached.negated()])

    def _set_scale(self) -> None:
        """Choose the power of two by which costs are multiplied before they are rounded down."""
        problem, objective = self.problem, self.problem.objective
        largest = 1 / float(problem.topology.fair_share.min())
        deviations, moments = problem.load_deviations, problem.home_moments
        self._most_error = 0.0 if deviations is None else largest * float(np.linalg.norm(deviations, axis=2).sum())
        if moments is not None:
            self._most_error += largest * float(np.sqrt(np.diagonal(moments, axis1=1, axis2=2)).sum())
        self._most = objective.imbalance_weight * largest + problem.spread_weight * self._most_error
        if problem.load_caps is not None:
            most = largest + problem.load_margin * self._most_error
            self._most += objective.load_excess_weight * problem.num_gpus * most
        self.range = self._most + abs(self.constant) + sum(map(abs, self._cost.values()))
        self.scale = 2.0 ** (BITS - math.frexp(self.range)[1])

    def _down(self, cost: float) -> int:
        return math.floor(cost * self.scale)

    def _loads(self) -> None:
        """Add imbalance, excess and spread, in units of the objective; tangents make the errors of loads count."""
        problem, objective, cp = self.problem, self.problem.objective, self.cp
        L = problem.num_layers
        most = self._down(self._most / L) + 2  # of one layer
        self._load_terms: list[Any] = []
        self._excess: dict[tuple[int, int], Any] = {}
        self._spread: dict[int, Any] = {}
        relative = {row: self._relative(row) for row in self.rows} if problem.load_counts else {}
        for row, load in relative.items():
            if weight := objective.imbalance_weight / L:
                worst = cp.new_int_var(self._down(weight * problem.least_max_load[row]), most, "")
                self._load_terms.append(worst)
                self.constant -= weight
                for g in range(problem.num_gpus):
                    cp.add(worst >= self._sum(row, weight * load[:, :, g]))
            if problem.load_caps is not None and np.isfinite(problem.load_caps[row]) and objective.load_excess_weight:
                for g in range(problem.num_gpus):
                    self._excess[row, g] = cp.new_int_var(0, most, "")
                    self._add_excess(row, g, load[:, :, g])
        self._load_terms += self._excess.values()
        if problem.spread_weight and self._varies:
            self._spread = {row: cp.new_int_var(0, most, "") for row in self.rows}
            above = cp.new_int_var(0, L * most, "")
            fixed = problem.spread_weight * (self._spread_around() - problem.spread_tolerance)
            cp.add(above >= sum(self._spread.values()) + self._down(max(fixed, -self._most)))
            self._load_terms.append(above)

    @property
    def _varies(self) -> bool:
        return self.problem.load_deviations is not None or self.problem.home_moments is not None

    def _spread_around(self) -> float:
        """Return what the layers that stay as they are add to the mean spread."""
        from placement.cost.shares import load_spread

        spread = load_spread(self.problem, self.around)
        return float(np.delete(spread, self.rows).sum()) / self.problem.num_layers

    def _relative(self, row: int) -> Array:
        """Return what each expert adds to the GPUs' relative loads by pattern, (E, P, G)."""
        relative: Array = self.patterns.share(row) / self.problem.topology.fair_share
        relative *= self.problem.relative_load[row][:, None, None]
        return relative

    def _sum(self, row: int, cost: Array) -> Any:
        """Return the sum of costs (E, P) over the patterns that the experts have."""
        from ortools.sat.python import cp_model

        terms = [(v, c) for e in range(len(cost)) for p, v in self.has[row, e].items() if (c := self._down(cost[e, p]))]
        return cp_model.LinearExpr.weighted_sum([v for v, _ in terms], [c for _, c in terms])

    def _add_excess(self, row: int, gpu: int, guarded: Array) -> None:
        weight = self.problem.objective.load_excess_weight / self.problem.num_layers
        assert self.problem.load_caps is not None
        cap = float(self.problem.load_caps[row])
        allowed = self._down(max(-weight * cap, -self._most))
        self.cp.add(self._excess[row, gpu] >= self._sum(row, weight * guarded) + allowed)

    def touch(self, replicas: Replicas) -> None:
        """Add tangents to the standard errors of loads at replicas (L, E, G): exact there, below elsewhere."""
        problem = self.problem
        if not self._varies or not (self._spread or (self._excess and problem.load_margin)):
            return
        number = self.patterns.numbers(replicas)
        experts = np.arange(problem.num_experts)
        for row in self.rows:
            # |v| is at least <v, v0> / |v0|, for every v: of the loads' deviations by group, and by the homes.
            along = np.zeros((problem.num_experts, *self.patterns.replicas.shape))
            square = np.zeros(problem.num_gpus)
            if problem.load_deviations is not None:
                deviations = problem.load_deviations[row]
                share = self.patterns.share(row) / problem.topology.fair_share
                by_gpu = share[experts, number[row]].T @ deviations  # (G, W)
                square += (by_gpu**2).sum(axis=1)
                along += np.einsum("ew,gw->eg", deviations, by_gpu)[:, None] * share
            if problem.home_moments is not None:
                turns = self.patterns.turns / problem.topology.fair_share
                here = turns[:, number[row]]  # (G, E, G)
                moved = problem.home_moments[row] @ here
                square += (here * moved).sum(axis=1).mean(axis=0)
                along += np.einsum("heg,hpg->epg", moved, turns) / problem.num_gpus
            error = np.sqrt(np.maximum(square, 0.0))
            if self._spread and error.any():
                root = problem.spread_weight / problem.num_layers / math.sqrt(problem.num_gpus)
                self.cp.add(self._spread[row] >= self._sum(row, root * along.sum(axis=2) / np.linalg.norm(error)))
            if problem.load_margin and self._excess:
                relative = self._relative(row)
                for g in np.flatnonzero(error) if (row, 0) in self._excess else ():
                    guarded = relative[:, :, g] + problem.load_margin * along[:, :, g] / error[g]
                    self._add_excess(row, int(g), guarded)

    def hint(self, replicas: Replicas) -> None:
        """Start from a map's replicas (L, E, G)."""
        number = self.canonical(replicas)
        self.cp.clear_hints()  # type: ignore[no-untyped-call]  # the library has few types
        for (row, e), ways in self.has.items():
            for p, literal in ways.items():
                self.cp.add_hint(literal, int(number[row, e] == p))

    def table(self, holds: Any) -> Table:
        """Return the map (L, S) of a solution; `holds` gives a literal's value."""
        problem = self.problem
        replicas = self.around.copy()
        for (row, e), ways in self.has.items():
            replicas[row, e] = self.patterns.replicas[next(p for p, literal in ways.items() if holds(literal))]
        table = np.full((problem.num_layers, problem.num_gpus, problem.slots_per_gpu), -1, np.int32)
        for row in range(problem.num_layers):
            for g in range(problem.num_gpus):
                held = np.repeat(np.arange(problem.num_experts), replicas[row, :, g])
                table[row, g, : len(held)] = held
        return table.reshape(problem.num_layers, -1)

    def bound(self, objective: float) -> float:
        """Return the bound of the problem's objective that one of the model's objective proves."""
        return objective / self.scale + self.constant - ROUNDING * self.range
