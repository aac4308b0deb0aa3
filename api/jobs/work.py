"""What lanes have executors run, and what they know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from api.jobs.attempts import Job, Outcome

__all__ = ["DispatcherSettings", "Work"]


@dataclass(frozen=True, kw_only=True)
class DispatcherSettings:
    """What lanes and workers have to know; see `api.settings.settings.Settings`."""

    database_url: str
    blobs: Path | None
    blobs_url: str | None
    lanes: int
    threads: int | None
    lease_s: float
    max_time_limit_s: float
    max_crashes: int
    short_lane: bool = False  # one more lane, for short plans only
    webhook: bool = False  # whether there is one to be told
    shared: bool = False  # by several tenants: none of them fills all lanes with long plans


@dataclass(frozen=True, kw_only=True)
class Work:
    """What executors run; both pickle.

    Attributes
    ----------
    run : callable
        Runs a job to its end and writes that to the store.
    warm_up : callable
        Loads what most jobs need, before there is any.
    """

    run: Callable[[Job], Outcome]
    warm_up: Callable[[], None]
