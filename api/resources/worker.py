"""What a worker process runs: the search for a queued plan or front."""

from __future__ import annotations

from api.jobs.attempts import Attempt, Job, Outcome, run_attempt
from api.resources.fronts.searching import search_front
from api.resources.plans.searching import search_plan
from solvers import solver_class

__all__ = ["run_search", "warm_up"]


def run_search(job: Job) -> Outcome:
    """Search for a claimed plan or front and write how it ends to the store."""
    return run_attempt(job, _search)


def warm_up() -> None:
    """Load what most searches need."""
    solver_class("auto")


def _search(attempt: Attempt) -> Outcome:
    attempt.lease.begin()
    task = attempt.lease.load()
    return search_front(attempt, task) if task.kind == "front" else search_plan(attempt, task)
