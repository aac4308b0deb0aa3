"""What the routes of one service share, and how it starts and stops."""

from __future__ import annotations

import fcntl
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import IO, Annotated

import structlog
from fastapi import Depends, Request

from api.http.oidc import Oidc
from api.http.rates import Rates
from api.jobs.executors import Cluster, check_installed, executor_factory, parse_executor
from api.jobs.jobs import Dispatcher, DispatcherSettings
from api.jobs.processes import Helpers, process_pool
from api.resources.traces.inspection import warm_up
from api.service.janitor import Janitor
from api.service.settings import Settings
from api.service.telemetry import Metrics
from api.store.audit import AuditLog
from api.store.blobs import Blobs, open_blobs
from api.store.database import Database
from api.store.keys import Keys
from api.store.leases import Leases
from api.store.store import Store
from traces import InputError

__all__ = ["Running", "Services", "ServicesOf"]

HELPER_EXIT_S = 1.0  # nobody waits for a helper any more when the server ends
log = structlog.get_logger(__name__)


@dataclass
class Running:
    """The parts of a service that was started."""

    blobs: Blobs
    dispatcher: Dispatcher
    helpers: Helpers
    janitor: Janitor


@dataclass
class Services:
    """A service.

    Attributes
    ----------
    settings : Settings
    database : Database
    store : Store
    leases : Leases
    keys : Keys
    oidc : Oidc or None
        Checks tokens, if an issuer is set.
    rates : Rates
    audit : AuditLog
    metrics : Metrics
    draining : threading.Event
        Set when the server begins to stop; long waits end then.
    uploads : threading.Lock
        Holds a trace's row and its file together.
    uploading : set of str
        Uploads in parts that a request sends to just now.
    running : Running or None
    lock : file or None
        Held from `open` to `stop`.
    """

    settings: Settings
    database: Database
    store: Store
    leases: Leases
    keys: Keys
    oidc: Oidc | None
    rates: Rates
    audit: AuditLog
    metrics: Metrics
    draining: threading.Event = field(default_factory=threading.Event)
    uploads: threading.Lock = field(default_factory=threading.Lock)
    uploading: set[str] = field(default_factory=set)
    running: Running | None = None
    lock: IO[str] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Services:
        """Return a service that is not started: nothing is read or written yet."""
        database = Database(settings.store_url)
        store = Store(database)
        # A server is its data folder, which no two share: after a crash it finds its own plans again.
        server = f"{socket.gethostname()}:{settings.data_dir.absolute()}"[-80:]
        leases = Leases(database, settings.lease_s, server)
        return cls(
            settings=settings,
            database=database,
            store=store,
            leases=leases,
            keys=Keys(database),
            oidc=_oidc(settings),
            rates=Rates(settings.rate_per_s, settings.rate_burst),
            audit=AuditLog(database),
            metrics=Metrics(store, settings.data_dir),
        )

    @property
    def cluster(self) -> Cluster | None:
        """Where plans run, if not on this machine."""
        return parse_executor(self.settings.executor)

    @property
    def parts(self) -> Running:
        """The parts that are there once the service was started."""
        assert self.running is not None, "the service was not started"
        return self.running

    def open(self) -> None:
        """Take the data folder and bring its database up to date; again, it does nothing.

        Raises
        ------
        InputError
            If the folder can't be used: no access, another server, a database of a later version; or plans are to run
            on a cluster, and its package is missing.
        """
        if self.lock is not None:
            return
        if self.cluster is not None:
            check_installed()
        folder = self.settings.data_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "service.lock").open("a+")
        except OSError as error:
            detail = f"Can't write to {folder}: {error.strerror}."
            raise InputError.of("data_dir", "/data_dir", detail, "Give a data folder that is writable.") from error
        try:
            # The system frees it when the process ends, however it does.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            detail = f"Another server uses {folder}."
            raise InputError.of("data_dir_in_use", "/data_dir", detail, "Stop it, or give another folder.") from None
        try:
            self.database.upgrade()
        except BaseException:
            lock.close()
            raise
        self.lock = lock

    def start(self) -> None:
        """Take up what an earlier server left, and begin to run plans."""
        self.open()
        settings = self.settings
        blobs = open_blobs(settings.data_dir / "blobs", settings.blobs_url)
        for missing in blobs.sweep(self.store.trace_ids(), self.store.drop_uploads(time.time())):
            log.error("blob.missing", trace=missing)
        taken_up = self.leases.give_back_mine()
        helpers = Helpers(self._pool(settings.helpers))
        dispatcher = Dispatcher(
            DispatcherSettings(
                database_url=settings.store_url,
                blobs=None if self.cluster and settings.blobs_url else (settings.data_dir / "blobs").absolute(),
                blobs_url=settings.blobs_url,
                lanes=settings.max_workers,
                threads=settings.threads_per_plan,
                lease_s=settings.lease_s,
                max_time_limit_s=settings.max_time_limit_s,
                max_crashes=settings.max_crashes,
            ),
            self.leases,
            self._pool(1) if self.cluster is None else executor_factory(settings.executor),
            self.metrics,
        )
        janitor = Janitor(self.store, self.audit, blobs, self.uploads, settings)
        self.running = Running(blobs=blobs, dispatcher=dispatcher, helpers=helpers, janitor=janitor)
        janitor.start()
        dispatcher.start()
        helpers.start(warm_up)
        log.info("service.started", data_dir=str(settings.data_dir), plans_taken_up=len(taken_up))

    def stop(self) -> None:
        """Queue running plans again and end all processes."""
        self.draining.set()
        if self.running is not None:
            self.running.janitor.stop()
            self.running.dispatcher.stop(self.settings.shutdown_s)
            self.running.helpers.close(HELPER_EXIT_S)
            self.running = None
        self.database.close()
        if self.lock is not None:
            self.lock.close()
            self.lock = None
        log.info("service.stopped")

    def _pool(self, workers: int) -> Callable[[], Executor]:
        settings = self.settings
        return lambda: process_pool(workers, settings.niceness, settings.log_level, settings.job_memory_bytes)


def _oidc(settings: Settings) -> Oidc | None:
    if settings.oidc_issuer is None or settings.oidc_jwks_url is None:
        return None
    return Oidc(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        jwks_url=settings.oidc_jwks_url,
        tenant_claim=settings.oidc_tenant_claim,
        scope_prefix=settings.oidc_scope_prefix,
    )


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(_services)]
