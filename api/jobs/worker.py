"""What runs in a worker: one plan, from the claim to its end, with the store as the only channel.

A worker may be a process on this machine or anywhere else where the database and the blobs can be reached: it gets a
`Job`, which pickles, and returns a short outcome.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.figures import expected_load
from api.fronts import front_document, measure_front
from api.http.problems import document
from api.planning import PlanRequest, Prepared, prepare, run, summarise
from api.resources.plans.parsing import plan_request, translate
from api.resources.schemas import FrontBody, PlanBody
from api.resources.traces.inspection import open_stored
from api.service.gauges import PlanLoad
from api.store.blobs import open_blobs
from api.store.database import Database
from api.store.leases import Claim, Lease, StaleAttemptError, Task
from placement import Plan
from solvers import Event, NoPlanError, Solution, front, solver_class
from traces import Batch, InputError, Trace
from traces.support.temporary import held_folder

__all__ = ["Job", "Outcome", "run_plan", "warm_up"]

TICK_S = 0.25  # how often news are written, at most, and how soon a cancellation is noticed
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A claimed plan and where to find everything; without a folder of blobs, the job fetches what it needs."""

    claim: Claim
    database_url: str
    blobs: Path | None
    blobs_url: str | None
    lease_s: float
    threads: int | None
    max_time_limit_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended; None as status if the plan was no longer its own."""

    status: str | None
    solver: str = ""
    elapsed_s: float = 0.0
    load: PlanLoad | None = None


class _InterruptedError(Exception):
    """The plan was cancelled, or given to another, while the trace was read."""


class _Reporter:
    """The thread that keeps the lease, tells the store the news, and hears of a cancellation.

    Parameters
    ----------
    lease : Lease
    """

    def __init__(self, lease: Lease) -> None:
        self.interrupt = threading.Event()
        self.cancelled = self.stale = self.overtime = False
        self.deadline: float | None = None
        self.prepared: Prepared | None = None
        self._lease = lease
        self._lock = threading.Lock()
        self._news: Event | None = None
        self._incumbent: Event | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def observe(self, event: Event) -> None:
        """Take note of an event; called by the search."""
        with self._lock:
            self._news = event
            if event.table is not None:
                self._incumbent = event

    def watched(self, trace: Trace) -> Trace:
        """Return the trace; reading it ends when the plan is to stop."""
        read = trace.read

        def read_watched(max_tokens: int) -> Iterator[Batch]:
            for batch in read(max_tokens):
                if self.interrupt.is_set():
                    raise _InterruptedError
                yield batch

        return replace(trace, read=read_watched)

    def _run(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(TICK_S):
            try:
                if self._flush():
                    renewed = time.monotonic()
                elif time.monotonic() - renewed > self._lease.lease_s / 4:
                    self._lease.renew()
                    renewed = time.monotonic()
                if not self.cancelled and self._lease.cancelled():
                    self.cancelled = True
                    self.interrupt.set()
            except StaleAttemptError:
                self.stale = True
                self.interrupt.set()
                return
            except SQLAlchemyError:
                log.exception("store.unreachable")  # the next tick tries again; meanwhile the lease may run out
            if self.deadline is not None and time.monotonic() > self.deadline and not self.interrupt.is_set():
                self.overtime = True
                self.interrupt.set()

    def _flush(self) -> bool:
        with self._lock:
            news, incumbent = self._news, self._incumbent
            self._news = self._incumbent = None
        if news is None:
            return False
        plan = None
        if incumbent is not None and self.prepared is not None:
            plan = to_json(_incumbent_plan(self.prepared, incumbent, news.bound))
        self._lease.report(score=news.score, bound=news.bound, elapsed_s=news.elapsed_s, plan=plan)
        return True


def run_plan(job: Job) -> Outcome:
    """Search for a claimed plan and write how it ends to the store.

    Parameters
    ----------
    job : Job

    Returns
    -------
    Outcome
    """
    if job.blobs is None:
        with held_folder() as folder:
            return run_plan(replace(job, blobs=folder))
    lease = Lease(_database(job.database_url), job.claim, job.lease_s)
    structlog.contextvars.bind_contextvars(plan=job.claim.plan_id, attempt=job.claim.attempt)
    log.info("plan.started")
    try:
        with _Reporter(lease) as reporter:
            try:
                outcome = _search(job, lease, reporter)
            except _InterruptedError:
                outcome = _stopped(lease, reporter)
            except NoPlanError as error:
                outcome = _no_plan(lease, reporter, error)
            except InputError as error:
                violations = translate(error).violations
                outcome = _fail(lease, "invalid-request", violations[0].detail, violations)
            except MemoryError:
                log.exception("plan.out_of_memory")
                outcome = _fail(lease, "out-of-memory", "The search needs more memory than there is.")
            except StaleAttemptError:
                raise
            except Exception:
                log.exception("plan.failed")
                outcome = _fail(lease, "internal-error", "The search failed by a fault of the program.")
    except StaleAttemptError:
        outcome = Outcome(status=None)
    log.info("plan.ended", status=outcome.status, elapsed_s=outcome.elapsed_s)
    structlog.contextvars.unbind_contextvars("plan", "attempt")
    return outcome


def warm_up() -> None:
    """Load what most plans need."""
    solver_class("auto")


def to_json(plan: Plan) -> str:
    """Return the text of a plan file."""
    return json.dumps(plan.as_dict(), allow_nan=False) + "\n"


def _search(job: Job, lease: Lease, reporter: _Reporter) -> Outcome:
    lease.begin()
    task = lease.load()
    if task.kind == "front":
        return _search_front(job, lease, reporter, task)
    body = PlanBody.model_validate(task.request)
    request = plan_request(body, job.max_time_limit_s)
    # After a restart the search goes on from its best plan, unless seed and work limit promise a result of their own.
    first = task.start if request.limits.deterministic else task.best or task.start
    if first is not None:
        request = replace(request, start=Plan.from_dict(first))
    prepared = _prepare(job, reporter, task, request)
    reporter.prepared = prepared
    reporter.deadline = time.monotonic() + job.max_time_limit_s
    solution = run(prepared, request, observe=reporter.observe, workers=job.threads, interrupt=reporter.interrupt)
    if reporter.stale:
        raise StaleAttemptError
    plan = _final_plan(solution, reporter, job.max_time_limit_s)
    text = to_json(plan)
    lease.report(score=plan.score, bound=plan.bound, elapsed_s=solution.elapsed_s, plan=text)
    summary, warnings = None, list(plan.warnings)
    if not reporter.cancelled:
        reporter.deadline = None
        if reporter.overtime:
            reporter.interrupt.clear()
        try:
            summary = summarise(prepared, {"plan": plan}, request, workers=job.threads)
        except _InterruptedError:
            warnings.append("There is no summary: the plan was cancelled before it was made.")
        except (InputError, MemoryError) as error:
            warnings.append(f"There is no summary: {error or 'not enough memory'}")
    assert plan.termination is not None
    status = "cancelled" if reporter.cancelled else "succeeded"
    lease.finish(
        status,
        values={
            "score": plan.score,
            "bound": plan.bound,
            "elapsed_s": solution.elapsed_s,
            "termination": asdict(plan.termination),
            "warnings": warnings,
        },
        plan=text,
        summary=None if summary is None else json.dumps(summary, allow_nan=False),
    )
    return Outcome(
        status=status, solver=body.solver, elapsed_s=solution.elapsed_s, load=_load(job, task, prepared, plan)
    )


def _load(job: Job, task: Task, prepared: Prepared, plan: Plan) -> PlanLoad:
    load = prepared.problem.profile.load
    return PlanLoad(
        tenant=task.tenant,
        plan=job.claim.plan_id,
        trace=task.request["trace"],
        imbalance=expected_load(prepared.problem, plan)["imbalance_max_over_mean"],
        hottest_share=float((load / load.sum(axis=1, keepdims=True)).max()),
        gap=plan.gap,
    )


def _prepare(job: Job, reporter: _Reporter, task: Task, request: PlanRequest) -> Prepared:
    trace_id = task.request["trace"]
    assert job.blobs is not None
    if not job.blobs.is_dir():
        detail = "The worker can't see the folder of the traces."
        remedy = "Share it with every worker under the same path, or set MOE_PLACEMENT_BLOBS_URL."
        raise InputError.of("blobs_unreachable", "/trace", detail, remedy)
    source = open_stored(open_blobs(job.blobs, job.blobs_url).fetch(trace_id), trace_id, task.trace_name, task.facts)
    if isinstance(source, Trace):
        source = reporter.watched(source)
    prepared = prepare(source, request, workers=job.threads)
    if reporter.interrupt.is_set():
        raise _InterruptedError
    return prepared


def _search_front(job: Job, lease: Lease, reporter: _Reporter, task: Task) -> Outcome:
    body = FrontBody.model_validate(task.request)
    start = None if task.start is None else Plan.from_dict(task.start)
    request = plan_request(body, job.max_time_limit_s, start)
    prepared = _prepare(job, reporter, task, request)
    reporter.deadline = time.monotonic() + job.max_time_limit_s
    found = front(
        prepared.problem,
        solver=request.solver,
        options=dict(request.options),
        limits=request.limits,
        points=body.points,
        seed=request.seed,
        start=request.start,
        against=body.against,
        num_groups=body.num_groups,
        interrupt=reporter.interrupt,
        workers=job.threads,
    )
    if reporter.stale:
        raise StaleAttemptError
    reporter.deadline = None
    reporter.interrupt.clear()  # judging the points comes after the search, which is over
    document = front_document(prepared, found, measure_front(prepared, found, workers=job.threads))
    content = {"front": document, "plans": [to_json(point.plan) for point in found.points]}
    status = "cancelled" if reporter.cancelled else "succeeded"
    warnings = [f"The service ends every search after {job.max_time_limit_s:g} s."] if reporter.overtime else []
    lease.finish(
        status,
        values={"elapsed_s": found.elapsed_s, "warnings": warnings},
        plan=json.dumps(content, allow_nan=False),
    )
    return Outcome(status=status, solver=body.solver, elapsed_s=found.elapsed_s)


def _final_plan(solution: Solution, reporter: _Reporter, max_time_limit_s: float) -> Plan:
    if not (reporter.overtime and solution.termination.limit == "cancelled"):
        return solution.plan
    detail = f"The service ends every search after {max_time_limit_s:g} s."
    return solution.plan.replacing(
        termination=replace(solution.termination, limit="time", detail=detail, deterministic=False),
        warnings=(*solution.plan.warnings, detail),
    )


def _stopped(lease: Lease, reporter: _Reporter) -> Outcome:
    if reporter.stale or not reporter.cancelled:
        raise StaleAttemptError
    lease.finish("cancelled", values={})
    return Outcome(status="cancelled")


def _no_plan(lease: Lease, reporter: _Reporter, error: NoPlanError) -> Outcome:
    if reporter.stale:
        raise StaleAttemptError
    termination = asdict(error.termination)
    if reporter.cancelled:
        lease.finish("cancelled", values={"termination": termination})
        return Outcome(status="cancelled")
    problem = document("no-plan", error.termination.detail)
    lease.finish("failed", values={"termination": termination, "error": problem})
    return Outcome(status="failed")


def _fail(lease: Lease, slug: str, detail: str, errors: Any = ()) -> Outcome:
    lease.finish("failed", values={"error": document(slug, detail, errors)})
    return Outcome(status="failed")


def _incumbent_plan(prepared: Prepared, event: Event, bound: float | None) -> Plan:
    assert event.table is not None
    return prepared.problem.plan(event.table, score=event.score, bound=bound)


@cache
def _database(url: str) -> Database:
    """Return this process's connection; jobs of one worker share it."""
    return Database(url)
