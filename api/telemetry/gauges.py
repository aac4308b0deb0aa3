"""Gauges that are read when Prometheus asks: the queue, the disk, and the loads of the latest plans."""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from api.store.models import STATUSES
from api.store.store import Store

__all__ = [
    "LATEST_PLANS",
    "LATEST_SERIES",
    "LoadFigures",
    "PlanLoad",
    "PlanLoads",
    "SeriesDrift",
    "SeriesFigures",
    "StoreFigures",
]

LATEST_PLANS = 20  # of a tenant: every plan is a series of its own, and series must not pile up
TENANTS = 200
LATEST_SERIES = 20  # of a tenant: those that got a window last
SERIES_GAUGES = {
    "windows": ("Windows of the series.", "windows"),
    "drift": ("Share of assignments that would have to go to other experts, latest window against before.", "size"),
    "drift_noise": ("What that share is by sampling alone, where that is known.", "noise"),
    "drifted": ("1 if the latest window has drifted, 0 if not; absent where that can't be told.", "drifted"),
}
LOAD_GAUGES = {
    "imbalance": ("Load of the busiest GPU over the mean, averaged over layers.", "imbalance"),
    "hottest_expert_share": ("Largest share that an expert has of its layer's tokens.", "hottest_share"),
    "latest_gap": ("Gap of the plan, if a bound is known.", "gap"),
}
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlanLoad:
    """How evenly a finished plan spreads the load.

    Attributes
    ----------
    tenant, plan, trace : str
    imbalance : float
        Load of the busiest GPU over the mean, averaged over layers, as the trace's loads have it.
    hottest_share : float
        Largest share that an expert has of its layer's tokens.
    gap : float or None
    """

    tenant: str
    plan: str
    trace: str
    imbalance: float
    hottest_share: float
    gap: float | None


class PlanLoads:
    """The latest `PlanLoad` of every tenant, `LATEST_PLANS` each; of this server, since it started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, OrderedDict[str, PlanLoad]] = OrderedDict()

    def add(self, load: PlanLoad) -> None:
        """Take note of a finished plan."""
        with self._lock:
            mine = self._found.setdefault(load.tenant, OrderedDict())
            self._found.move_to_end(load.tenant)
            mine[load.plan] = load
            if len(mine) > LATEST_PLANS:
                mine.popitem(last=False)
            if len(self._found) > TENANTS:
                self._found.popitem(last=False)

    def of(self, tenant: str) -> list[PlanLoad]:
        """Return those of a tenant, the oldest first."""
        with self._lock:
            return list(self._found.get(tenant, {}).values())


class LoadFigures(Collector):
    """The gauges of one tenant's latest plans.

    Parameters
    ----------
    loads : list of PlanLoad
    """

    def __init__(self, loads: list[PlanLoad]) -> None:
        self._loads = loads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges."""
        for name, (text, field) in LOAD_GAUGES.items():
            family = GaugeMetricFamily(f"moe_placement_plan_{name}", text, labels=["plan", "trace"])
            for load in self._loads:
                if (value := getattr(load, field)) is not None:
                    family.add_metric([load.plan, load.trace], value)
            yield family


@dataclass(frozen=True, kw_only=True)
class SeriesDrift:
    """The latest window of a series; figures that can't be told are None."""

    series: str
    windows: int
    size: float | None
    noise: float | None
    drifted: bool | None


class SeriesFigures(Collector):
    """The gauges of the series of one tenant that got a window last, `LATEST_SERIES` at most.

    Parameters
    ----------
    found : list of SeriesDrift
    """

    def __init__(self, found: list[SeriesDrift]) -> None:
        self._found = found

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges."""
        for name, (text, field) in SERIES_GAUGES.items():
            family = GaugeMetricFamily(f"moe_placement_series_{name}", text, labels=["series"])
            for each in self._found:
                if (value := getattr(each, field)) is not None:
                    family.add_metric([each.series], float(value))
            yield family


class StoreFigures(Collector):
    """Queue, traces and disk, counted when they are asked for.

    Parameters
    ----------
    store : Store
    folder : Path
        On the disk whose free space is told.
    failed : callable
        Called if the store can't be read; the figures from it are left out then.
    """

    def __init__(self, store: Store, folder: Path, failed: Callable[[], None]) -> None:
        self._store, self._folder, self._failed = store, folder, failed

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: registering must not read the store."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count."""
        try:
            yield _gauge("disk_free_bytes", "Free space of the data folder.", shutil.disk_usage(self._folder).free)
        except OSError:
            log.exception("disk.unreadable")
        try:
            totals = self._store.totals()
        except SQLAlchemyError:
            log.exception("store.unreachable")
            self._failed()
            return
        family = GaugeMetricFamily(
            "moe_placement_plans", "Plans and all else that is queued, by status.", labels=["status"]
        )
        for status in STATUSES:
            family.add_metric([status], totals.plans.get(status, 0))
        yield family
        age = 0.0 if totals.waiting_since is None else max(0.0, time.time() - totals.waiting_since)
        yield _gauge("queue_length", "Plans and all else that wait.", totals.plans.get("queued", 0))
        yield _gauge("queue_age_seconds", "How long the one that waits longest has waited; 0 if none does.", age)
        yield _gauge("blobs", "Traces that are stored; the same bytes count once.", totals.blobs)
        yield _gauge("blob_bytes", "Bytes of these traces.", totals.blob_bytes)
        yield _gauge("open_uploads", "Uploads in parts that were begun and are not finished.", totals.open_uploads)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"moe_placement_{name}", text, value=value)
