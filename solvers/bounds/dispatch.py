"""Dispatch: at least so many GPUs and nodes per token, from the experts that a layer's tokens use together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.bounds import hop_costs, room
from placement.replay import homes_of
from solvers.bounds.loads import load_rows
from solvers.bounds.relaxation import Relaxation

__all__ = ["DispatchBound", "LayerPart", "least_remote", "most_together"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerPart:
    """A layer at one level (0: GPUs, 1: nodes)."""

    level: int
    layer: int


class DispatchBound:
    """A lower bound of the messages of dispatch and combine with one message per GPU or node.

    A block that serves s of a token's experts counts once: ``[s > 0] >= a s - b s (s-1)/2`` with ``a = 2/(m+1)`` and
    ``b = 2/(m (m+1))``, for every whole m (a parabola through 1 at m and m+1). Summed over the blocks but the home's,

        remote blocks >= a * (experts - experts at home) - b * (pairs together).

    The most pairs that can be together is what the relaxation bounds, the most experts at home is an assignment. A hop
    to another GPU costs at least `near`, one to another node at least `far`, and only the first message to a remote
    node crosses: cost >= near * (remote GPUs) + (far - near) * (remote nodes).

    Parameters
    ----------
    problem : Problem
        Dispatch with deduplication, at least two GPUs.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        sample = problem.profile.sample
        assert sample is not None
        self._ids = sample.topk_ids
        self._single = int(problem.capacity.sum()) == problem.num_experts
        homes = homes_of(problem.objective, problem.num_gpus, sample.rows, sample.seq_id, sample.source_rank)
        self._active = max(1, int((self._ids >= 0).any(axis=2).sum()))
        near, far = hop_costs(problem)
        slots, node_slots = room(problem)
        node = problem.topology.node_of_gpu
        weight = problem.objective.traffic_weight / self._active
        levels = [
            (problem.num_gpus, slots, near * weight, homes.astype(np.int64)),
            (problem.topology.num_nodes, node_slots, (far - near) * weight, node[homes]),
        ]
        self.levels = [level for level in levels if level[0] > 1 and level[2] > 0]
        self._together: dict[int, Array] = {}
        self._floor: dict[LayerPart, tuple[float, float, float]] = {}
        self._found: dict[LayerPart, float] = {}
        self.parts = [LayerPart(lv, layer) for layer in range(problem.num_layers) for lv in range(len(self.levels))]

    def relaxation(self, part: LayerPart) -> Relaxation:
        """Return the relaxation of the pairs that a layer keeps together (with copies an empty one)."""
        blocks, slots, weight, homes = self.levels[part.level]
        ids, E = self._ids[:, part.layer], self.problem.num_experts
        together = self._pairs(part.layer)
        present = (ids >= 0).sum(axis=1)
        at_home = self._most_at_home(ids, homes, blocks, slots)
        spread = float(np.maximum(-(-present // slots) - 1, 0).sum())
        self._floor[part] = float(present.sum()), at_home, spread
        matrix = np.zeros((blocks * slots,) * 2)
        if self._single:
            matrix[:E, :E] = together / 2
        else:
            self.found(part, most_together(together, slots, int(self.problem.capacity.sum())))
        rows = load_rows(self.problem, range(part.layer, part.layer + 1), blocks, slots, weight * len(self.levels))
        return Relaxation(matrix, 1, blocks, rows)

    def found(self, part: LayerPart, kept: float) -> None:
        """Take note that at most so many pairs of a layer's tokens are together."""
        if not self._single and kept == 0.0:
            return
        experts, at_home, spread = self._floor[part]
        remote = max(least_remote(experts, at_home, kept, self._ids.shape[2]), spread)
        self._found[part] = max(self._found.get(part, 0.0), remote * self.levels[part.level][2])

    def total(self) -> float:
        """Return the bound on the traffic term."""
        return float(sum(dict(self._found).values()))

    def _pairs(self, layer: int) -> Array:
        """Return how many sampled tokens use both experts of a pair, (E, E), zero diagonal."""
        ids = self._ids[:, layer].astype(np.int64)
        used = np.zeros((len(ids), self.problem.num_experts + 1), np.float32)
        np.put_along_axis(used, np.where(ids >= 0, ids, self.problem.num_experts), 1.0, axis=1)
        used = used[:, :-1]
        together: Array = (used.T @ used).astype(np.float64)  # exact: below 2**24 tokens
        np.fill_diagonal(together, 0.0)
        return together

    def _most_at_home(
        self, ids: npt.NDArray[np.integer], homes: npt.NDArray[np.int64], blocks: int, slots: int
    ) -> float:
        """Return the most assignments that can be served in the block of their token's home."""
        from scipy.optimize import linear_sum_assignment

        E = self.problem.num_experts
        token, place = np.nonzero(ids >= 0)
        called = np.bincount(ids[token, place].astype(np.int64) * blocks + homes[token], minlength=E * blocks)
        called = called.reshape(E, blocks)
        if not self._single:
            return float(np.sort(called, axis=0)[-min(slots, E) :].sum())
        by_slot = np.repeat(called, slots, axis=1)
        expert, slot = linear_sum_assignment(by_slot, maximize=True)
        return float(by_slot[expert, slot].sum())


def least_remote(experts: float, at_home: float, together: float, top_k: int) -> float:
    """Return the least blocks other than the home's, from bounds on experts at home and on pairs together."""
    best = 0.0
    for m in range(1, max(2, top_k)):
        best = max(best, 2 / (m + 1) * (experts - at_home) - 2 / (m * (m + 1)) * together)
    return best


def most_together(pairs: Array, slots: int, total_slots: int) -> float:
    """Return an upper bound of the pairs that are served together where experts may have copies.

    A copy has ``slots - 1`` neighbours: with c copies, an expert meets at most its best ``c (slots - 1)`` partners. The
    spare copies go where they add most.

    Parameters
    ----------
    pairs : (E, E) float64
        Tokens that use both; zero diagonal.
    slots, total_slots : int
        Of a block, and of all of them.
    """
    E, per_copy = len(pairs), slots - 1
    if per_copy <= 0:
        return 0.0
    best = np.sort(pairs, axis=1)[:, ::-1]
    gain = np.add.reduceat(best, np.arange(0, E, per_copy), axis=1)
    spare = np.sort(gain[:, 1:].ravel())[::-1][: max(0, total_slots - E)]
    return float(gain[:, 0].sum() + spare.sum()) / 2
