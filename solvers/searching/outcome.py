"""What a search has come to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement import Score
from placement.plan.termination import Limit

__all__ = ["Outcome"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a search has come to.

    Attributes
    ----------
    table : (L, S) int32 or None
        Map of the best plan.
    score : Score or None
        Of that map.
    solver : str
        Who found it.
    bound : float or None
        Best lower bound that was reported.
    proven : bool
        Whether no plan can beat it.
    limit : str or None
        The limit that ended the search; None if it ran to its end.
    clocked : bool
        Whether the clock cut some part short: the same seed may give another plan then.
    notes : tuple of str
        How the plan was made.
    elapsed_s : float
    """

    table: npt.NDArray[np.int32] | None
    score: Score | None
    solver: str
    bound: float | None
    proven: bool
    limit: Limit | None
    clocked: bool
    notes: tuple[str, ...]
    elapsed_s: float
