"""When to stop, and how good is good enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

from traces import Violations

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a search; the first one that is reached ends it.

    Attributes
    ----------
    time_s : float or None
        Wall-clock seconds. A search that is cut off by a clock can't promise the same plan twice.
    work : int or None
        Trial changes to price, over all restarts. The same seed and work give the same plan on any number of cores.
    gap : float or None
        Stop when ``(score - bound) / score`` is at most this.
    stall_s : float or None
        Stop after so many seconds without a better plan.
    """

    time_s: float | None = None
    work: int | None = None
    gap: float | None = None
    stall_s: float | None = None

    def __post_init__(self) -> None:
        found = Violations()
        for name in ("time_s", "work", "stall_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                found.add(
                    "limit_range", f"/limits/{name}", f"{value} is not a positive number.", "Give a positive limit."
                )
        if self.gap is not None and not 0 <= self.gap < 1:
            found.add("limit_range", "/limits/gap", f"Gap {self.gap} is not in [0, 1).", "Give 0.02 for two per cent.")
        found.raise_if_any()

    @property
    def deterministic(self) -> bool:
        """Whether the limits leave the result to seed and work alone."""
        return self.time_s is None and self.stall_s is None and self.gap is None
