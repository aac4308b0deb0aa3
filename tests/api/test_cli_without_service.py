"""The command line where the extra `service` is not installed: everything but the service works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.cli.entry import SERVICE
from placement import Plan

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from moe_placement import main; main()"
# Commands in turn, in one process: what each ends with, and what it says of it.
IN_TURN = """
import json, sys
from typer.testing import CliRunner
from api.cli import app

runner = CliRunner()
told = {}
for command in json.loads(sys.argv[1]):
    done = runner.invoke(app, command)
    told[" ".join(command)] = done.stderr + str(done.exception or "") if done.exit_code else ""
print(json.dumps(told))
"""
# pydantic and starlette are not among them: typer brings one, and the other comes and goes with fastapi.
BLOCKED = ["alembic", "fastapi", "prometheus_client", "pydantic_settings", "sqlalchemy", "structlog", "uvicorn"]
# Read by every interpreter at its start, so that processes which the commands start are without them as well.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def bare(tmp_path: Path, make_trace_bytes: Callable[..., bytes]) -> Any:
    """Return what runs a command in a folder with a small trace, without the libraries of the service."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(BLOCKER.format(blocked=BLOCKED))
    (tmp_path / "trace.npz").write_bytes(make_trace_bytes(tokens=400, layers=3, experts=8))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'python'}{os.pathsep}{ROOT}"}

    def run(*arguments: str, code: str = MAIN) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    return run


def requirements(*groups: list[str]) -> set[str]:
    """Return the names of distributions that are asked for, as modules."""
    names = [re.match(r"[\w-]+", line) for group in groups for line in group]
    return {name[0].replace("-", "_") for name in names if name}


def test_blocked_are_the_extra() -> None:
    """What is blocked here is what the extra installs, the command line knows it all, and nothing else asks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert requirements(extras["service"]) == set(BLOCKED)
    assert set(BLOCKED) <= SERVICE
    rest = requirements(project["dependencies"], *(lines for name, lines in extras.items() if name != "service"))
    assert not rest & set(BLOCKED)


def test_commands_work(bare: Any, tmp_path: Path) -> None:
    """Every command but the service's does its work."""
    solve = ["trace.npz", "--topology", "1x4", "--work-limit", "500"]
    commands = [
        ["--version"],
        ["--help"],
        *([name] for name in ("solvers", "topologies", "formats")),
        ["profile", "trace.npz", "-o", "profile.npz"],
        ["solve", *solve, "--hold-out", "0.5", "-o", "plan.json", "--report", "report.html"],
        ["solve", *solve, "--seeds", "2", "-o", "second.json"],
        ["front", *solve, "-o", "picked.json"],
        ["evaluate", "plan.json", "trace.npz"],
        ["compare", "plan.json", "second.json", "trace.npz"],
        ["export", "plan.json", "--engine", "csv", "-o", "plan.csv"],
        ["check", "plan.csv"],
        ["convert", "trace.npz", "trace.jsonl", "--to", "jsonl"],
        ["synthetic", "-o", "made.npz", "--layers", "2", "--experts", "8", "--top-k", "2", "--tokens", "200"],
    ]
    done = bare(json.dumps(commands), code=IN_TURN)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == len(commands)
    assert {command: error for command, error in told.items() if error} == {}
    plan = Plan.load(tmp_path / "plan.json")
    assert plan.physical_to_logical_map.shape == (3, 8)


@pytest.mark.slow
def test_demo_works(bare: Any) -> None:
    """The first command of the README."""
    done = bare("demo")
    assert done.returncode == 0, done.stderr


SERVICE_COMMANDS = [
    ["serve"],
    ["key", "create", "--tenant", "team"],
    ["key", "list"],
    ["key", "revoke", "key_1"],
    ["backup", "kept.tar"],
    ["restore", "kept.tar"],
]


@pytest.mark.parametrize("command", SERVICE_COMMANDS, ids=" ".join)
def test_service_says_what_to_install(bare: Any, command: list[str]) -> None:
    """One error, with the command that installs what is missing, and no traceback."""
    done = bare(*command)
    assert done.returncode == 1
    assert done.stdout == ""
    line = " ".join(done.stderr.split())
    assert line.startswith(f"error: moe-placement {command[0]}: This command is a part of the service, ")
    assert 'pip install "moe-placement[service]"' in line


def test_service_says_what_to_install_as_json(bare: Any) -> None:
    """The same as a document."""
    done = bare("serve", "--json")
    assert done.returncode == 1
    (violation,) = json.loads(done.stdout)["violations"]
    assert violation["code"] == "no_service_extra"
    assert violation["remedy"] == 'Run: pip install "moe-placement[service]"'


def test_remote_solve_needs_no_service_here(bare: Any, start_server: Any, tmp_path: Path) -> None:
    """`solve --server` needs the client only; the service may be elsewhere."""
    url = str(start_server(tmp_path / "data").http.base_url)
    solve = ["solve", "trace.npz", "--topology", "1x4", "--work-limit", "500", "--server", url, "-o", "plan.json"]
    done = bare(*solve)
    assert done.returncode == 0, done.stderr
    assert Plan.load(tmp_path / "plan.json").physical_to_logical_map.shape == (3, 8)
