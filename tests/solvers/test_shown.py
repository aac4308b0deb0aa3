"""Results as people see them: in a terminal, in a notebook, as a table, as a chart."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

import solvers
from placement import Constraints, Problem
from placement.engines.engine import Layout
from solvers import Event, Front, Limits, Solution, front, plotting, solve
from solvers.testing import problems
from traces import InputError

LINES = 10


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Return a small problem with a cap."""
    return problems()["replicas"]


@pytest.fixture(scope="module")
def solution(problem: Problem) -> Solution:
    """Return a plan of it."""
    return solve(problem, "annealing", limits=Limits(work=2000), seed=1)


@pytest.fixture(scope="module")
def found(problem: Problem) -> Front:
    """Return a front of it."""
    return front(problem, solver="eplb", limits=Limits(work=2000), points=4, seed=1)


def test_solution_fits_ten_lines(solution: Solution) -> None:
    """The summary names score, terms, bound and what ended the search."""
    text = str(solution)
    assert text == repr(solution)
    assert len(text.splitlines()) <= LINES
    assert f"score: {solution.score.total:.6g}" in text
    assert "ended by: work" in text
    assert "Plan by annealing: 2 layers of 8 experts on 4 GPUs, 3 slots each" in text
    assert solution._repr_html_().startswith("<table>")


def test_solutions_of_the_same_seed_and_work_are_equal(problem: Problem, solution: Solution) -> None:
    """However long they took; another seed's is another one."""
    again = solve(problem, "annealing", limits=Limits(work=2000), seed=1)
    assert again == solution
    assert hash(again) == hash(solution)
    assert pickle.loads(pickle.dumps(solution)) == solution
    assert solve(problem, "annealing", limits=Limits(work=2000), seed=2) != solution


def test_history_is_a_table(solution: Solution) -> None:
    """A row per step, the last one with the final score."""
    table = solution.to_frame()
    assert list(table.columns) == ["elapsed_s", "solver", "score", "bound"]
    assert len(table) == len(solution.history)
    assert table["score"].iloc[-1] == solution.score.total


def test_front_fits_ten_lines(found: Front) -> None:
    """However many points there are; the knee is marked."""
    assert len(repr(found).splitlines()) <= LINES
    assert repr(found).count("(knee)") <= 1
    point = found.points[0]
    rising = tuple(replace(point, imbalance=1 + step, traffic=1 / (1 + step)) for step in range(30))
    many = Front(against="imbalance", points=rising)
    assert len(repr(many).splitlines()) <= LINES
    assert f"{len(many)} plans" in repr(many)
    assert len(repr(found.points[0]).splitlines()) == 1
    assert found._repr_html_().startswith("<table>")
    assert repr(Front(against="imbalance", points=())).startswith("Front against imbalance: 0 plans")


def test_fronts_are_equal_by_their_points(problem: Problem, found: Front) -> None:
    """Of the same seed and work."""
    again = front(problem, solver="eplb", limits=Limits(work=2000), points=4, seed=1)
    assert again == found
    assert hash(again) == hash(found)
    assert Front(against="imbalance", points=found.points[:1]) != Front(against="imbalance", points=())


def test_front_is_a_table(found: Front) -> None:
    """A row per point, one of them the knee."""
    table = found.to_frame()
    assert len(table) == len(found)
    assert table["traffic"].tolist() == [point.traffic for point in found.points]
    assert table["knee"].sum() == 1


def test_event_tells_itself_in_a_line() -> None:
    """Its map by its size; two of the same content are equal."""
    events = [
        Event(
            kind="incumbent", elapsed_s=1.0, solver="auto", score=2.0, bound=1.0, gap=0.5, table=np.zeros((2, 3), int)
        )
        for _ in range(2)
    ]
    assert repr(events[0]) == "Event(incumbent, 1.000 s, auto, score=2, bound=1, gap=0.5, table of 2 x 3)"
    assert events[0] == events[1]


def test_solver_classes_are_exported_and_equal_by_parameters(problem: Problem) -> None:
    """A solver is its parameters, by name or by class."""
    for name in solvers.names():
        kind = solvers.solver_class(name)
        assert getattr(solvers, kind.__name__) is kind
        assert kind() == kind()
        assert hash(kind()) == hash(kind())
    assert solvers.Eplb(num_groups=4) != solvers.Eplb()
    assert solve(problem, solvers.Eplb()) == solve(problem, "eplb")


def test_plots_draw_what_was_found(problem: Problem, solution: Solution, found: Front) -> None:
    """Each returns the axes, its own or those that were given."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    _, ax = pyplot.subplots()
    assert plotting.plot_history(solution, ax) is ax
    scores = ax.lines[0].get_ydata()
    assert scores[-1] == solution.score.total
    assert ax.get_ylabel() == "objective"
    ax = plotting.plot_front(found)
    assert ax.lines[0].get_ydata().tolist() == [point.traffic for point in found.points]
    capped = plotting.plot_loads(problem, solution.plan)
    assert [bar.get_height() for bar in capped.patches] == solution.score.max_load.tolist()
    assert capped.get_legend().get_texts()[0].get_text() == "load cap 1.2"
    image = plotting.plot_affinity(problem.profile, 0).images[0].get_array()
    assert np.asarray(image).sum(axis=1) == pytest.approx(np.ones(problem.num_experts))
    pyplot.close("all")


def test_affinity_of_a_layer_without_a_next_one_is_refused(problem: Problem) -> None:
    """The error names the rows that have one."""
    with pytest.raises(InputError, match=r"0\.\.0"):
        plotting.plot_affinity(problem.profile, 1)


def test_plots_without_matplotlib_name_the_extra(solution: Solution, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is a command."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"moe-placement\[plot\]"):
        solution.plot()


LAYOUTS: tuple[Layout, ...] = ("contiguous", "modulo", "overlapping")


def test_layouts_of_engines_are_baselines() -> None:
    """Spare slots are empty, or hold the first experts again; a GPU with the same expert twice is refused."""
    given = problems()["replicas"]
    free = Problem(given.profile, given.topology, 3)
    rows = {
        layout: solve(free, solvers.Contiguous(layout=layout)).plan.physical_to_logical_map[0] for layout in LAYOUTS
    }
    assert rows["contiguous"].tolist() == [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]
    assert rows["modulo"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert rows["overlapping"].tolist() == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 0]
    limited = Problem(given.profile, given.topology, 3, constraints=Constraints(extra_replicas=2))
    assert "budgets" in (solvers.Contiguous(layout="modulo").supports(limited) or "")
    with pytest.raises(InputError, match="overlapping"):
        solvers.Contiguous(layout="linear")  # type: ignore[arg-type]
