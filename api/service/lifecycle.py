"""A service from start to stop: what it is made of, its data folder, what an earlier server left."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from typing import IO

import structlog

from api.http.access import Access
from api.http.bodies import Bodies
from api.http.oidc import Oidc
from api.http.rates import Rates
from api.jobs.dispatcher import Dispatcher
from api.jobs.executors import check_installed, executor_factory
from api.jobs.helpers import Helpers
from api.jobs.processes import busy_s, kill, process_pool
from api.jobs.watching import Watching
from api.jobs.work import DispatcherSettings, Work
from api.resources.context import Running, Services
from api.resources.traces.inspection import warm_up as load_readers
from api.resources.worker import run_search, warm_up
from api.service.cleanup import Cleanup
from api.service.later_identity import LaterIdentity
from api.service.scrubber import Scrubber
from api.service.webhook import Webhook
from api.settings.addresses import Cluster, parse_executor
from api.settings.settings import Settings
from api.store.audit import AuditLog
from api.store.blobs import Blobs
from api.store.database import Database
from api.store.identity import settle_identity
from api.store.keys import Keys
from api.store.leases import Leases
from api.store.outbox import Outbox
from api.store.remote_blobs import open_blobs
from api.store.store import Store
from api.telemetry.metrics import Metrics
from api.turns import Turns
from traces import InputError

__all__ = ["Service"]

BODY_MEMORY_BYTES = 2 << 30  # of the process that checks large bodies
# What processes run, and what that loads when it is first used.
PRELOADED = (
    "api.resources.worker",
    "api.resources.traces.inspection",
    "solvers.methods.auto",
    "solvers.methods.set_partition",
    "solvers.preloaded",
)
CHECKS = 2  # bounds the memory of topologies and constraints, whatever the number of requests
MOST_WAITING = 200  # of one tenant, for a check
IMPORTS = 4  # at the same time; one tenant has one less
log = structlog.get_logger(__name__)


class Service:
    """A service. Making it reads and writes nothing; `start` does.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    database : Database
    leases : Leases
    services : Services
        What the routes share.
    access : Access
        What requests are authenticated by.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.store_url)
        # A server is its data folder, which no two share: after a crash it finds its own plans again.
        server = f"{socket.gethostname()}:{settings.data_dir.absolute()}"[-80:]
        self.leases = Leases(self.database, settings.lease_s, server)
        store, keys = Store(self.database), Keys(self.database)
        self.services = Services(
            settings=settings,
            store=store,
            keys=keys,
            audit=AuditLog(self.database),
            metrics=Metrics(store, settings.data_dir),
            bodies=Bodies(self._pool(settings.niceness, BODY_MEMORY_BYTES), kill, busy_s),
            checking=Turns(range(CHECKS), 1, MOST_WAITING),
            watching=Watching(self.database),
        )
        self.access = Access(
            required=settings.auth == "required",
            keys=keys,
            oidc=_oidc(settings),
            rates=Rates(settings.rate_per_s, settings.rate_burst),
            failures=Rates(settings.failures_per_s, settings.failures_burst),
        )
        self._cleanup: Cleanup | None = None
        self._scrubber: Scrubber | None = None
        self._webhook: Webhook | None = None
        self._later: LaterIdentity | None = None
        self.end: Callable[[], None] = lambda: None  # ends the process; the server's task
        self._lock: IO[str] | None = None  # held from `open` to `stop`

    @property
    def cluster(self) -> Cluster | None:
        """Where plans run, if not on this machine."""
        return parse_executor(self.settings.executor)

    def open(self) -> None:
        """Take the data folder and bring its database up to date; again, it does nothing.

        Raises
        ------
        InputError
            If the folder can't be used: no access, another server, a database of a later version or of other traces; or
            plans are to run on a cluster, and its package is missing.
        """
        if self._lock is not None:
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
            self._settle()
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    def _settle(self) -> None:
        try:
            settle_identity(self.database, self._blobs())
        except OSError as error:
            if self.settings.blobs_url is None:
                raise
            # Nothing is acknowledged meanwhile, and what was stored before is safe.
            log.error("identity.not_checked", error=str(error))
            self._later = LaterIdentity(lambda: settle_identity(self.database, self._blobs()), self._refuse)

    def _refuse(self) -> None:
        """Do no more with a store that is another's."""
        self.begin_stop()
        self.end()

    def start(self) -> None:
        """Take up what an earlier server left, and begin to run plans."""
        self.open()
        settings, services = self.settings, self.services
        blobs = self._blobs()
        for missing in blobs.sweep(services.store.trace_ids(), services.store.upload_ids()):
            log.error("blob.missing", trace=missing)
        taken_up = self.leases.give_back_mine()
        helpers = Helpers(
            self._pool(settings.niceness // 2, settings.job_memory_bytes),  # somebody waits for a short answer
            self._pool(settings.niceness, settings.job_memory_bytes),
            long=settings.helpers,
            max_s=settings.max_read_s,
            warm_up=load_readers,
        )
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
                webhook=settings.webhook_url is not None,
                short_lane=True,
                shared=settings.auth == "required",
            ),
            self.leases,
            Work(run=run_search, warm_up=warm_up),
            self._pool(settings.niceness, settings.job_memory_bytes)
            if self.cluster is None
            else executor_factory(settings.executor),
            services.metrics,
        )
        self._cleanup = Cleanup(services.store, services.audit, blobs, services.holding, settings)
        services.running = Running(
            blobs=blobs, dispatcher=dispatcher, helpers=helpers, imports=Turns(range(IMPORTS), IMPORTS - 1, IMPORTS)
        )
        self._cleanup.start()
        if settings.blobs_url is None:  # an object store checks its own
            self._scrubber = Scrubber(services.store, blobs, services.metrics, settings.scrub_days)
            self._scrubber.start()
        if settings.webhook_url is not None and settings.webhook_secret is not None:
            secret = settings.webhook_secret.get_secret_value()
            self._webhook = Webhook(Outbox(self.database), settings.webhook_url, secret, services.metrics)
            self._webhook.start()
        if self._later is not None:
            self._later.start()
        dispatcher.start()
        helpers.start()
        log.info("service.started", data_dir=str(settings.data_dir), plans_taken_up=len(taken_up))

    def begin_stop(self) -> None:
        """Say that the service is to stop: long waits end, and running plans; for handlers of signals, too."""
        self.services.draining.set()
        if self.services.running is not None:
            self.services.running.dispatcher.begin_stop(self.settings.shutdown_s)

    def stop(self) -> None:
        """Queue running plans again and end all processes."""
        services = self.services
        self.begin_stop()
        if self._cleanup is not None:
            self._cleanup.stop()
            self._cleanup = None
        if self._scrubber is not None:
            self._scrubber.stop()
            self._scrubber = None
        if self._webhook is not None:
            self._webhook.stop()
            self._webhook = None
        if self._later is not None:
            self._later.stop()
            self._later = None
        if services.running is not None:
            services.running.dispatcher.stop(self.settings.shutdown_s)
            services.running.helpers.close()
            services.running = None
        services.bodies.close()
        self.database.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        log.info("service.stopped")

    def _blobs(self) -> Blobs:
        return open_blobs(self.settings.data_dir / "blobs", self.settings.blobs_url)

    def _pool(self, niceness: int, memory_bytes: int | None) -> Callable[[], Executor]:
        return lambda: process_pool(1, niceness, self.settings.log_level, memory_bytes, PRELOADED)


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
