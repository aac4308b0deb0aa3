"""The rule that a map keeps, so that experts survive failures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SurvivalRule"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SurvivalRule:
    """What a map keeps in every layer: whatever `failures` domains fail, at most `lost` experts have no live copy.

    Attributes
    ----------
    domain : (G,) int64
        Failure domain of each GPU.
    room : (D,) int64
        Slots of each domain.
    failures : int
        k.
    lost : int
        0, or more with a single failure.
    """

    domain: npt.NDArray[np.int64]
    room: npt.NDArray[np.int64]
    failures: int
    lost: int
