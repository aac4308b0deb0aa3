"""ExFlow's integer linear programmes, the published baseline for inter-layer affinity.

References
----------
ExFlow, arXiv 2401.08383, section IV; ``docs/methods/exflow.md``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import pack
from solvers.arrange.in_order import in_order
from solvers.methods.exflow.cp_sat import solve_with_cp_sat
from solvers.methods.exflow.program import solve_steps
from solvers.methods.exflow.steps import Form, steps_of
from solvers.searching.search import Search
from traces import Violations

__all__ = ["Exflow"]

POLL_S = 0.05  # between two looks at the search: a twentieth of the second in which it is to end when cancelled
RESERVE_S = 0.3  # to read the outcome and to score the plan within the time limit; chosen by trial
PROGRAM = Path(__file__).with_name("program.py")


@dataclass(frozen=True, kw_only=True)
class Exflow:
    """ExFlow's ILP over the affinity matrix: crossings between layers, equal counts, every hop at cost 1.

    Summing its token variables into pairs gives the same objective, whatever the length of the trace. Load is not in
    the model, nor are different hop costs; the plan is scored under the problem's own objective.

    Attributes
    ----------
    form : {"flat", "staged", "bisection"}
        ``flat``: one model over all GPUs, the only form that proves something about the plan. ``staged``: experts to
        nodes, then those of each node to its GPUs. ``bisection``: GPUs in halves, then each half, and so on.
    backend : {"pulp", "cp_sat"}
        Library that solves the models: PuLP with the solver it comes with, or OR-Tools' CP-SAT.
    max_rows : int
        Largest model to try, in crossing rows ``(L - 1) n^2 P`` for n experts on P parts.
    """

    form: Form = "flat"
    backend: Literal["pulp", "cp_sat"] = "pulp"
    max_rows: int = 40_000

    name: ClassVar[str] = "exflow"
    summary: ClassVar[str] = (
        "ExFlow's integer programmes (arXiv 2401.08383): fewest crossings, equal counts; small models only."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if self.max_rows < 1:
            found.add("option_range", "/options/max_rows", f"{self.max_rows} rows.", "Give at least 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Context-coherent problems without constraints on places, small enough for an ILP."""
        if problem.objective.execution != "context_coherent":
            return "its model is the path of a token from layer to layer (execution 'context_coherent')."
        if not problem.is_free:
            return "it knows no pins, exclusions, groups or uneven slots."
        L, steps = problem.num_layers, steps_of(problem, self.form)
        largest = max(steps, key=lambda step: step.rows(L), default=None)
        if largest is not None and (rows := largest.rows(L)) > self.max_rows:
            parts = f"{len(largest.parts)} {'GPUs' if self.form == 'flat' else 'parts'}"
            return (
                f"{L} layers of {largest.experts} experts on {parts} need {rows:,} rows, more than "
                f"max_rows = {self.max_rows:,}; integer programming does not scale to that."
            )
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan in order, then that of the models."""
        search.offer(in_order(problem, search))
        affinity = problem.profile.affinity
        assert affinity is not None
        if not affinity.any() or problem.num_gpus == 1:
            return
        outcome = self._solve(problem, search)
        if outcome is None:
            return
        if outcome["status"] != "none":
            self._offer(problem, search, outcome)
        if outcome["status"] != "optimal" and search.work is not None:
            search.progress(search.work)
        elif outcome["status"] != "optimal":
            # The clock ended it, a moment early; the search ends with its limit.
            while (left := search.remaining_s) is not None and left < 2 * RESERVE_S and not search.done:
                time.sleep(POLL_S / 5)

    def _offer(self, problem: Problem, search: Search, outcome: dict[str, Any]) -> None:
        """Offer the plan, and its bound if a model over all GPUs proves one."""
        affinity = problem.profile.affinity
        assert affinity is not None
        gpu = np.array(outcome["gpu"])
        experts = np.tile(np.arange(problem.num_experts), (problem.num_layers, 1))
        search.offer(pack(experts, gpu, problem.num_gpus, problem.slots_per_gpu), 1)
        whole = self.form == "flat" or (self.form == "staged" and problem.topology.num_nodes == 1)
        room = problem.num_slots == problem.num_experts or problem.num_experts % problem.num_gpus > 0
        if outcome["status"] == "optimal" and whole and room:
            # Every crossing costs at least the cheapest hop, other terms are never negative, and a fair split over
            # replicas is an average of plans without replicas. Where equal counts leave slots empty, others may cross
            # less.
            hop = problem.topology.hop_cost[~np.eye(problem.num_gpus, dtype=bool)].min()
            search.bound(problem.objective.traffic_weight * float(hop) * outcome["crossings"] / float(affinity.sum()))

    def _solve(self, problem: Problem, search: Search) -> dict[str, Any] | None:
        """Return the outcome of the models; None if none was solved in time."""
        assert problem.profile.affinity is not None
        remaining = search.remaining_s
        settings: dict[str, Any] = {
            "steps": [step.settings() for step in steps_of(problem, self.form)],
            "deadline": None if remaining is None else time.time() + remaining - RESERVE_S,
            "work": search.work,
            # A parallel search may end in another optimum; only a clock allows that.
            "threads": 1 if remaining is None else search.workers,
        }
        if self.backend == "pulp":
            return _in_own_process(problem.profile.affinity, settings, search)
        last = None
        for outcome in solve_steps(problem.profile.affinity, solve=partial(solve_with_cp_sat, search), **settings):
            last = outcome
            if search.done:
                break
        return last


def _in_own_process(affinity: npt.NDArray[np.int64], settings: dict[str, Any], search: Search) -> dict[str, Any] | None:
    """Run the models in a process of their own; None if it is stopped before the first one is solved."""
    with TemporaryDirectory(prefix="exflow-") as name:
        folder = Path(name)
        np.savez(folder / "model.npz", affinity=affinity)
        (folder / "model.json").write_text(json.dumps(settings))
        with (folder / "log").open("wb") as log:
            # A session of its own: killing its group also ends the solver that PuLP starts.
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-P", str(PROGRAM), name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                while process.poll() is None and not search.done:
                    time.sleep(POLL_S)
            finally:
                _kill(process)
        if process.returncode > 0:
            last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"the ILP solver failed: {' '.join(last) or f'exit code {process.returncode}'}")
        if (folder / "outcome.json").exists():
            outcome: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
            return outcome
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process group, if it still runs, and reap it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
