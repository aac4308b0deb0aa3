"""One attempt at a claimed plan, from its begin to its end in the store, which is the only channel.

A worker may be a process on this machine or anywhere else where the database and the blobs can be reached: it gets a
`Job`, which pickles, and returns a short outcome. What it searches for is up to the function given to `run_attempt`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import structlog

from api.jobs.reporter import AttemptInterruptedError, Reporter
from api.problems import document
from api.store.database import Database
from api.store.leases import Claim, Lease, StaleAttemptError
from api.telemetry.gauges import PlanLoad
from solvers import NoPlanError
from traces import InputError
from traces.support.temporary import held_folder

__all__ = ["Attempt", "Job", "Outcome", "TookTooLongError", "run_attempt"]

log = structlog.get_logger(__name__)


class TookTooLongError(Exception):
    """The service's time limit has passed, and there is nothing to keep."""


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
    webhook: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended; None as status if the plan was no longer its own."""

    status: str | None
    solver: str = ""
    elapsed_s: float = 0.0
    load: PlanLoad | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a search works with.

    Attributes
    ----------
    job : Job
        Its folder of blobs is known here.
    blobs : Path
    lease : Lease
    reporter : Reporter
    """

    job: Job
    blobs: Path
    lease: Lease
    reporter: Reporter


def run_attempt(job: Job, search: Callable[[Attempt], Outcome]) -> Outcome:
    """Run a search and write how it ends to the store.

    Parameters
    ----------
    job : Job
    search : callable
        Begins the lease, writes the end of a search that succeeds or is cancelled, and returns the outcome. What it
        raises ends the attempt as cancelled or failed.

    Returns
    -------
    Outcome
    """
    if job.blobs is None:
        with held_folder() as folder:
            return run_attempt(replace(job, blobs=folder), search)
    lease = Lease(_database(job.database_url), job.claim, job.lease_s)
    structlog.contextvars.bind_contextvars(plan=job.claim.plan_id, attempt=job.claim.attempt)
    log.info("plan.started")
    try:
        with Reporter(lease) as reporter:
            attempt = Attempt(job=job, blobs=job.blobs, lease=lease, reporter=reporter)
            outcome = _ended(attempt, search)
    except StaleAttemptError:
        outcome = Outcome(status=None)
    log.info("plan.ended", status=outcome.status, elapsed_s=outcome.elapsed_s)
    structlog.contextvars.unbind_contextvars("plan", "attempt")
    return outcome


def _ended(attempt: Attempt, search: Callable[[Attempt], Outcome]) -> Outcome:
    lease, reporter = attempt.lease, attempt.reporter
    try:
        return search(attempt)
    except AttemptInterruptedError:
        return _stopped(lease, reporter)
    except TookTooLongError as error:
        return _fail(lease, "took-too-long", str(error))
    except NoPlanError as error:
        return _no_plan(lease, reporter, error)
    except InputError as error:
        return _fail(lease, "invalid-request", error.violations[0].detail, error.violations)
    except MemoryError:
        log.exception("plan.out_of_memory")
        return _fail(lease, "out-of-memory", "The search needs more memory than there is.")
    except StaleAttemptError:
        raise
    except Exception:
        log.exception("plan.failed")
        return _fail(lease, "internal-error", "The search failed by a fault of the program.")


def _stopped(lease: Lease, reporter: Reporter) -> Outcome:
    if reporter.overtime and not reporter.cancelled:
        return _fail(lease, "took-too-long", "Reading the trace took longer than a search may.")
    if reporter.stale or not reporter.cancelled:
        raise StaleAttemptError
    lease.finish("cancelled", values={})
    return Outcome(status="cancelled")


def _no_plan(lease: Lease, reporter: Reporter, error: NoPlanError) -> Outcome:
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


@cache
def _database(url: str) -> Database:
    """Return this process's connection; jobs of one worker share it."""
    return Database(url)
