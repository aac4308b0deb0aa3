"""``--survive``, ``moe-placement survive`` and ``mixture``: documents, refusals, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from placement import Plan
from tests.builders.cli import command, document
from traces import save
from traces.synthetic import Synthetic, generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two small traces."""
    path = tmp_path_factory.mktemp("survive")
    for seed, name in enumerate(("code", "chat")):
        save(
            generate(Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=1024, seed=seed)), path / f"{name}.npz"
        )
    return path


def test_a_plan_that_has_to_survive_does(folder: Path) -> None:
    """Solved, proven, and prepared for each node; without the option the plan would not survive."""
    out, options = folder / "plan.json", ("--topology", "2x2", "--slots-per-gpu", 4, "--work-limit", 2000)
    found = document("solve", folder / "code.npz", *options, "--survive", "nodes=1", "-o", out)
    assert found["termination"]["reason"] in {"feasible", "optimal"}
    told = document("survive", out, folder / "code.npz", "--survive", "nodes=1", "--prepare", folder / "without")
    assert told["survival"]["survives"]
    assert [each["lost"] for each in told["degraded"]] == [0, 0]
    assert Plan.load(told["prepared"][1]).num_gpus == 2
    document("solve", folder / "code.npz", *options, "--solver", "contiguous", "-o", out)
    told = document("survive", out, "--survive", "nodes=1")
    assert not told["survival"]["survives"]
    assert told["survival"]["lost"] == told["degraded"][told["survival"]["worst"][0]]["lost"] > 0


def test_a_schedule_is_gone_through(folder: Path) -> None:
    """Events in order, with bytes where the size of an expert is known; the text has a line for each."""
    out = folder / "even.json"
    document(
        "solve", folder / "code.npz", "--topology", "2x2", "--slots-per-gpu", 4, "--solver", "contiguous", "-o", out
    )
    schedule = folder / "schedule.json"
    schedule.write_text(json.dumps([{"at": 1, "fail": 1}, {"at": 2, "join": 1}]))
    asked = (out, "--survive", "nodes=1", "--schedule", schedule, "--expert-bytes", 10)
    told = document("survive", *asked)["schedule"]
    assert [each["gpus"] for each in told] == [2, 4]
    assert told[0]["bytes"] == 10 * told[0]["loaded"] == 10 * told[0]["lost"]
    text = command("survive", *asked).stdout
    assert "fails 1" in text
    assert "joins 1" in text


def test_too_few_slots_are_refused_with_what_is_needed(folder: Path) -> None:
    """Exit code 1, and the numbers."""
    done = command("solve", folder / "code.npz", "--topology", "2x2", "--survive", "nodes=1", "--json")
    assert done.exit_code == 1
    assert "need 16 slots in a layer" in done.stderr
    assert "8 redundant experts" in done.stderr


def test_a_form_that_is_none_is_wrong_usage(folder: Path) -> None:
    """Exit code 2, with the form."""
    done = command("solve", folder / "code.npz", "--topology", "2x2", "--survive", "racks=1")
    assert done.exit_code == 2
    assert "gpus=K|hosts=K|nodes=K|links" in done.stderr


def test_a_plan_for_two_domains(folder: Path) -> None:
    """Named by their files; the matrix has all plans, and the text says which one to use."""
    out = folder / "both.json"
    asked: tuple[object, ...] = (folder / "code.npz", folder / "chat.npz", "--topology", "1x4", "--engine", "sglang")
    asked = (*asked, "--rounds", 1, "--work-limit", 1000, "--solver", "annealing")
    found = document("mixture", *asked, "-o", out)
    assert found["domains"] == ["code", "chat"]
    assert list(found["plans"]) == ["mixture", "pooled", "only code", "only chat"]
    assert Plan.load(out).num_gpus == 4
    assert command("mixture", *asked).stdout.splitlines()[0].startswith(("By its worst domain", "The plan "))
    assert command("mixture", folder / "code.npz", "--topology", "1x4", "--json").exit_code == 1
