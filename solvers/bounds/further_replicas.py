"""What replicas beyond one of each expert bring at most: assignments served at home, and pairs together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.bounds.draws import MOST_DRAWN

__all__ = ["further_gains", "met_by_further_replicas", "most_more", "most_together"]

Array = npt.NDArray[np.float64]


def most_together(pairs: Array, slots: int, total_slots: int) -> float:
    """Return an upper bound of the pairs that are served together where experts may have replicas.

    A replica has ``slots - 1`` neighbours: with c replicas, an expert meets at most its best ``c (slots - 1)``
    partners. The spare replicas go where they add most.

    Parameters
    ----------
    pairs : (E, E) float64
        Tokens that use both; zero diagonal.
    slots, total_slots : int
        Of a block, and of all of them.
    """
    met = _met_by_replicas(pairs, slots)
    spare = np.sort(met[:, 1:].ravel())[::-1][: max(0, total_slots - len(pairs))]
    return float(met[:, 0].sum() + spare.sum()) / 2


def most_more(pairs: Array, slots: int, spare: int) -> float:
    """Return an upper bound of what replicas beyond one of each expert add to the pairs that are together.

    The first replica of each expert is what a relaxation bounds. Each further one has ``slots - 1`` neighbours: k of
    them meet at most the expert's best ``k (slots - 1)`` partners.

    Parameters
    ----------
    pairs : (E, E) float64
        Tokens that use both; zero diagonal.
    slots : int
        Of a block.
    spare : int
        Replicas beyond one of each expert.
    """
    return float(np.sort(_met_by_replicas(pairs, slots).ravel())[::-1][:spare].sum())


def _met_by_replicas(pairs: Array, slots: int) -> Array:
    """Return what the first, second, ... replica of each expert meets at most, (E, n), falling in each row."""
    E, per_replica = len(pairs), slots - 1
    if per_replica <= 0:
        return np.zeros((E, 1))
    met: Array = np.add.reduceat(np.sort(pairs, axis=1)[:, ::-1], np.arange(0, E, per_replica), axis=1)
    return met


def further_gains(falling: Array, pairs: Array, by_home: Array | None, drawn: Array, slots: int, spare: int) -> Array:
    """Return what further replicas of each expert bring at most: assignments served at home, and pairs together.

    Replicas in d blocks bring the expert home to the tokens of these blocks. What they are with is counted in one of
    two ways. Beside the first replica: each has ``slots - 1`` neighbours, so further ones in d - 1 other blocks meet at
    most the expert's best ``(d - 1) (slots - 1)`` partners, among tokens of other homes, where home's replica comes
    first. Or with one of the replicas at random in place of the first, which meets as much as all of them together if
    draws are even; then what draws are above even is all that counts.

    Parameters
    ----------
    falling : (E, B) float64
        Calls of the 1, 2, ... homes that call an expert most, less the prices of a place there.
    pairs : (E, E) float64
        Zero diagonal.
    by_home : (E, B) float64 or None
        Pairs of an expert's tokens by home; None where a token may use another replica than that of its home's block.
    drawn : (E, MOST_DRAWN + 1, 2) float64
        As `Draws.above_even` sets it; infinite where it has not, or tokens don't draw.
    slots, spare : int
        Of a block, and replicas beyond one of each expert.

    Returns
    -------
    (E, n) float64
        Of 0, 1, ... further replicas; of more, no more.
    """
    E, blocks = falling.shape
    met = np.cumsum(_met_by_replicas(pairs, slots), axis=1)
    together = np.zeros((E, blocks))  # by blocks
    width = min(blocks - 1, met.shape[1])
    together[:, 1 : width + 1] = met[:, :width]
    together[:, width + 1 :] = met[:, -1:]
    if by_home is not None:
        together = np.minimum(together, _away_from(by_home))
    more = falling - falling[:, :1]
    columns = min(spare, max(blocks, MOST_DRAWN)) + 1
    gains = np.maximum.accumulate(more + together, axis=1)[:, np.minimum(np.arange(columns), blocks - 1)]
    for replicas in range(2, min(columns, MOST_DRAWN) + 1):
        apart = min(replicas, blocks)
        # All in blocks of their own, or tokens of one block less are at home.
        ways = more[:, apart - 1] + drawn[:, replicas, 1], more[:, max(apart - 2, 0)] + drawn[:, replicas, 0]
        gains[:, replicas - 1] = np.minimum(gains[:, replicas - 1], np.maximum(*ways))
    gains[:, 0] = 0.0
    return gains


def _away_from(by_home: Array) -> Array:
    """Return the pairs of tokens whose home is in none of 1, 2, ... blocks, at most, (E, B)."""
    away: Array = by_home.sum(axis=1, keepdims=True) - np.cumsum(np.sort(by_home, axis=1), axis=1)
    return away


def met_by_further_replicas(pairs: Array, slots: int, further: npt.NDArray[np.int64]) -> Array:
    """Return how much the further replicas of experts are with others, (E, E), by expert with the replicas."""
    rank = np.argsort(np.argsort(-pairs, axis=1, kind="stable"), axis=1, kind="stable")
    share = further / (further + 1.0)  # of the tokens that use the expert
    met: Array = np.where(rank < further[:, None] * (slots - 1), share[:, None], 0.0)
    return met
