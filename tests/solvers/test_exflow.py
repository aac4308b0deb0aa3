"""ExFlow's integer programmes: the objective, their forms and back ends, and how they stop."""

from __future__ import annotations

import itertools
import threading
import time
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
import pulp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from placement import Constraints, Problem, Topology
from solvers import Limits, Solution, solve
from solvers.arrange.shares import shares
from solvers.methods.exflow.cp_sat import solve_with_cp_sat
from solvers.methods.exflow.program import Solve, _outcome, crossings, solve_steps
from solvers.methods.exflow.solver import Exflow
from solvers.methods.exflow.steps import Form, Step, steps_of
from solvers.searching.search import Search
from tests.builders.problems import dispatch, problem_of
from tests.builders.traces import staying_ids, staying_trace
from traces import Profile, Trace, load

Ids = npt.NDArray[np.int64]
Backend = Literal["pulp", "cp_sat"]
LONG = Limits(time_s=60)
BACKENDS: tuple[Backend, ...] = ("pulp", "cp_sat")
FORMS: tuple[Form, ...] = ("flat", "staged", "bisection")


def problem(
    layers: int = 3, experts: int = 6, noise: float = 0.2, topology: str = "1x2", slots: int = 0, mixed: bool = False
) -> Problem:
    """Return a problem on top-1 tokens that keep their expert but for noise; `mixed` renames those of every layer."""
    return problem_of(staying_trace(4, 300, layers, experts, 1 - noise, mixed=mixed), topology, slots)


def affinity_of(given: Problem) -> Ids:
    """Return the affinity counts."""
    assert given.profile.affinity is not None
    return given.profile.affinity


def gpus_of(found: Solution) -> Ids:
    """Return the GPU of every expert, (L, E), of a plan with one replica of each."""
    plan = found.plan
    gpu = np.full((len(plan.layer_ids), plan.num_experts), -1)
    for layer, row in enumerate(plan.physical_to_logical_map):
        gpu[layer, row[row >= 0]] = np.flatnonzero(row >= 0) // plan.slots_per_gpu
    assert (gpu >= 0).all()
    return gpu


