"""What a worker process runs: whatever is queued."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from api.jobs.attempts import Attempt, Job, Outcome, run_attempt
from api.report.summary import summary_text
from api.resources.fronts.searching import search_front
from api.resources.mixtures.mixing import find_mixture
from api.resources.plans.searching import search_plan
from api.resources.replans.replanning import make_replan
from api.resources.requests import request_of
from api.resources.schemas import PlanBody
from api.resources.simulations.simulating import run_simulation
from solvers import Study, solver_class
from traces import load

__all__ = ["run_search", "warm_up"]

WARM_UP_S = 10.0
KINDS = {
    "plan": search_plan,
    "front": search_front,
    "replan": make_replan,
    "simulation": run_simulation,
    "mixture": find_mixture,
}


def run_search(job: Job) -> Outcome:
    """Run what was claimed and write how it ends to the store."""
    return run_attempt(job, _search)


def warm_up() -> None:
    """Search for a tiny plan: what that loads and compiles, the first plan of a tenant would wait for."""
    solver_class("auto")
    ids = (np.arange(64)[:, None, None] + np.arange(2)[:, None] + np.arange(2)) % 8
    body = {"trace": "sha256:" + "0" * 64, "topology": "1x2", "solver": "annealing", "limits": {"work": 100}}
    request = request_of(PlanBody.model_validate(body), WARM_UP_S)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.npz"
        np.savez(path, topk_ids=ids.astype(np.uint8), layer_ids=np.arange(2), num_experts=np.array(8))
        study = Study.of(load(path), request=request, workers=1)
        solution = study.solve(workers=1)
        summary_text(study, solution, study.compare(plan=solution.plan, workers=1))


def _search(attempt: Attempt) -> Outcome:
    attempt.lease.begin()
    task = attempt.lease.load()
    return KINDS[task.kind](attempt, task)
