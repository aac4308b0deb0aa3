"""One window of a series: what was counted in it, in exchangeable parts, and its tokens where there are any."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from traces.support.content import ByContent
from traces.trace import Trace

__all__ = ["Window"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Window(ByContent):
    """What happened between two points in time.

    Attributes
    ----------
    name : str
        Of the dump or file, or which part of the trace it is.
    time : float or None
        When it was recorded, where that is known: seconds, a step or an iteration.
    load : (L, E) float64
        Tokens per layer and expert; some in every layer.
    parts : (P, L, E) float64
        The same for parts of equal make, whose differences are what sampling alone does: so many whole sequences each,
        or a dump each. They need not sum to `load`.
    per_part : int
        Sequences, or dumps, of a part.
    tokens : Trace or None
        Whole sequences spread over the window, in memory; None where there are only counts.
    """

    name: str
    time: float | None
    load: Floats
    parts: npt.NDArray[np.float64]
    per_part: int = 1
    tokens: Trace | None = field(default=None, compare=False)

    @property
    def shares(self) -> Floats:
        """Share of each layer's assignments by expert, (L, E); rows sum to 1."""
        shares: Floats = self.load / self.load.sum(axis=1, keepdims=True)
        return shares
