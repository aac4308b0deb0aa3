"""What tokens' draws of their replicas serve together beyond an even split, among all replicas or those of a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.bounds.kernels.draws import MOST_DRAWN, draws_of, most_above_even

__all__ = ["MOST_DRAWN", "Draws"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]


class Draws:
    """Which replica of an expert with so many of them a layer's tokens draw.

    Parameters
    ----------
    ids : (n, K) int32
        -1 for none.
    homes : (n,) int64
        Block of each token's home.
    drawn : (n, K) uint64
        Of r replicas, number ``drawn % r`` is used.
    blocks, room : int
        Blocks, and slots of a block.
    told_apart : bool
        Whether a token uses a replica in its home's block if there is one, so that pairs at home don't count.
    node_of_block : (blocks,) integers, optional
        Where a token draws among the replicas in its home's node, if there are any, else among all.
    """

    def __init__(
        self,
        ids: Ints,
        homes: Ints,
        drawn: npt.NDArray[np.uint64],
        blocks: int,
        room: int,
        *,
        told_apart: bool,
        node_of_block: Ints | None = None,
    ) -> None:
        self._ids, self._blocks, self._room, self._told_apart = ids, blocks, room, told_apart
        self._homes = homes if told_apart else np.zeros_like(homes)
        self._draws = draws_of(drawn)
        # Tokens of each node, their homes in it, and how many there are.
        self._groups: list[tuple[Ints, Ints, int]] = []
        if node_of_block is not None:
            for node in np.unique(node_of_block):
                own = node_of_block == node
                tokens = np.flatnonzero(own[homes])
                self._groups.append((tokens, (np.cumsum(own) - 1)[homes[tokens]], int(own.sum())))

    def above_even(self, counts: Array, pairs: Array, experts: Ints, most: Array) -> None:
        """Set what the replicas of some experts serve together with others, at most, beyond an even split.

        Parameters
        ----------
        counts : (n, K (K-1)/2) float64
            As `most_above_even` takes them.
        pairs : (E, E) float64
            What is split evenly: all pairs, less no more of them than any one home has.
        experts : (m,) integers
        most : (E, MOST_DRAWN + 1, 2) float64
            Set by expert and replicas: with replicas in a single block; with each in a block of its own.
        """
        if self._groups:
            most[experts] = self._within_nodes(counts, pairs, experts)[experts]
            return
        homes_with = np.zeros((2, MOST_DRAWN + 1), np.int64)
        if self._told_apart:
            homes_with[0] = 1
            homes_with[1] = np.minimum(np.arange(MOST_DRAWN + 1), self._blocks)
        blocks, slots = self._blocks if self._told_apart else 1, self._room - 1
        most_above_even(self._ids, self._homes, self._draws, counts, pairs, blocks, homes_with, 2, slots, experts, most)

    def _within_nodes(self, counts: Array, pairs: Array, experts: Ints) -> Array:
        """Return the most above even, (E, MOST_DRAWN + 1, 2), with tokens of each node by themselves.

        To the tokens of a node, an expert has as many replicas as the node has, one of them in a home of theirs, or
        where it has none, all. At least one node has any.
        """
        by_node = np.zeros((len(self._groups), len(pairs), MOST_DRAWN + 1, 2))
        homes_with = np.array([[0] * (MOST_DRAWN + 1), [1] * (MOST_DRAWN + 1)])
        slots = self._room - 1
        for found, (tokens, homes, blocks) in zip(by_node, self._groups, strict=True):
            even = pairs * (len(tokens) / len(self._ids))
            ids, draws, own = self._ids[tokens], self._draws[tokens], counts[tokens]
            most_above_even(ids, homes, draws, own, even, blocks, homes_with, 1, slots, experts, found)
        elsewhere, here = by_node[..., 0], np.maximum.accumulate(by_node[..., 1], axis=2)
        more = np.sort(np.maximum(elsewhere - here, 0.0), axis=0)[1:].sum(axis=0)
        return np.repeat((here.sum(axis=0) + more)[..., None], 2, axis=2)
