"""Finding rot before a plan does: every file is read now and then, and compared with its name."""

from __future__ import annotations

import random
import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.store.blobs import Blobs
from api.store.store import Store
from api.telemetry.metrics import Metrics

__all__ = ["Scrubber"]

EVERY_S = 600.0  # how often what was found damaged is looked at again
DAY_S = 86_400.0
FIRST_S = 60.0  # a service that starts has other things to do
REST = 4.0  # for every second of reading, so many seconds of rest
log = structlog.get_logger(__name__)


class Scrubber:
    """A thread that reads all files once in so many days, in no order, so that restarts leave none out for good.

    Parameters
    ----------
    store : Store
    blobs : Blobs
    metrics : Metrics
        Tells how many are damaged or lost.
    days : float
    """

    def __init__(self, store: Store, blobs: Blobs, metrics: Metrics, days: float) -> None:
        self._store, self._blobs, self._metrics, self._days = store, blobs, metrics, days
        self._bad: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the file that is being read; nobody waits for it."""
        self._stopping.set()
        self._thread.join(1.0)

    def scrub(self, names: set[str]) -> None:
        """Read files, and tell of each that is not what its name says, or is missing."""
        for name in random.sample(sorted(names), len(names)):
            begun = time.monotonic()
            if self._stopping.is_set():
                return
            self.look(name)
            if self._stopping.wait(REST * (time.monotonic() - begun)):
                return

    def look(self, name: str) -> None:
        """Read one file."""
        bad = not self._blobs.sound(name) and self._store.trace_is_known(name)
        if bad and name not in self._bad:
            log.error("blob.damaged" if self._blobs.exists(name) else "blob.missing", trace=name)
            self._bad.add(name)
        elif not bad and name in self._bad:
            log.info("blob.healed", trace=name)
            self._bad.discard(name)
        self._metrics.damaged_blobs.set(len(self._bad))

    def _run(self) -> None:
        self._stopping.wait(FIRST_S)
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= due:
                    due += DAY_S * self._days
                    self.scrub(self._store.trace_ids())
                for name in sorted(self._bad):
                    self.look(name)
            except SQLAlchemyError:
                log.exception("scrub.failed")  # the next round tries again
            self._stopping.wait(EVERY_S)
