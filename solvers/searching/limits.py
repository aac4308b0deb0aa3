"""When to stop, and how good is good enough."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt, Unit, doc

from traces.support.declared import check_declared
from traces.support.errors import Violations

__all__ = ["DEFAULT_TIME_S", "FRONT_TIME_S", "Limits"]

DEFAULT_TIME_S, FRONT_TIME_S = 10.0, 60.0
UNSAID: Any = object()  # not None, which says that there is no limit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a search; the first one that is reached ends it.

    Attributes
    ----------
    time_s : float or None
        Wall-clock seconds; 10 by default, and None, which is no limit, with `work`. A search that is cut off by a clock
        can't promise the same plan twice.
    work : int or None
        Trial changes to price, over all restarts. The same seed and work give the same plan on any number of cores.
    gap : float or None
        Stop when ``(score - bound) / score`` is at most this.
    stall_s : float or None
        Stop after so many seconds without a better plan.
    """

    time_s: Annotated[
        float | None, Gt(0), Unit("s"), doc("Seconds to search; 10 by default, 60 for a front, none with work.")
    ] = UNSAID
    work: Annotated[
        int | None, Gt(0), doc("Trial changes to price: same seed and work, same plan, on any machine.")
    ] = None
    gap: Annotated[float | None, Ge(0), Lt(1), doc("Stop at this gap: 0.02 for two per cent.")] = None
    stall_s: Annotated[float | None, Gt(0), Unit("s"), doc("Stop after so many seconds without a better plan.")] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_said", self.time_s is not UNSAID)
        if self.time_s is UNSAID:
            object.__setattr__(self, "time_s", None if self.work is not None else DEFAULT_TIME_S)
        found = Violations()
        check_declared(self, "/limits", found, code="limit_range")
        found.raise_if_any()

    @property
    def said(self) -> bool:
        """Whether the caller gave `time_s`."""
        said: bool = self._said  # type: ignore[attr-defined]  # no field: equal limits are equal, however they came about
        return said

    def of_front(self) -> Limits:
        """Return the same for a front, all its searches together: 60 s where nobody gave a time."""
        return self if self.said or self.time_s is None else replace(self, time_s=FRONT_TIME_S)

    @property
    def deterministic(self) -> bool:
        """Whether the limits leave the result to seed and work alone."""
        return self.time_s is None and self.stall_s is None and self.gap is None
