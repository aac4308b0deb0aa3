"""Dispatch: at least so many GPUs and nodes per token, from the experts that a layer's tokens use together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.bounds import levels_of
from placement.replay import homes_of
from solvers.bounds.loads import load_rows
from solvers.bounds.messages import STEPS_PER_CHOICE, LayerMessages
from solvers.kernels.shares import give_shares

__all__ = ["DispatchBound", "LayerPart", "least_absent"]

Ints = npt.NDArray[np.integer[Any]]
MOST_STEPS = 600
PAIRS_PER_ENTRY = 12  # of a token's experts that are looked at in the time of an entry of the matrix


@dataclass(frozen=True)
class LayerPart:
    """A layer on one level of hop costs."""

    level: int
    layer: int


class DispatchBound:
    """A lower bound of the messages of dispatch and combine with one message per GPU or node.

    What a layer's tokens send on a level of hop costs is bounded from the pairs of their experts, see `LayerMessages`,
    and from what a block lacks, see `least_absent`. A message path to a block of some level crosses into that block, so
    the levels add up (`placement.bounds.levels_of`). At least ``ceil(experts / room) - 1`` blocks are remote in any
    case.

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
        homes = homes_of(problem.objective, problem.num_gpus, sample.rows, sample.seq_id, sample.source_rank)
        present = (self._ids >= 0).sum(axis=2)
        self._unit = problem.objective.traffic_weight / max(1, int((present > 0).sum()))
        # The dearest first: it has most to gain.
        self.levels = sorted(levels_of(problem), key=lambda level: -level.cost)
        self._found: dict[LayerPart, float] = {}
        self._homes: list[Ints] = [level.block_of_gpu[homes] for level in self.levels]
        for number, level in enumerate(self.levels):
            spread = np.maximum(-(-present // level.room) - 1, 0).sum(axis=0)
            for layer, remote in enumerate(spread):
                ids = self._ids[:, layer]
                least = max(float(remote), least_absent(ids, self._homes[number], problem.num_experts, level.room))
                self._found[LayerPart(number, layer)] = least * level.cost * self._unit

    def passes(self) -> list[tuple[list[LayerPart], int]]:
        """Return the layers of each level, dearest level first, and the steps that each may take."""
        parts = [
            LayerPart(level, layer) for level in range(len(self.levels)) for layer in range(self.problem.num_layers)
        ]
        return [(parts, MOST_STEPS)] if parts else []

    def size(self, part: LayerPart) -> int:
        """Return the rows of a layer's matrix."""
        level = self.levels[part.level]
        return level.blocks * level.room

    def step_cost(self, part: LayerPart) -> int:
        """Return what a step takes beside those of the matrix, in its entries: the share of the tokens' choices."""
        tokens, _, top_k = self._ids.shape
        cost: int = tokens * top_k**2 // PAIRS_PER_ENTRY // STEPS_PER_CHOICE
        return cost

    def relaxation(self, part: LayerPart) -> LayerMessages | None:
        """Return the relaxation of a layer's messages; None where it is too large."""
        level, problem = self.levels[part.level], self.problem
        ids, homes = self._ids[:, part.layer], self._homes[part.level]
        share = level.cost * self._unit * len(self.levels)  # a layer's price is shared by its levels
        rows = load_rows(problem, range(part.layer, part.layer + 1), level, share)
        spare = problem.spare_copies // problem.num_layers
        messages = LayerMessages(ids, homes, problem.num_experts, level, spare, rows)
        self.found(part, messages.value)
        return messages if messages.relaxation is not None else None

    def found(self, part: LayerPart, remote: float) -> None:
        """Take note that a layer's tokens send at least so many messages."""
        self._found[part] = max(self._found[part], remote * self.levels[part.level].cost * self._unit)

    def total(self) -> float:
        """Return the bound on the traffic term."""
        return float(sum(list(self._found.values())))


def least_absent(
    ids: npt.NDArray[np.integer[Any]], homes: npt.NDArray[np.integer[Any]], num_experts: int, room: int
) -> float:
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