def splits(experts: int, counts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return all ways to give so many experts to each part."""
    ways = itertools.product(range(len(counts)), repeat=experts)
    return [way for way in ways if tuple(way.count(part) for part in range(len(counts))) == counts]


def fewest_crossings(affinity: Ids, counts: tuple[int, ...]) -> int:
    """Return the least number of pairs that cross, by a shortest path over all splits of every layer."""
    ways = np.array(splits(affinity.shape[1], counts))
    cost = np.zeros(len(ways), np.int64)
    for layer in affinity:
        step = np.array([[layer[a[:, None] != b[None, :]].sum() for b in ways] for a in ways])
        cost = (cost[:, None] + step).min(axis=0)
    return int(cost.min())


@settings(max_examples=40)
@given(data=st.data())
def test_crossings_of_pairs_are_the_tokens_crossings(data: st.DataObject) -> None:
    """Summing tokens into the affinity matrix leaves ExFlow's objective, the sum of R over tokens, as it is."""
    layers, experts, gpus = (data.draw(st.integers(*span)) for span in ((2, 4), (2, 7), (1, 4)))
    top_k, seed = data.draw(st.integers(1, min(2, experts))), data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    ids = rng.random((30, layers, experts)).argsort(axis=2)[:, :, :top_k]
    gpu = rng.integers(0, gpus, (layers, experts))
    per_token = 0
    for token in ids:
        for layer in range(layers - 1):
            for i, j in itertools.product(token[layer], token[layer + 1]):
                x = np.eye(gpus)[[gpu[layer, i], gpu[layer + 1, j]]]
                per_token += int(np.abs(x[0] - x[1]).max())  # the least R that the rows for all g allow
    affinity = Profile.of(Trace.of(ids, num_experts=experts)).affinity
    assert affinity is not None
    assert crossings(affinity, gpu) == per_token


def optimum_per_token(ids: Ids, experts: int, gpus: int) -> float:
    """Solve ExFlow's programme as printed, with a variable R for every token and boundary."""
    count, layers = ids.shape
    xs, rs = layers * experts * gpus, count * (layers - 1)
    rows, low, high = [], [], []

    def row(entries: dict[int, float], least: float, most: float) -> None:
        line = np.zeros(xs + rs)
        line[list(entries)] = list(entries.values())
        rows.append(line)
        low.append(least)
        high.append(most)

    def x(layer: int, i: int, g: int) -> int:
        return (layer * experts + i) * gpus + g

    for layer in range(layers):
        for i in range(experts):
            row({x(layer, i, g): 1 for g in range(gpus)}, 1, 1)
        for g in range(gpus):
            row({x(layer, i, g): 1 for i in range(experts)}, experts / gpus, experts / gpus)
    for (k, layer), g in itertools.product(itertools.product(range(count), range(layers - 1)), range(gpus)):
        here, there = x(layer, ids[k, layer], g), x(layer + 1, ids[k, layer + 1], g)
        r = xs + k * (layers - 1) + layer
        row({r: 1, here: -1, there: 1}, 0, np.inf)
        row({r: 1, here: 1, there: -1}, 0, np.inf)
    cost = np.r_[np.zeros(xs), np.ones(rs)]
    found = milp(
        cost, constraints=LinearConstraint(np.array(rows), low, high), integrality=np.ones(xs + rs), bounds=Bounds(0, 1)
    )
    assert found.status == 0
    return float(found.fun)


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_model_of_pairs_has_the_optimum_of_the_model_of_tokens(backend: Backend) -> None:
    """The programme with one R per token, solved by another library, has the same least crossings."""
    ids = staying_ids(4, 25, 3, 4, 0.5)
    outcome = last(problem_of(Trace.of(ids, num_experts=4), "1x2"), "flat", backend)
    assert outcome["status"] == "optimal"
    assert outcome["crossings"] == round(optimum_per_token(ids[:, :, 0].astype(np.int64), 4, 2))


def last(given: Problem, form: Form, backend: Backend) -> dict[str, Any]:
    """Solve the models of a form in this process, without limits."""
    steps = [step.settings() for step in steps_of(given, form)]
    *_, outcome = solve_steps(affinity_of(given), steps, solve=solver_of(backend, given))
    return outcome


def solver_of(backend: Backend, given: Problem) -> Solve | None:
    """Return what solves one model."""
    return None if backend == "pulp" else partial(solve_with_cp_sat, Search(given, Limits()))


@cache
def mixed() -> Problem:
    """Return three layers of six experts on three GPUs, in no order."""
    return problem(noise=0.2, topology="1x3", mixed=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_back_ends_find_the_enumerated_optimum(backend: Backend) -> None:
    """The flat model's plan has the fewest crossings of all plans with equal counts, and proves it."""
    found = solve(mixed(), Exflow(backend=backend), limits=LONG)
    fewest = fewest_crossings(affinity_of(mixed()), (2, 2, 2))
    assert crossings(affinity_of(mixed()), gpus_of(found)) == fewest
    assert found.termination.reason == "optimal"
    assert found.plan.bound == pytest.approx(fewest / affinity_of(mixed()).sum())


@pytest.mark.parametrize("backend", BACKENDS)
def test_stages_are_each_optimal(backend: Backend) -> None:
    """Nodes are split with the fewest crossings of all such splits; GPUs of a node likewise, given its experts."""
    given = problem(noise=0.5, topology="2x2", experts=8, mixed=True)
    gpu = gpus_of(solve(given, Exflow(form="staged", backend=backend), limits=LONG))
    affinity, node = affinity_of(given), gpu // 2
    assert crossings(affinity, node) == fewest_crossings(affinity, (4, 4))
    for number in range(2):
        members = [np.flatnonzero(row == number) for row in node]
        inner = np.stack([counts[np.ix_(*members[at : at + 2])] for at, counts in enumerate(affinity)])
        inside = np.stack([row[held] % 2 for row, held in zip(gpu, members, strict=True)])
        assert crossings(inner, inside) == fewest_crossings(inner, (2, 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("topology", "experts"), [("1x4", 8), ("2x2", 8), ("1x3", 6), ("2+1", 9), ("1x4", 7)])
def test_bisection_gives_balanced_plans(topology: str, experts: int, backend: Backend) -> None:
    """Every GPU gets its equal share of experts in every layer, whole where it divides; the top split is optimal."""
    given = problem(layers=2, noise=0.4, topology=topology, experts=experts, mixed=True)
    found = solve(given, Exflow(form="bisection", backend=backend), limits=LONG)
    gpu = gpus_of(found)
    counts = np.stack([np.bincount(row, minlength=given.num_gpus) for row in gpu])
    assert set(counts.ravel()) <= {experts // given.num_gpus, -(-experts // given.num_gpus)}
    top = steps_of(given, "bisection")[0]
    halves = (gpu >= top.parts[1]).astype(int)
    assert crossings(affinity_of(given), halves) == fewest_crossings(affinity_of(given), top.low)


@pytest.mark.parametrize("form", ["staged", "bisection"])
def test_forms_in_steps_prove_nothing(form: Form) -> None:
    """A plan of proven steps is not proven: its bound is the instant one, below what the flat model proves."""
    profile = problem(noise=0.5, mixed=True).profile
    given = Problem(profile, Topology.of((2, 1), rank_cost_matrix=1 - np.eye(3)))
    found = solve(given, Exflow(form=form, backend="cp_sat"), limits=LONG)
    flat = solve(given, Exflow(backend="cp_sat"), limits=LONG)
    assert flat.termination.reason == "optimal"
    assert found.termination.reason == "feasible"
    assert found.termination.limit is None
    assert found.plan.bound is not None
    assert flat.plan.bound is not None
    assert found.plan.bound < flat.plan.bound


def test_stages_on_one_node_are_the_flat_model() -> None:
    """Without a second node there is nothing to split first, and the model proves the plan."""
    assert steps_of(mixed(), "staged") == steps_of(mixed(), "flat")
    assert solve(mixed(), Exflow(form="staged"), limits=LONG).termination.reason == "optimal"


def test_steps_follow_the_nodes() -> None:
    """Nodes get experts in proportion to their slots; bisection cuts between nodes first."""
    given = problem(experts=12, topology="3+1")
    nodes, inside = steps_of(given, "staged")
    assert (nodes.parts, nodes.low, nodes.high) == ((0, 3), (9, 3), (9, 3))
    assert (inside.first, inside.experts, inside.parts, inside.low) == (0, 9, (0, 1, 2), (3, 3, 3))
    halves = steps_of(given, "bisection")
    assert [(step.first, step.parts, step.low) for step in halves] == [
        (0, (0, 3), (9, 3)),
        (0, (0, 1), (3, 6)),
        (1, (1, 2), (3, 3)),
    ]


@given(st.integers(0, 60), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_shares_are_proportional(total: int, sizes: list[int]) -> None:
    """Shares add up, and each is the exact one rounded down or up."""
    found = shares(total, tuple(sizes))
    assert sum(found) == total
    assert all(abs(share * sum(sizes) - total * size) < sum(sizes) for share, size in zip(found, sizes, strict=True))


@pytest.mark.parametrize(("form", "backend"), list(itertools.product(FORMS, BACKENDS)))
def test_work_gives_the_same_plan_on_any_number_of_cores(form: Form, backend: Backend) -> None:
    """A work limit cuts the search short, but not at random."""
    given = problem(layers=3, experts=8, noise=0.6, topology="2x2", mixed=True)
    solver = Exflow(form=form, backend=backend)
    one, two = (solve(given, solver, limits=Limits(work=2000), workers=workers).plan for workers in (1, 2))
    assert one.physical_to_logical_map.tolist() == two.physical_to_logical_map.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_a_chain_without_crossings_is_found(form: Form) -> None:
    """Without noise every token can stay where it is."""
    given = problem(noise=0.0, topology="2x2", experts=8, mixed=True)
    assert solve(given, Exflow(form=form, backend="cp_sat"), limits=LONG).plan.score == 0.0


def test_proven_optimum_is_not_beaten() -> None:
    """On a flat topology the optimum of the programme is the optimum of the problem."""
    found = solve(problem(), "exflow", limits=LONG)
    assert found.termination.reason == "optimal"
    assert found.plan.score == found.plan.bound
    other = solve(problem(), "annealing", limits=Limits(work=10**6)).plan.score
    assert other is not None
    assert found.plan.score is not None
    assert found.plan.score <= other + 1e-12


def test_empty_slots_give_no_bound() -> None:
    """Equal counts that leave slots empty say nothing about plans that fill them unevenly."""
    given = problem(experts=4, slots=4)
    found = solve(given, "exflow", limits=LONG)
    best = solve(given, "annealing", limits=Limits(work=10**5)).plan.score
    assert best is not None
    assert found.plan.bound is not None
    assert found.plan.bound <= best


def test_too_large_a_model_is_refused_with_its_size() -> None:
    """The reason names sizes and limit."""
    reason = Exflow(max_rows=100).supports(problem()) or ""
    assert "3 layers of 6 experts on 2 GPUs need 144 rows" in reason
    assert "100" in reason


def test_forms_in_steps_are_refused_by_their_largest_model() -> None:
    """What is too large at once may be small enough in steps."""
    given = problem(experts=8, topology="2x2")
    assert "512 rows" in (Exflow(max_rows=256).supports(given) or "")
    assert Exflow(max_rows=256, form="staged").supports(given) is None
    assert Exflow(max_rows=256, form="bisection").supports(given) is None
    assert "256 rows" in (Exflow(max_rows=255, form="bisection").supports(given) or "")


def test_dispatch_is_refused() -> None:
    """The model follows tokens from layer to layer."""
    given = problem()
    sent_home = Problem(given.profile, given.topology, objective=dispatch())
    assert "context_coherent" in (Exflow().supports(sent_home) or "")


def hard() -> Problem:
    """Return a problem that no integer programme solves in a minute."""
    return problem(layers=6, experts=16, noise=0.9, topology="1x4", mixed=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancel_leaves_no_process_and_no_file(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the libraries started and wrote is gone after a cancel."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {child.pid for child in psutil.Process().children()}  # not what a fork server of another test starts
    interrupt = threading.Event()
    timer = threading.Timer(1.5, interrupt.set)
    timer.start()
    begin = time.monotonic()
    solve(hard(), Exflow(backend=backend), limits=LONG, interrupt=interrupt)
    timer.cancel()
    assert interrupt.is_set(), "the model was solved before it could be cancelled"
    assert time.monotonic() - begin < 5
    assert {child.pid for child in psutil.Process().children()} <= before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMS)
def test_time_limit_keeps_the_plan_in_order(form: Form) -> None:
    """A limit that is too short for any solution still gives a plan, not proven."""
    begin = time.monotonic()
    found = solve(hard(), Exflow(form=form), limits=Limits(time_s=0.3))
    assert time.monotonic() - begin < 0.6
    assert found.termination.reason == "feasible"
    assert found.termination.limit == "time"


def test_steps_without_time_are_in_order() -> None:
    """A deadline that has passed leaves a valid plan in order, and says that nothing was solved."""
    given = problem(experts=8, topology="2x2", mixed=True)
    steps = [step.settings() for step in steps_of(given, "staged")]
    *_, outcome = solve_steps(affinity_of(given), steps, deadline=time.time() - 1)
    assert outcome["status"] == "none"
    assert outcome["gpu"] == [[0, 0, 1, 1, 2, 2, 3, 3]] * 3


def test_relaxation_that_work_cuts_short_is_no_plan() -> None:
    """A work limit ends the root of a large model soon; its fractions are not taken for a plan."""
    sample = Path(__file__).parents[2] / "examples" / "tiny_moe" / "tiny_moe.npz"
    large = Problem(Profile.of(load(sample)), Topology.of((4,)))
    found = solve(large, "exflow", limits=Limits(work=50))
    assert found.termination.limit == "work"
    assert found.plan.score == solve(large, "contiguous").plan.score


def test_failure_of_the_solver_keeps_the_plan_and_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child that dies is reported in the termination."""
    broken = tmp_path / "broken.py"
    broken.write_text("raise OSError('no solver here')\n")
    monkeypatch.setattr("solvers.methods.exflow.solver.PROGRAM", broken)
    found = solve(problem(), "exflow", limits=Limits(time_s=10))
    assert "no solver here" in found.termination.detail
    assert found.plan.score is not None


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_at_most_all_slots_where_experts_do_not_divide(backend: Backend) -> None:
    """Five experts on two GPUs of three slots: no GPU gets more than three."""
    step = Step(first=0, experts=5, parts=(0, 1), low=(0, 0), high=(3, 3)).settings()
    *_, outcome = solve_steps(np.ones((1, 5, 5), np.int64), [step], solve=solver_of(backend, problem()))
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
    found = solve(capped, "exflow", limits=LONG)
    assert found.plan.bound is not None
    assert found.plan.score is not None
    assert found.plan.bound <= found.plan.score
    assert found.plan.warnings
