"""ExFlow's integer programme."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pulp
import pytest

from placement import Constraints, Objective, Problem, Topology
from solvers import Limits, solve
from solvers.exflow_ilp import ExflowIlp
from solvers.exflow_model import _outcome, solve_model
from traces import Profile, Trace, load


def problem(layers: int = 3, experts: int = 6, noise: float = 0.2, gpus: int = 2, slots: int = 0) -> Problem:
    """Tokens that keep their expert but for noise."""
    rng = np.random.default_rng(4)
    base = rng.integers(0, experts, (300, 1))
    ids = np.where(rng.random((300, layers)) < noise, rng.integers(0, experts, (300, layers)), base)
    return Problem(Profile.of(Trace.of(ids[:, :, None], num_experts=experts)), Topology.of((gpus,)), slots)


def test_proven_optimum_closes_the_gap() -> None:
    """On a flat topology the optimum of the programme is the optimum of the problem."""
    found = solve(problem(), "exflow_ilp", limits=Limits(time_s=30))
    assert found.termination.reason == "optimal"
    assert found.plan.score == found.plan.bound
    other = solve(problem(), "annealing", limits=Limits(work=10**6)).plan.score
    assert other is not None
    assert found.plan.score is not None
    assert found.plan.score <= other + 1e-12


def test_a_chain_without_crossings_is_found() -> None:
    """Without noise every token can stay where it is."""
    assert solve(problem(noise=0.0), "exflow_ilp", limits=Limits(time_s=30)).plan.score == 0.0


def test_empty_slots_give_no_bound() -> None:
    """Equal counts that leave slots empty say nothing about plans that fill them unevenly."""
    given = problem(experts=4, slots=4)
    found = solve(given, "exflow_ilp", limits=Limits(time_s=30))
    best = solve(given, "annealing", limits=Limits(work=10**5)).plan.score
    assert best is not None
    assert found.plan.bound is not None
    assert found.plan.bound <= best


def test_too_large_a_model_is_refused_with_its_size() -> None:
    """The reason names sizes and limit."""
    reason = ExflowIlp(max_rows=100).supports(problem()) or ""
    assert "3 layers of 6 experts on 2 GPUs need 144 rows" in reason
    assert "100" in reason


def test_dispatch_is_refused() -> None:
    """The model follows tokens from layer to layer."""
    given = problem()
    dispatch = Problem(given.profile, given.topology, objective=Objective(execution="dispatch"))
    assert "context_coherent" in (ExflowIlp().supports(dispatch) or "")


def test_cancel_leaves_no_process_and_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever PuLP started and wrote is gone after a cancel."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    interrupt = threading.Event()
    timer = threading.Timer(1.5, interrupt.set)
    timer.start()
    hard = problem(layers=4, experts=12, noise=0.9, gpus=4)
    solve(hard, "exflow_ilp", limits=Limits(time_s=60), interrupt=interrupt)
    timer.cancel()
    assert interrupt.is_set(), "the model was solved before it could be cancelled"
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert list(tmp_path.iterdir()) == []


def test_time_limit_keeps_the_plan_in_order() -> None:
    """A limit that is too short for any solution still gives a plan, not proven."""
    begin = time.monotonic()
    found = solve(problem(layers=4, experts=12, noise=0.9, gpus=4), "exflow_ilp", limits=Limits(time_s=0.3))
    assert time.monotonic() - begin < 0.6
    assert found.termination.reason == "feasible"
    assert found.termination.limit == "time"


def test_relaxation_that_work_cuts_short_is_no_plan() -> None:
    """A work limit ends the root of a large model soon; its fractions are not taken for a plan."""
    sample = Path(__file__).parents[2] / "examples" / "tiny_moe" / "tiny_moe.npz"
    large = Problem(Profile.of(load(sample)), Topology.of((4,)))
    found = solve(large, "exflow_ilp", limits=Limits(work=50))
    assert found.termination.limit == "work"
    assert found.plan.score == solve(large, "contiguous").plan.score


def test_failure_of_the_solver_keeps_the_plan_and_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child that dies is reported in the termination."""
    broken = tmp_path / "broken.py"
    broken.write_text("raise OSError('no solver here')\n")
    monkeypatch.setattr("solvers.exflow_ilp.PROGRAM", broken)
    found = solve(problem(), "exflow_ilp", limits=Limits(time_s=10))
    assert "no solver here" in found.termination.detail
    assert found.plan.score is not None


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
def test_at_most_count_experts_where_they_do_not_divide() -> None:
    """Five experts on two GPUs of three slots: no GPU gets more than three."""
    outcome = solve_model(np.ones((1, 5, 5), np.int64), 2, 3, equal=False)
    assert max(np.bincount(row).max() for row in outcome["gpu"]) == 3


@pytest.mark.skipif(not hasattr(pulp, "LpSolutionOptimal"), reason="PuLP 4 tells a proof from a solution")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LpSolutionOptimal", "optimal"),
        ("LpSolutionIntegerFeasible", "feasible"),
        ("LpSolutionNoSolutionFound", "none"),
    ],
)
def test_optimal_status_without_proof_is_only_feasible(name: str, expected: str) -> None:
    """PuLP 3 calls a solution at the time limit "Optimal"; its solution status decides."""
    sol_status = getattr(pulp, name)
    model = SimpleNamespace(status=pulp.LpStatusOptimal, sol_status=sol_status)
    assert _outcome(model, pulp.LpStatusOptimal) == expected


def test_load_cap_is_scored_but_not_modelled() -> None:
    """With a cap the crossings' optimum remains a bound, and a missed cap is reported."""
    given = problem()
    capped = Problem(given.profile, given.topology, constraints=Constraints(load_cap=1.0))
    found = solve(capped, "exflow_ilp", limits=Limits(time_s=30))
    assert found.plan.bound is not None
    assert found.plan.score is not None
    assert found.plan.bound <= found.plan.score
    assert found.plan.warnings
