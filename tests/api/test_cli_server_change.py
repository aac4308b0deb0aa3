"""``replan``, ``simulate``, ``survive`` and ``mixture`` with ``--server``: what they tell without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api.client.connection import Connection
from placement import Plan
from tests.builders.cli import command, document
from tests.builders.series import domain_trace
from traces import save

AT = ("--server", "http://127.0.0.1")
IDS = ("id", "trace", "series", "traces")


@pytest.fixture(autouse=True)
def served(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have commands talk to the service in this process, which keeps its log apart."""

    def connect(self: Any, *_: Any) -> None:
        self.failed, self._http = httpx2.TransportError, client

    monkeypatch.setattr(Connection, "__init__", connect)
    monkeypatch.setattr(Connection, "close", lambda _: None)
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make files of tokens, files of counts, and a plan on two nodes whose second layer has one copy of expert 0."""
    made = tmp_path_factory.mktemp("change")
    rng = np.random.default_rng(0)
    for seed in range(3):
        save(domain_trace(seed, 1, 8, tokens=20), made / f"window{seed}.npz")
        (made / f"dump{seed}.json").write_text(json.dumps(rng.integers(1, 99, (3, 8)).tolist()))
    table = np.tile(np.r_[0:8, 7:-1:-1], (3, 1))
    table[1, 15] = 1
    Plan.of(table, layer_ids=[0, 1, 2], num_experts=8, gpus_per_node=(2, 2)).save(made / "plan.json")
    return made


def here_and_there(*words: object, apart: tuple[str, ...] = IDS) -> Any:
    """Run a command alone and on the service; return what the service told, once all that both tell is the same."""
    here, there = document(*words), document(*words, *AT)
    assert {name: here[name] for name in here if name not in apart} == {
        name: there[name] for name in there if name not in apart
    }
    return there


def test_a_replan_is_the_local_one(folder: Path, tmp_path: Path) -> None:
    """Figures, text, the plan and all steps; then, with all that the service has, by ids."""
    words = ("replan", folder / "plan.json", folder / "window0.npz", "--engine", "sglang", "--solver", "load-balance")
    words = (*words, "--work-limit", 2000, "--topology", "2x2", "--dead-gpus", 3, "--expert-bytes", 10)  # type: ignore[assignment]
    words = (*words, "--step-experts", 2, "--rollout", tmp_path / "steps", "-o", tmp_path / "next.json")  # type: ignore[assignment]
    written: list[tuple[str, Plan, list[str]]] = []
    for at in ((), AT):
        shutil.rmtree(tmp_path / "steps", ignore_errors=True)
        told = command(*words, *at)
        assert told.exit_code == 0, told.output
        steps = [each.read_text() for each in sorted((tmp_path / "steps").iterdir())]
        written.append((told.stdout, Plan.load(tmp_path / "next.json"), steps))
    (text, plan, files), (text_there, plan_there, files_there) = written
    assert (text, files) == (text_there, files_there)
    assert (plan.physical_to_logical_map == plan_there.physical_to_logical_map).all()
    there = here_and_there(*words[: words.index("--rollout")])
    again = document("replan", there["id"], there["trace"], "--solver", "contiguous", *AT)
    assert again["before"] is not None


def test_windows_in_files_are_a_series_or_one_recording(folder: Path) -> None:
    """A series of files of tokens; where they are cut otherwise, and of counts, what they are together."""
    tokens = [folder / f"window{number}.npz" for number in range(3)]
    counts = [folder / f"dump{number}.json" for number in range(3)]
    words = ("--topology", "1x2", "--redundant-experts", 2)
    there = here_and_there("simulate", *tokens, *words, apart=(*IDS, "notes"))  # what they were called
    assert there["series"] is not None
    assert document("simulate", there["series"], *words, *AT)["policies"] == there["policies"]
    assert here_and_there("simulate", *tokens, *words, "--windows", 2)["trace"] is not None
    turned = here_and_there("simulate", *tokens[::-1], *words, "--windows", 2, apart=(*IDS, "notes"))
    assert turned["trace"] is not None  # in the order given, not that of their names
    asked = ("--topology", "2x2", "--plan", folder / "plan.json")
    assert here_and_there("simulate", *counts, *asked)["trace"] is not None
    refused = command("simulate", there["series"], *words, "--num-experts", 8, *AT)
    assert refused.exit_code == 1
    assert "trace_known" in refused.stderr


def test_survival_is_the_local_one(folder: Path, tmp_path: Path) -> None:
    """The proof, the schedule, and the plans for what is left."""
    schedule = tmp_path / "schedule.json"
    schedule.write_text(json.dumps([{"at": 1, "fail": 1}, {"at": 2, "join": 1}]))
    words = ("survive", folder / "plan.json", folder / "window0.npz", "--survive", "nodes=1", "--topology", "2x2")
    words = (*words, "--schedule", schedule, "--expert-bytes", 10, "--prepare", tmp_path / "without")  # type: ignore[assignment]
    there = here_and_there(*words)
    assert [each["lost"] > 0 for each in there["degraded"]] == [True, False]
    assert Plan.load(there["prepared"][1]).num_gpus == 2
    schedule.write_text(json.dumps([{"at": 1, "fail": 7}]))
    for at in ((), AT):
        refused = command(*words, *at)
        assert refused.exit_code == 1
        assert "--schedule (no. 1): node 7 is not in 0..1." in refused.stderr


def test_a_mixture_is_the_local_one(folder: Path, tmp_path: Path) -> None:
    """The matrix and the plan."""
    files = [folder / f"window{number}.npz" for number in range(2)]
    words = ("mixture", *files, "--topology", "1x2", "--engine", "sglang", "--rounds", 1, "--solver", "annealing")
    there = here_and_there(*words, "--work-limit", 200, "-o", tmp_path / "plan.json")
    assert there["domains"] == ["window0", "window1"]
    assert Plan.load(tmp_path / "plan.json").num_gpus == 2


def test_what_a_service_does_not_take(folder: Path) -> None:
    """Wrong usage, with what to do."""
    for words in (("replan", folder / "plan.json", folder / "window0.npz"), ("survive", folder / "plan.json")):
        refused = command(*words, *(("--survive", "nodes=1") if words[0] == "survive" else ()), "--workers", 1, *AT)
        assert refused.exit_code == 2
        assert "--workers" in refused.stderr
