"""Copies of a layer's tokens to other blocks, at least, from counts alone: without a relaxation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.bounds.further_replicas import most_together
from solvers.bounds.layer_messages import least_remote
from solvers.bounds.message_parts import least_absent

__all__ = ["least_copies", "most_at_home"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]


def least_copies(
    ids: Ints, homes: Ints, num_experts: int, blocks: int, room: int, spare: int, *, merged: bool
) -> float:
    """Return the copies that the tokens of a layer send to blocks other than their home's, at least.

    Where copies are not merged, every choice that is not served at home is one. Where they are, a token sends one to
    each block, see `least_absent` for what blocks lack, and `LayerMessages` for the parabola: experts that are served
    elsewhere, less the pairs of them that are together.

    Parameters
    ----------
    ids : (n, K) integers
        Experts, -1 for none.
    homes : (n,) integers
        Block of each token's home.
    num_experts, blocks : int
    room, spare : int
        Slots of the largest block, and of all blocks beyond one per expert.
    merged : bool
    """
    present = ids >= 0
    called = np.zeros((num_experts, blocks))
    np.add.at(called, (ids[present], np.broadcast_to(homes[:, None], ids.shape)[present]), 1)
    at_home = most_at_home(called, room, spare)
    if not merged:
        return float(present.sum()) - at_home
    together = most_together(_pairs(ids, num_experts), room, num_experts + spare)
    apart = least_remote(float(present.sum()), at_home, together, ids.shape[1])
    return max(apart, least_absent(ids, homes, num_experts, room))


def most_at_home(called: Array, room: int, spare: int) -> float:
    """Return the most choices that are served in the block of their token's home.

    A block serves those of the experts it has slots for. And of each expert the first replica is in one block, so that
    only the others bring it to further homes.

    Parameters
    ----------
    called : (E, B) float64
        Choices of each expert by tokens of each home.
    room, spare : int
        Slots of a block, and of all blocks beyond one per expert.
    """
    by_room = np.sort(called, axis=0)[-min(room, len(called)) :].sum()
    falling = -np.sort(-called, axis=1)
    further = np.sort(falling[:, 1:].ravel())
    by_replica = falling[:, 0].sum() + further[len(further) - min(spare, len(further)) :].sum()
    return float(min(by_room, by_replica))


def _pairs(ids: Ints, num_experts: int) -> Array:
    """Return the tokens that use both of two experts, (E, E), zero on the diagonal."""
    found = np.zeros(num_experts * num_experts, np.int64)
    for first in range(ids.shape[1]):
        for second in range(first + 1, ids.shape[1]):
            both = (ids[:, first] >= 0) & (ids[:, second] >= 0)
            keys = ids[both, first].astype(np.int64) * num_experts + ids[both, second]
            found += np.bincount(keys, minlength=len(found))
    pairs = found.reshape(num_experts, num_experts).astype(float)
    pairs += pairs.T
    np.fill_diagonal(pairs, 0)
    return pairs
