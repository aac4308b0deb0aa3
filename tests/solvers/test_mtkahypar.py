"""Hypergraph partitioning as a start: valid plans, teams of experts found, a clear word without the library."""

import numpy as np
import pytest

import solvers.methods.mtkahypar
from placement import Constraints, Objective, Problem, score
from solvers import Limits, solve
from solvers.methods.mtkahypar import MtKaHyPar, _targets
from tests.builders.problems import problem_of
from traces import InputError, Trace


def teams(text: str) -> Problem:
    """Tokens that use 3 of the 4 experts of one team; experts of a team are not neighbours."""
    rng = np.random.default_rng(5)
    team, skipped = rng.integers(0, 4, (600, 2)), rng.integers(0, 4, (600, 2))
    places = (skipped[:, :, None] + np.arange(1, 4)) % 4
    trace = Trace.of(team[:, :, None] + 4 * places, num_experts=16)
    objective = Objective(execution="dispatch", dedup="gpu")
    return problem_of(trace, text, 0, objective, Constraints(load_cap=2.0))


@pytest.mark.parametrize("text", ["1x4", "2x2"])
def test_teams_are_found(text: str) -> None:
    """Where tokens use experts of one team, every token ends up on one GPU, and the plan is valid."""
    pytest.importorskip("mtkahypar", reason="the extra 'partition' is not installed")
    problem = teams(text)
    plan = solve(problem, "mtkahypar", limits=Limits(work=1)).plan
    table = plan.physical_to_logical_map
    assert all(len({int(expert) % 4 for expert in gpu}) == 1 for row in table for gpu in row.reshape(4, 4))
    assert score(problem, table)["traffic"].value <= 1.0


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for without the library, the error names the extra to install."""
    monkeypatch.setattr(solvers.methods.mtkahypar, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"moe-placement\[partition\]"):
        solve(teams("1x4"), "mtkahypar")


def test_targets_are_whole_and_fit() -> None:
    """Experts are shared out in proportion to the room, and all of them."""
    assert _targets(np.array([4, 4]), 7).sum() == 7
    assert _targets(np.array([4, 2]), 6).tolist() == [4, 2]


def test_options_are_checked() -> None:
    """A hypergraph needs tokens."""
    with pytest.raises(InputError):
        MtKaHyPar(tokens=0)
