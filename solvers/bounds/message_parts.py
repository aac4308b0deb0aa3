"""Dispatch: at least so many GPUs and nodes per token, from the experts that a layer's tokens use together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.bounds import Level, levels_of
from placement.replay.kernels.choosing import fair_hashes
from placement.replay.replay import homes_of
from solvers.bounds.home_messages import HomeMessages, TwoHomes
from solvers.bounds.kernels.shares import give_shares
from solvers.bounds.layer_messages import LayerMessages
from solvers.bounds.loads import load_rows, spare_in_layer
from solvers.bounds.token_game import STEPS_PER_CHOICE

__all__ = ["DispatchBound", "LayerPart", "least_absent"]

Ints = npt.NDArray[np.integer[Any]]
MOST_STEPS = 600  # as many as the longest windows of a chain get; most parts settle before
# Of a token's experts that are looked at in the time of an entry of the matrix; chosen
# by trial.
PAIRS_PER_ENTRY = 12
MOST_NODES = 2  # of four, each has too few tokens: less is proven than without their draws; chosen by trial
# Steps of 58 x 256 after which a layer's bound first is far above the instant one (docs/decisions/0031-spread.md).
DRAWN_CHUNK = 24
SMALL = 128  # rows of a matrix whose steps take a millisecond


@dataclass(frozen=True)
class LayerPart:
    """A layer on one level of hop costs."""

    level: int
    layer: int


class DispatchBound:
    """A lower bound of the messages of dispatch and combine with one message per GPU or node.

    What a layer's tokens send on a level of hop costs is bounded from the pairs of their experts: for two blocks and
    replicas home by home, see `TwoHomes`, else see `LayerMessages`; and from what a block lacks, see
    `least_absent`. A message path to a block of some level crosses into that block, so the levels add up
    (`placement.cost.bounds.levels_of`). At least ``ceil(experts / room) - 1`` blocks are remote in any case.

    Parameters
    ----------
    problem : Problem
        Dispatch with deduplication, at least two GPUs.
    """

    patience = 100  # steps, as a bound falls and rises while tokens choose

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        sample = problem.profile.sample
        assert sample is not None
        self._ids = sample.topk_ids
        homes = homes_of(problem.objective, problem.num_gpus, sample.rows, sample.seq_id, sample.source_rank)
        present = (self._ids >= 0).sum(axis=2)
        self._unit = problem.objective.traffic_weight / max(1, int((present > 0).sum()))
        self._spare = spare_in_layer(problem)
        # The dearest first: it has most to gain.
        self.levels = sorted(levels_of(problem), key=lambda level: -level.cost)
        self._homes: list[Ints] = [level.block_of_gpu[homes] for level in self.levels]
        self._found: dict[LayerPart, float] = {}
        for number, level in enumerate(self.levels):
            spread = np.maximum(-(-present // level.room) - 1, 0).sum(axis=0)
            for layer, remote in enumerate(spread):
                ids = self._ids[:, layer]
                least = max(float(remote), least_absent(ids, self._homes[number], problem.num_experts, level.room))
                self._found[LayerPart(number, layer)] = least

    def passes(self) -> list[tuple[list[LayerPart], int]]:
        """Return the parts of each level, dearest level first, and the steps that each may take.

        In one pass where all are quick, else one after the other, as the dearest level has most to gain.
        """
        layers = range(self.problem.num_layers)
        by_level = [[LayerPart(number, layer) for layer in layers] for number in range(len(self.levels))]
        parts = [part for parts in by_level for part in parts]
        if all(self.is_quick(part) for part in parts):
            by_level = [parts] if parts else []
        return [(parts, MOST_STEPS) for parts in by_level]

    def first_round(self) -> list[LayerPart]:
        """Return all parts but large ones of the dearest level, whose bound before any step is hardly one."""
        parts = [part for parts, _ in self.passes() for part in parts]
        return [part for part in parts if part.level or self.is_quick(part)]

    def is_quick(self, part: LayerPart) -> bool:
        """Whether a step takes next to nothing."""
        return self.size(part) <= SMALL

    def size(self, part: LayerPart) -> int:
        """Return the rows of a part's matrix."""
        level = self.levels[part.level]
        return HomeMessages.places_for(level.room) if self._by_home(part) else LayerMessages.places_for(level)

    def _by_home(self, part: LayerPart) -> bool:
        return bool(self._spare) and self.levels[part.level].blocks == 2

    def least_chunk(self, part: LayerPart) -> int:
        """Return the steps between two bounds, at least: draws take as long to count as some steps."""
        return DRAWN_CHUNK if self._counts_draws(part) else 8

    def _counts_draws(self, part: LayerPart) -> bool:
        return bool(self._spare) and not self._by_home(part) and _is_drawn(self.problem, self.levels[part.level])

    def kept_bytes(self, part: LayerPart) -> int:
        """Return what a part takes while it waits: matrices, and what each pair of a token's experts counts."""
        tokens, _, top_k = self._ids.shape
        drawn = self._counts_draws(part)
        matrices = 64 if self._by_home(part) else 32
        return matrices * self.size(part) ** 2 + (8 * tokens * top_k * (top_k - 1) // 2 if drawn else 0)

    def step_cost(self, part: LayerPart) -> int:
        """Return what a step takes beside those of the matrix, in its entries: the share of the tokens' choices."""
        tokens, _, top_k = self._ids.shape
        cost: int = tokens * top_k**2 // PAIRS_PER_ENTRY // STEPS_PER_CHOICE * (2 if self._spare else 1)
        return cost // 2 + self.size(part) ** 2 if self._by_home(part) else cost

    def relaxation(self, part: LayerPart) -> LayerMessages | TwoHomes | None:
        """Return the relaxation of a part's messages; None where it is too large."""
        level, problem = self.levels[part.level], self.problem
        ids, homes = self._ids[:, part.layer], self._homes[part.level]
        game: LayerMessages | TwoHomes
        if not self._by_home(part):
            share = level.cost * self._unit * len(self.levels)  # a layer's price is shared by its levels
            rows = load_rows(problem, range(part.layer, part.layer + 1), level, share)
            sample = problem.profile.sample
            assert sample is not None
            drawn = fair_hashes(ids, sample.rows, part.layer) if _is_drawn(problem, level) else None
            game = LayerMessages(
                ids,
                homes,
                problem.num_experts,
                level,
                self._spare,
                rows,
                drawn,
                _is_nearest(problem, level),
                _drawn_within(problem, level),
            )
        else:
            game = TwoHomes(ids, homes, problem.num_experts, level.room)
        self.found(part, game.value)
        return game if game.relaxation is not None else None

    def found(self, part: LayerPart, remote: float) -> None:
        """Take note that a part's tokens send at least so many messages."""
        self._found[part] = max(self._found.get(part, 0.0), remote)

    def total(self) -> float:
        """Return the bound on the traffic term."""
        found, total = dict(self._found), 0.0  # a replica: other threads go on
        for number, level in enumerate(self.levels):
            for layer in range(self.problem.num_layers):
                total += found[LayerPart(number, layer)] * level.cost * self._unit
        return total


def _is_drawn(problem: Problem, level: Level) -> bool:
    """Whether a token without a replica in its home's block draws one: of all, or of those in its home's node."""
    if problem.objective.replica_policy != "same_node" or _of_whole_nodes(problem, level):
        return True
    return level.blocks == problem.num_gpus and problem.topology.num_nodes <= MOST_NODES


def _drawn_within(problem: Problem, level: Level) -> npt.NDArray[np.int64] | None:
    """Return the node of each block where tokens draw among the replicas in their home's node, if there are any."""
    if problem.objective.replica_policy != "same_node" or _of_whole_nodes(problem, level):
        return None
    node = np.zeros(level.blocks, np.int64)
    node[level.block_of_gpu] = problem.topology.node_of_gpu
    return node


def _is_nearest(problem: Problem, level: Level) -> bool:
    """Whether a token uses a replica in its home's block if there is one."""
    if problem.objective.replica_policy == "fair":
        return False
    single = level.blocks == problem.num_gpus
    return single or (problem.objective.replica_policy == "same_node" and _of_whole_nodes(problem, level))


def _of_whole_nodes(problem: Problem, level: Level) -> bool:
    node = problem.topology.node_of_gpu
    first = np.unique(node, return_index=True)[1]  # GPU of each node
    return bool((level.block_of_gpu == level.block_of_gpu[first][node]).all())


def least_absent(
    ids: npt.NDArray[np.integer[Any]], homes: npt.NDArray[np.integer[Any]], num_experts: int, room: int
) -> float:
    """Return the least messages to other blocks, as a block has no replica of most experts.

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
