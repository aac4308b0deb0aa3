"""Dispatch: at least so many GPUs and nodes per token, from the experts that a layer's tokens use together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.bounds import Level, levels_of
from placement.replay import homes_of
from solvers.bounds.loads import load_rows
from solvers.bounds.relaxation import Relaxation
from solvers.kernels.shares import give_shares

__all__ = ["DispatchBound", "LayerPart", "least_absent", "least_remote", "most_more", "most_together"]

Array = npt.NDArray[np.float64]
MAX_SIZE = 1536  # rows of the largest matrix
MAX_HOMES = 16  # of more homes, each has too few tokens to tell


@dataclass(frozen=True)
class LayerPart:
    """A layer on one level of hop costs."""

    level: int
    layer: int


class DispatchBound:
    """A lower bound of the messages of dispatch and combine with one message per GPU or node.

    A block that serves s of a token's experts counts once: ``[s > 0] >= a s - b s (s-1)/2`` with ``a = 2/(m+1)`` and
    ``b = 2/(m (m+1))``, for every whole m (a parabola through 1 at m and m+1). Summed over the blocks but the home's,

        remote blocks >= a * (experts - experts at home) - b * (pairs together, but not at home).

    The most experts at home is an assignment. The most pairs that can be together is what the relaxation bounds; a pair
    that is together is at home for those tokens whose home is that block, at least as many as share any one home.
    A message path to a block of some level crosses into that block, so the levels of hop costs add up
    (`placement.bounds.levels_of`). At least ``ceil(experts / room) - 1`` blocks are remote in any case.

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
        self._homes = homes_of(problem.objective, problem.num_gpus, sample.rows, sample.seq_id, sample.source_rank)
        present = (self._ids >= 0).sum(axis=2)
        self._unit = problem.objective.traffic_weight / max(1, int((present > 0).sum()))
        # The dearest first: it has most to gain.
        self.levels = sorted(levels_of(problem), key=lambda level: -level.cost)
        self._called: dict[LayerPart, tuple[float, float]] = {}
        self._more: dict[LayerPart, float] = {}
        self._found: dict[LayerPart, float] = {}
        for number, level in enumerate(self.levels):
            spread = np.maximum(-(-present // level.room) - 1, 0).sum(axis=0)
            homes = level.block_of_gpu[self._homes]
            for layer, remote in enumerate(spread):
                least = max(float(remote), least_absent(self._ids[:, layer], homes, problem.num_experts, level.room))
                self._found[LayerPart(number, layer)] = least * level.cost * self._unit

    def passes(self) -> list[list[LayerPart]]:
        """Return the layers of each level, dearest level first."""
        parts = [
            LayerPart(level, layer) for level in range(len(self.levels)) for layer in range(self.problem.num_layers)
        ]
        return [parts] if parts else []

    def size(self, part: LayerPart) -> int:
        """Return the rows of a layer's matrix."""
        level = self.levels[part.level]
        return level.blocks * level.room

    def relaxation(self, part: LayerPart) -> Relaxation | None:
        """Return the relaxation of the pairs that single copies keep together; None where it is too large."""
        level = self.levels[part.level]
        ids, E = self._ids[:, part.layer], self.problem.num_experts
        homes = level.block_of_gpu[self._homes]
        pairs = self._pairs(ids, homes, level.blocks)
        self._called[part] = float((ids >= 0).sum()), self._most_at_home(ids, homes, level)
        self._more[part] = 0.0  # `most_together` knows of all copies, the relaxation of single ones
        if not self._single or self.size(part) > MAX_SIZE:
            self.found(part, most_together(pairs, level.room, int(self.problem.capacity.sum())))
        if self.size(part) > MAX_SIZE:
            return None
        self._more[part] = most_more(pairs, level.room, self.problem.spare_copies // self.problem.num_layers)
        matrix = np.zeros((self.size(part),) * 2)
        matrix[:E, :E] = pairs / 2
        # A pair counts b times in `least_remote`, at most once; a layer's price is shared by its levels.
        share = level.cost * self._unit * len(self.levels)
        rows = load_rows(self.problem, range(part.layer, part.layer + 1), level, share)
        return Relaxation(matrix, 1, level.blocks, rows)

    def found(self, part: LayerPart, kept: float) -> None:
        """Take note that at most so many pairs of a layer's tokens are together away from home."""
        experts, at_home = self._called[part]
        remote = least_remote(experts, at_home, kept + self._more[part], self._ids.shape[2])
        self._found[part] = max(self._found[part], remote * self.levels[part.level].cost * self._unit)

    def total(self) -> float:
        """Return the bound on the traffic term."""
        return float(sum(list(self._found.values())))

    def _pairs(self, ids: npt.NDArray[np.integer], homes: npt.NDArray[np.int64], blocks: int) -> Array:
        """Return the tokens that use both experts of a pair and may do so away from home, (E, E), zero diagonal."""
        used = np.zeros((len(ids), self.problem.num_experts + 1), np.float32)
        columns = np.where(ids >= 0, ids, self.problem.num_experts).astype(np.int64)
        np.put_along_axis(used, columns, 1.0, axis=1)
        used = used[:, :-1]
        together = (used.T @ used).astype(np.float64)  # exact: below 2**24 tokens
        if self._single and blocks <= MAX_HOMES:  # with copies, even home's pairs may be served elsewhere
            own = [used[homes == home] for home in range(blocks)]
            together -= np.min([(tokens.T @ tokens).astype(np.float64) for tokens in own], axis=0)
        np.fill_diagonal(together, 0.0)
        return together

    def _most_at_home(self, ids: npt.NDArray[np.integer], homes: npt.NDArray[np.int64], level: Level) -> float:
        """Return the most assignments that can be served in the block of their token's home."""
        from scipy.optimize import linear_sum_assignment

        E, blocks = self.problem.num_experts, level.blocks
        token, place = np.nonzero(ids >= 0)
        called = np.bincount(ids[token, place].astype(np.int64) * blocks + homes[token], minlength=E * blocks)
        called = called.reshape(E, blocks)
        if not self._single or level.blocks * level.room > MAX_SIZE:
            return float(np.sort(called, axis=0)[-min(level.room, E) :].sum())
        by_slot = np.repeat(called, level.room, axis=1)
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
    met = _met_by_copies(pairs, slots)
    spare = np.sort(met[:, 1:].ravel())[::-1][: max(0, total_slots - len(pairs))]
    return float(met[:, 0].sum() + spare.sum()) / 2


def most_more(pairs: Array, slots: int, spare: int) -> float:
    """Return an upper bound of what copies beyond one of each expert add to the pairs that are together.

    The first copy of each expert is what a relaxation bounds. Each further one has ``slots - 1`` neighbours: k of them
    meet at most the expert's best ``k (slots - 1)`` partners.

    Parameters
    ----------
    pairs : (E, E) float64
        Tokens that use both; zero diagonal.
    slots : int
        Of a block.
    spare : int
        Copies beyond one of each expert.
    """
    return float(np.sort(_met_by_copies(pairs, slots).ravel())[::-1][:spare].sum())


def _met_by_copies(pairs: Array, slots: int) -> Array:
    """Return what the first, second, ... copy of each expert meets at most, (E, n), falling in each row."""
    E, per_copy = len(pairs), slots - 1
    if per_copy <= 0:
        return np.zeros((E, 1))
    met: Array = np.add.reduceat(np.sort(pairs, axis=1)[:, ::-1], np.arange(0, E, per_copy), axis=1)
    return met


def least_absent(ids: npt.NDArray[np.integer[Any]], homes: npt.NDArray[np.int64], num_experts: int, room: int) -> float:
    """Return the least messages to other blocks, as a block has no copy of most experts.

    A block of `room` slots lacks ``E - room`` experts at least. A token that uses any that its home's block lacks sends
    a message; one that uses a of them sends ``a / room`` at least, rounded up. So each token may give out shares to its
    experts, one in all (or ``1 / room`` to each, if it uses more than fit a block): whatever a block lacks, its tokens
    send at least the shares of that, no less than those of the ``E - room`` experts with the fewest. Tokens give to the
    expert that has fewest so far, which evens them out; any other way is as safe.

    Parameters
    ----------
    ids : (n, K) integers
        A layer's experts, -1 for none.
    homes : (n,) int64
        Block of each token's home.
    num_experts, room : int
    """
    lacking = num_experts - room
    if lacking <= 0:
        return 0.0
    shares = np.zeros((int(homes.max(initial=0)) + 1, num_experts))
    give_shares(ids, homes, room, shares)
    return float(np.sort(shares, axis=1)[:, :lacking].sum())
