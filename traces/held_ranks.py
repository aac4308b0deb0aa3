"""Which ranks' experts have all the load: aligned shares of all experts, or of all physical slots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["ENOUGH", "Ranks", "held_ranks", "held_slots"]

ENOUGH = 8  # assignments per expert and layer, were they even: then a share of the experts is not unused by chance
MOSTLY = 0.75  # of a rank's experts have tokens; a few may be left out by the router
SEVERAL_CELLS = 32  # without tokens, of several ranks, that are no chance; by trial
SHOWN = 4


class Ranks(NamedTuple):
    """The ranks `there`, out of `ranks` that hold `size` experts each, are the whole of a recording.

    `dealt`: experts are dealt out in turn (vLLM's ``round_robin``), rather than an aligned share to each rank.
    """

    there: tuple[int, ...]
    ranks: int
    size: int
    dealt: bool = False

    @property
    def experts(self) -> str:
        """Their experts, as words."""
        if self.dealt:
            return f"{', '.join(map(str, self.there[:SHOWN]))} and every {self.ranks}th from there"
        first = [f"{self.size * rank}-{self.size * (rank + 1) - 1}" for rank in self.there[:SHOWN]]
        return ", ".join([*first, *(["..."] if len(self.there) > SHOWN else [])])


def held_ranks(load: npt.NDArray[np.float64]) -> Ranks | None:
    """Return the ranks whose experts have all the load; None where all have some.

    The experts of a rank are an aligned share of all. A router leaves experts out here and there, but not a whole share
    of them in all layers.

    Parameters
    ----------
    load : (L, E) float64
        Layers without any load say nothing.

    Returns
    -------
    Ranks or None
        One rank where the smallest aligned share that has everything is one; else the largest shares, several of
        which have tokens and the others none.
    """
    experts = load.shape[1]
    used = load.any(axis=0)
    layers, unused = int(load.any(axis=1).sum()), int(experts - used.sum())
    if not 0 < unused < experts:
        return None
    at = np.flatnonzero(used)
    first, last = int(at[0]), int(at[-1])
    sizes = [size for size in range(1, experts) if experts % size == 0]
    for size in sizes:
        if first // size == last // size:
            alone = Ranks(there=(first // size,), ranks=experts // size, size=size)
            return None if layers == 1 and size == 1 else alone
    for ranks in reversed(sizes):  # the most ranks first: the smallest share that has everything
        if ranks > 1 and len(of := np.unique(at % ranks)) == 1 and len(at) > MOSTLY * experts / ranks:
            return Ranks(there=tuple(of.tolist()), ranks=ranks, size=experts // ranks, dealt=True)
    if layers * unused < SEVERAL_CELLS:
        return None
    for size in (size for size in reversed(sizes) if size > 1):
        part = used.reshape(-1, size).mean(axis=1)
        if (part == 0).any() and ((part > MOSTLY) | (part == 0)).all():
            return Ranks(there=tuple(np.flatnonzero(part).tolist()), ranks=experts // size, size=size)
    return None


def held_slots(counts: npt.NDArray[np.int64] | npt.NDArray[np.float64], load: npt.NDArray[np.float64]) -> Ranks | None:
    """Return the ranks whose physical slots have all the tokens; None where all have some, or they are too few to tell.

    Where a map deals experts out to slots in any order, their loads don't show it: those of a rank lie anywhere. Where
    every expert has tokens nevertheless, it is replicas that are idle.

    Parameters
    ----------
    counts : (L, P) whole numbers
        Tokens by physical slot; rank r has the r-th aligned share.
    load : (L, E) float64
        The same by expert.
    """
    recorded = load[load.any(axis=1)]
    if not (recorded == 0).any(axis=1).all():
        return None
    there = counts[counts.any(axis=1)]
    if not there.size or there.sum() < ENOUGH * there.size:
        return None
    return held_ranks(there.astype(np.float64))
