"""``solve --server``: the same command, with the search on a service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import app
from placement import load_plan


@pytest.fixture(scope="module")
def url(server_type: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a service and return its address."""
    started = server_type.start(tmp_path_factory.mktemp("remote") / "data")
    yield str(started.http.base_url)
    started.kill()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory, trace_bytes: bytes) -> str:
    """Return the small valid trace as a file."""
    path = tmp_path_factory.mktemp("remote") / "tiny.npz"
    path.write_bytes(trace_bytes)
    return str(path)


def run(*arguments: str) -> Any:
    """Run a command."""
    return CliRunner().invoke(app, ["solve", *arguments])


def test_same_plan_here_and_there(url: str, trace: str, tmp_path: Path) -> None:
    """With a work limit the service finds the plan that the command finds alone."""
    options = [trace, "--topology", "2x2", "--load-cap", "1.2", "--work-limit", "200000", "--seed", "3"]
    options += ["--pin", "5@3", "--group", "1,2"]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert run(*options, "-o", str(here)).exit_code == 0
    answer = run(*options, "--server", url, "-o", str(there))
    assert answer.exit_code == 0, answer.output
    assert (load_plan(here).physical_to_logical_map == load_plan(there).physical_to_logical_map).all()
    assert "held out" in answer.output


def test_json_and_warm_start(url: str, trace: str) -> None:
    """--json tells the service's answer; --start names a plan of the service, and the result is never worse."""
    options = [trace, "--topology", "1x4", "--work-limit", "50000", "--server", url, "--json"]
    first = json.loads(run(*options).stdout)
    assert first["status"] == "succeeded"
    again = json.loads(run(*options, "--start", first["id"]).stdout)
    assert again["score"] <= first["score"]


def test_refusals(url: str, trace: str) -> None:
    """What the service refuses, and what does not go with it, is told like bad input here."""
    refused = run(trace, "--topology", "1x4", "--solver", "nobody", "--server", url)
    assert refused.exit_code == 1
    assert "nobody" in refused.output
    for address in ("http://[::1", "http://a b:x", "ftp://h", "nowhere"):
        assert run(trace, "--topology", "1x4", "--server", address).exit_code == 1, address
    assert run(trace, "--topology", "1x4", "--server", url, "--workers", "2").exit_code == 2
    assert run(trace, "--topology", "1x4", "--server", url, "--start", "plan.json").exit_code == 2
