"""Periodic deletion: leftovers of killed processes; by age uploads, keys, audit entries, plans and traces."""

from __future__ import annotations

import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.settings.settings import Settings
from api.store.audit import AuditLog
from api.store.blobs import Blobs
from api.store.clock import Clock
from api.store.store import Store
from traces.support.temporary import sweep_folders

__all__ = ["Cleanup"]

EVERY_S = 600.0
DAY_S = 86_400.0
HOUR_S = 3600.0
log = structlog.get_logger(__name__)


class Cleanup:
    """A thread that deletes what is too old, every ten minutes.

    Parameters
    ----------
    store : Store
    audit : AuditLog
    blobs : Blobs
    holding : threading.Lock
        Held while a trace's row and its file change together.
    settings : Settings
        `keep_days`, `audit_days`, `upload_hours`, `idempotency_hours`.
    clock : Clock, optional
        Says whether what looks old is.
    """

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        blobs: Blobs,
        holding: threading.Lock,
        settings: Settings,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock(store.database)
        self._store, self._audit, self._blobs, self._holding, self._settings = store, audit, blobs, holding, settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cleanup", daemon=True)

    def start(self) -> None:
        """Begin, with a first round at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is under way."""
        self._stopping.set()
        self._thread.join(10.0)

    def tend(self, now: float) -> None:
        """Make one round: what killed processes left goes, and what is too old, unless the clock has jumped of late."""
        if left := sweep_folders():  # of workers and helpers here; those on other machines sweep their own
            log.info("temporary.swept", files=len(left))
        if hold_s := self._clock.hold_s():
            log.warning("clock.not_trusted", seconds=round(hold_s))
            return
        self.clean(now)

    def clean(self, now: float) -> None:
        """Delete what is too old."""
        for upload_id in self._store.expired_uploads(now):
            self._blobs.drop_part(upload_id)
        self._store.drop_uploads(now)
        self._store.drop_idempotency_keys(now - HOUR_S * self._settings.idempotency_hours)
        if left := self._blobs.drop_unfinished(now - HOUR_S * self._settings.upload_hours):
            log.info("temporary.swept", files=len(left))
        self._audit.tell_left_out()
        self._audit.forget(now - DAY_S * self._settings.audit_days)
        if self._settings.keep_days is None:
            return
        before = now - DAY_S * self._settings.keep_days
        plans, series = self._store.drop_plans(before), self._store.drop_series(before)
        with self._holding:
            traces = self._store.drop_traces(before)
            for trace_id in traces:
                if not self._store.trace_is_known(trace_id):
                    self._blobs.delete(trace_id)
        if plans or series or traces:
            log.info("retention.dropped", plans=plans, series=series, traces=len(traces))

    def _run(self) -> None:
        while True:
            try:
                self.tend(time.time())
            except (SQLAlchemyError, OSError):
                log.exception("cleanup.failed")  # the next round tries again
            if self._stopping.wait(EVERY_S):
                return
