"""``moe-placement replan``: from a running plan and a trace to a verdict, a plan and files for each step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import solvers
from placement import Plan
from solvers.searching.limits import Limits
from tests.builders.cli import command
from traces.synthetic import Synthetic, generate

FEW = ("--solver", "load-balance", "--work-limit", "50000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a plan that runs, and other traffic."""
    made = tmp_path_factory.mktemp("replan")
    shape = {"num_layers": 2, "num_experts": 16, "top_k": 2, "num_tokens": 4096, "skew": 0.8, "affinity": 0.0}
    old, new = (generate(Synthetic(**shape, seed=seed)) for seed in (1, 2))  # type: ignore[arg-type]
    study = solvers.Study.of(old, "2x2", engine="sglang", redundant_experts=4)
    study.solve("load_balance", limits=Limits(work=50_000)).plan.save(made / "running.json")
    np.savez(made / "today.npz", topk_ids=np.concatenate([batch.topk_ids for batch in new.batches()]))
    return made


def test_a_plan_and_its_steps_are_written(folder: Path, tmp_path: Path) -> None:
    """The last step's plan is the one that was asked for; the engine's files lie beside."""
    output, steps = tmp_path / "next.json", tmp_path / "steps"
    given = (folder / "running.json", folder / "today.npz", "--engine", "sglang", *FEW, "--expert-bytes", "1000000")
    result = command("replan", *given, "--step-experts", "5", "-o", output, "--rollout", steps, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["verdict"] == "replan"
    assert document["moved_bytes"] == 1_000_000 * document["moved_experts"]
    listed = json.loads((steps / "rollout.json").read_text())["steps"]
    assert [step["files"] for step in listed] == [step["files"] for step in document["steps"]]
    last = Plan.load(steps / listed[-1]["files"][0])
    assert np.array_equal(last.physical_to_logical_map, Plan.load(output).physical_to_logical_map)
    again = command("replan", *given, "--rollout", steps)
    assert again.exit_code == 1
    assert "folder_taken" in again.output


def test_text_says_the_verdict_first(folder: Path) -> None:
    """With dead ranks, which are a list; without a machine, by the score."""
    given = (folder / "running.json", folder / "today.npz")
    result = command("replan", *given, "--engine", "sglang", *FEW, "--dead-gpus", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Re-plan: the plan that runs can't go on")
    assert "Rank(s) 3 are gone" in result.stdout
    wrong = command("replan", *given, "--dead-gpus", "9")
    assert wrong.exit_code == 1
    assert "--dead-gpus" in wrong.output
