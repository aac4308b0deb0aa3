"""News of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from traces.support.content import ByContent

__all__ = ["Event", "Observer", "ObserverError"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Event(ByContent):
    """A better plan (``incumbent``) or a better bound (``bound``).

    Attributes
    ----------
    kind : {"incumbent", "bound"}
    elapsed_s : float
    solver : str
        Who found it.
    score, bound, gap : float or None
        Best so far.
    table : (L, S) int32 or None
        The plan's map, with an incumbent.
    """

    kind: Literal["incumbent", "bound"]
    elapsed_s: float
    solver: str
    score: float | None
    bound: float | None
    gap: float | None
    table: npt.NDArray[np.int32] | None = None

    def __repr__(self) -> str:
        figures = ", ".join(
            f"{name}={value:.6g}" for name in ("score", "bound", "gap") if (value := getattr(self, name)) is not None
        )
        shape = "" if self.table is None else f", table of {self.table.shape[0]} x {self.table.shape[1]}"
        return f"Event({self.kind}, {self.elapsed_s:.3f} s, {self.solver}, {figures}{shape})"


Observer = Callable[[Event], None]


class ObserverError(Exception):
    """An observer failed; its own exception is the cause."""
