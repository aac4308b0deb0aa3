"""``solve --seeds`` and ``front --seeds``: who searches, and what is written."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from solvers import Front, Limits, Study, front

FRONT = ("--solver", "assignment", "--work-limit", "8000", "--points", "4")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own: plans without a name are written where the command runs."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, trace_bytes: bytes) -> Path:
    """Write the small valid trace."""
    path = tmp_path_factory.mktemp("seeds") / "trace.npz"
    path.write_bytes(trace_bytes)
    return path


def test_command_searches_with_seeds(path: Path, tmp_path: Path) -> None:
    """`solve --seeds` writes the best plan, of processes; an executor of an unknown kind is refused."""
    plan = tmp_path / "plan.json"
    wanted = ["solve", str(path), "--topology", "1x4", "--solver", "random", "--work-limit", "3", "--json"]
    one = CliRunner().invoke(app, [*wanted, "-o", str(tmp_path / "one.json")])
    many = CliRunner().invoke(app, [*wanted, "--seeds", "4", "-o", str(plan)])
    assert many.exit_code == 0, many.stderr
    assert json.loads(many.stdout)["score"] <= json.loads(one.stdout)["score"]
    assert json.loads(plan.read_text())["provenance"]["seed"] in range(4)
    refused = CliRunner().invoke(app, [*wanted, "--executor", "moon"])
    assert refused.exit_code == 1
    assert "--executor" in refused.stderr


def test_front_command_searches_with_seeds(path: Path) -> None:
    """`front --seeds` is as good anywhere; processes give what one does after the other."""
    wanted = ["front", str(path), "--topology", "1x4", *FRONT]
    told = CliRunner().invoke(app, [*wanted, "--seeds", "2", "--executor", "processes", "--json"])
    assert told.exit_code == 0, told.stderr
    problem = Study.of(path, "1x4", workers=1).problem
    search = partial(front, problem, solver="assignment", limits=Limits(work=8000), points=4)
    expected = Front.merged([search(seed=seed, workers=1) for seed in (0, 1)], 4)
    assert [point["traffic"] for point in json.loads(told.stdout)["points"]] == [p.traffic for p in expected.points]
    refused = CliRunner().invoke(app, [*wanted, "--executor", "moon"])
    assert refused.exit_code == 1
    assert "--executor" in refused.stderr
