"""Running plans: lanes that take them from the store and hand them to an executor, one at a time each.

The queue is the store, so nothing is lost with the process. An executor is anything of ``concurrent.futures``; the
embedded one is a pool of a single process per lane, so that a worker that dies takes no other plan with it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.jobs.attempts import Job, Outcome
from api.jobs.errors import ExecutorLostError
from api.jobs.processes import kill
from api.jobs.wants import OVERDUE_S, Patience, Wants
from api.jobs.work import DispatcherSettings, Work
from api.problems import document
from api.store.leases import Claim, Leases, StaleAttemptError
from api.telemetry.metrics import Metrics
from traces import InputError

__all__ = ["Dispatcher"]

IDLE_S = 1.0  # how often an idle lane looks for plans that nobody announced
POLL_S = 0.5
LANE_S = 2.0  # a lane's last look at its plan, and the store's at the lease
RETRY_S = 5.0  # how soon an executor that can't be reached is tried again
GRACE_S = 15.0  # a worker that should stop and does not is ended after so long
HAND_OVER_S = 1.0  # so long where others wait for it
WORKER_DIED = "The process that searched died {} times, out of memory most likely."
NOT_RUN = "No worker could run the plan, {} times: {}."
LOST = "The connection to the cluster was lost."
log = structlog.get_logger(__name__)


class Dispatcher:
    """The lanes.

    Parameters
    ----------
    settings, leases, work : DispatcherSettings, Leases, Work
    make_executor : callable
        Returns a new executor, for one lane.
    metrics : Metrics
    """

    def __init__(
        self,
        settings: DispatcherSettings,
        leases: Leases,
        work: Work,
        make_executor: Callable[[], Executor],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._leases = leases
        self._work = work
        self._make_executor = make_executor
        self._metrics = metrics
        self._stopping = threading.Event()
        self._deadline = math.inf
        self._busy: set[int] = set()  # lanes for any plan that run one
        self._troubles: dict[str, str] = {}  # of lanes that have no executor
        self._wants = Wants(settings.lanes - 1 if settings.shared and settings.lanes > 1 else None)
        short = [False] * settings.lanes + [True] * settings.short_lane
        self._announced = [threading.Event() for _ in short]
        self._lanes = [
            threading.Thread(target=self._lane, args=(number, kind), name=f"lane-{number}", daemon=True)
            for number, kind in enumerate(short)
        ]
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)

    def start(self) -> None:
        """Begin to run plans."""
        for thread in (*self._lanes, self._reaper):
            thread.start()

    def announce(self) -> None:
        """Say that a plan waits."""
        for lane in self._announced:
            lane.set()

    @property
    def alive(self) -> bool:
        """Whether plans are run."""
        return not self._stopping.is_set() and all(lane.is_alive() for lane in self._lanes)

    @property
    def trouble(self) -> str | None:
        """Why plans are not run, though they are taken; None if they are."""
        if not self.alive:
            return "No plans are run."
        return next(iter(self._troubles.copy().values()), None)

    def begin_stop(self, timeout_s: float) -> None:
        """Begin to queue the running plans again; for handlers of signals, too: it waits for nothing."""
        self._deadline = min(self._deadline, time.monotonic() + timeout_s)
        self._stopping.set()

    def stop(self, timeout_s: float) -> None:
        """Queue running plans again, the best of each kept, and end the workers, `timeout_s` after `begin_stop`."""
        self.begin_stop(timeout_s)
        self.announce()
        for lane in self._lanes:
            lane.join(max(0.0, self._deadline - time.monotonic()) + LANE_S)

    def _reap(self) -> None:
        while not self._stopping.wait(max(1.0, self._settings.lease_s / 4)):
            try:
                for plan_id in self._leases.give_back_expired():
                    log.warning("plan.lease_expired", plan=plan_id)
                    self.announce()
            except SQLAlchemyError:
                self._unreachable()

    def _lane(self, number: int, short: bool) -> None:
        while short and len(self._busy) < self._settings.lanes and not self._stopping.wait(IDLE_S / 4):
            pass  # as long as the other lanes suffice, it costs no process
        executor = self._warm_executor(short)
        while executor is not None and not self._stopping.is_set():
            if getattr(executor, "lost", False):  # noticed without a plan, which would have to wait for the next one
                log.error("executor.lost")
                self._troubles[threading.current_thread().name] = LOST
                kill(executor)
                executor = self._warm_executor(short)
                continue
            self._announced[number].clear()  # before the look: what comes meanwhile is not overlooked
            try:
                claim = self._leases.claim(self._wants.of(short=short))
            except SQLAlchemyError:
                self._unreachable()
                self._stopping.wait(IDLE_S)
                continue
            if claim is None:
                if not self._stopping.is_set():
                    self._announced[number].wait(IDLE_S)
                continue
            if not short:
                self._busy.add(number)
            try:
                healthy = self._run(executor, claim, short)
            except Exception:
                log.exception("lane.failed", plan=claim.plan_id)  # the lease gives the plan back
                healthy = False
            finally:
                self._busy.discard(number)
            if not healthy:
                kill(executor)
                if self._stopping.is_set():
                    return
                executor = self._warm_executor(short)
        if executor is not None:
            kill(executor)  # it is idle: to end in order takes it seconds, and is of use to nobody

    def _warm_executor(self, ready: bool) -> Executor | None:
        """Return a new executor, as soon as there is one; None if the lane is to stop.

        With `ready`, it is returned when its process is: meanwhile other lanes may take the plans, and sooner.
        """
        lane = threading.current_thread().name
        while not self._stopping.is_set():
            try:
                executor = self._make_executor()
            except (OSError, InputError) as error:
                log.error("executor.unreachable", reason=str(error))
                self._troubles[lane] = error.violations[0].detail if isinstance(error, InputError) else str(error)
                self._stopping.wait(RETRY_S)
                continue
            self._troubles.pop(lane, None)
            with suppress(BrokenExecutor):  # the first plan notices as well
                warm = executor.submit(self._work.warm_up)  # so that it does not wait for a process to start
                while ready and not self._stopping.is_set() and not wait_for([warm], IDLE_S / 4).done:
                    pass
            return executor
        return None

    def _unreachable(self) -> None:
        log.exception("store.unreachable")
        self._metrics.store_errors.labels("queue").inc()

    def _run(self, executor: Executor, claim: Claim, short: bool) -> bool:
        """Run a plan to its end; False if the executor can't be used any more."""
        settings = self._settings
        job = Job(
            claim=claim,
            database_url=settings.database_url,
            blobs=settings.blobs,
            blobs_url=settings.blobs_url,
            lease_s=settings.lease_s,
            threads=settings.threads,
            max_time_limit_s=settings.max_time_limit_s,
            webhook=settings.webhook,
        )
        try:
            future = executor.submit(self._work.run, job)
        except BrokenExecutor:
            self._leases.give_back(claim)  # the worker had died before: not of this plan
            return False
        try:
            if not self._watch(future, claim, executor if short else None):
                self._leases.give_back(claim)
                return False
            outcome = future.result()
        except ExecutorLostError:
            self._leases.give_back(claim)
            log.error("executor.lost", plan=claim.plan_id, attempt=claim.attempt)
            return False
        except (BrokenExecutor, CancelledError):
            self._lost(claim, WORKER_DIED.format(settings.max_crashes))
            return False
        except SQLAlchemyError:
            raise  # the store's fault: the lease gives the plan back
        except Exception as error:
            log.exception("worker.unfit", plan=claim.plan_id, attempt=claim.attempt)
            self._lost(claim, NOT_RUN.format(settings.max_crashes, type(error).__name__))
            return False
        if outcome.status is None:
            self._lost(claim, WORKER_DIED.format(settings.max_crashes))
        if outcome.solver and outcome.status is not None:
            self._metrics.finished(outcome.solver, outcome.status, outcome.elapsed_s, outcome.load)
        return True

    def _lost(self, claim: Claim, detail: str) -> None:
        """Note that a worker died of an attempt, unless the attempt is over anyway.

        A cluster gives the task of a dead worker to another one, where the attempt finds itself begun and ends.
        """
        problem = document("worker-died", detail)
        status = self._leases.crashed(claim, self._settings.max_crashes, problem)
        if status is not None:
            self._metrics.worker_deaths.inc()
            log.error("worker.died", plan=claim.plan_id, attempt=claim.attempt, status=status)

    def _watch(self, future: Future[Outcome], claim: Claim, short: Executor | None) -> bool:
        """Wait for an attempt; False if it should have stopped and does not."""
        lease = self._leases.lease(claim)
        give_up: float | None = None
        patience: Patience | None = None
        held = time.monotonic()
        while not wait_for([future], POLL_S).done:
            now = time.monotonic()
            try:
                if self._stopping.is_set():
                    if give_up is None:
                        self._leases.give_back(claim)  # the worker notices, and stops
                    give_up = self._deadline
                elif give_up is None and lease.cancelled():
                    give_up = now if self._leases.hold(claim) else now + GRACE_S
                elif give_up is None and short is not None and patience is None:
                    patience = None if self._leases.hold(claim) else Patience(short, self._settings.threads, OVERDUE_S)
                elif give_up is None and patience is not None and patience.over():
                    give_up = now + HAND_OVER_S
                    self._wants.bar(claim.tenant)
                    self._leases.demote(claim)  # the worker notices, and stops
                    self.announce()
                elif give_up is None and now - held > self._settings.lease_s / 4:
                    held = now if self._leases.hold(claim) else math.inf  # whoever has begun it holds it from then on
            except StaleAttemptError:
                give_up = now + GRACE_S if give_up is None else give_up
            except SQLAlchemyError:
                self._unreachable()
            if give_up is not None and now > give_up:
                log.error("worker.unresponsive", plan=claim.plan_id, attempt=claim.attempt)
                return False
        return True
