"""The counters and histograms that Prometheus reads."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from api.store.store import Store
from api.telemetry.gauges import PlanLoad, PlanLoads, StoreFigures

__all__ = ["Metrics"]

SOLVE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
GAP_BUCKETS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)


class Metrics:
    """The figures of one service.

    Parameters
    ----------
    store : Store
        What it holds is counted when it is asked for.
    data_dir : Path
        On the disk whose free space is told.
    """

    def __init__(self, store: Store, data_dir: Path) -> None:
        self.registry = CollectorRegistry()
        self.loads = PlanLoads()
        self.store_errors = Counter(
            "moe_placement_store_errors",
            "Times that the database could not be read or written, by what was tried.",
            ("where",),
            registry=self.registry,
        )
        self.registry.register(StoreFigures(store, data_dir, self.store_errors.labels("metrics").inc))
        self.request_seconds = Histogram(
            "moe_placement_request_seconds",
            "Time until a request was answered to its end.",
            ("method", "route"),
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.upload_bytes = Counter(
            "moe_placement_upload_bytes", "Bytes of traces that were received.", registry=self.registry
        )
        self.gap = Histogram(
            "moe_placement_plan_gap",
            "Gap of finished plans whose bound is known.",
            ("solver",),
            buckets=GAP_BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "moe_placement_requests", "Requests.", ("method", "route", "status"), registry=self.registry
        )
        self.solve_seconds = Histogram(
            "moe_placement_solve_seconds",
            "Time that searches took.",
            ("solver", "status"),
            buckets=SOLVE_BUCKETS,
            registry=self.registry,
        )
        self.damaged_blobs = Gauge(
            "moe_placement_damaged_blobs", "Traces whose files were found damaged or lost.", registry=self.registry
        )
        self.webhooks = Counter(
            "moe_placement_webhooks", "Messages to the webhook, each try.", ("result",), registry=self.registry
        )
        self.worker_deaths = Counter("moe_placement_worker_deaths", "Workers that died.", registry=self.registry)

    def finished(self, solver: str, status: str, elapsed_s: float, load: PlanLoad | None) -> None:
        """Count a plan or front that has ended."""
        self.solve_seconds.labels(solver, status).observe(elapsed_s)
        if load is not None:
            self.loads.add(load)
            if load.gap is not None:
                self.gap.labels(solver).observe(load.gap)
