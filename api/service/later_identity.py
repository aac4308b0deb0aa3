"""Whether database and object store belong together, where the store was away when the service started."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from traces import InputError

__all__ = ["LaterIdentity"]

EVERY_S = 15.0
log = structlog.get_logger(__name__)


class LaterIdentity:
    """A thread that compares identities as soon as the store answers.

    Parameters
    ----------
    settle : callable
        Compares them; `InputError` if they are not the same, `OSError` if the store is away.
    refuse : callable
        Called if they are not the same.
    """

    def __init__(self, settle: Callable[[], object], refuse: Callable[[], None]) -> None:
        self._settle, self._refuse = settle, refuse
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="identity", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; nobody waits for it."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self._settle()
            except InputError as error:
                log.error("identity.other", reason=str(error))
                self._refuse()
                return
            except (OSError, SQLAlchemyError):
                continue
            log.info("identity.checked")
            return
