"""``check`` of recordings: findings for people and programs, exit codes, and what is a recording."""

import json
from pathlib import Path

import numpy as np
import pytest

from placement import Plan
from tests.builders.cli import command
from tests.builders.traces import planted_trace
from traces import Trace, check, save


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace of 8 experts whose shared expert has id 8, and which does not state how many there are."""
    trace = planted_trace(0, 1000, 2, 8, 2, teams=2, pull=1.0, decline=0.1, sequence=20)
    (batch,) = trace.batches(1000)
    path = tmp_path_factory.mktemp("traces") / "fused.npz"
    np.savez(path, topk_ids=np.concatenate([batch.topk_ids, np.full((1000, 2, 1), 8)], axis=2), layer_ids=[0, 1])
    return path


def test_json_has_the_findings_and_nothing_else(fused: Path) -> None:
    """The document is that of Python, with options in place of parameters; a warning leaves the exit code at 0."""
    result = command("check", fused, "--json")
    (found,) = json.loads(result.stdout)["findings"]
    assert set(json.loads(result.stdout)) == {"findings"}
    assert set(found) == {"code", "severity", "detail", "remedy"}
    (own,) = check(fused)
    assert (found["code"], found["severity"], found["detail"]) == (own.code, own.severity, own.detail)
    assert "--num-experts 8" in found["remedy"]
    assert result.exit_code == 0


def test_an_error_gives_exit_code_1(fused: Path) -> None:
    """Where the number of experts is stated, ids beyond it are refused by readers."""
    result = command("check", fused, "--num-experts", 8, "--json")
    assert result.exit_code == 1
    assert [one["severity"] for one in json.loads(result.stdout)["findings"]] == ["error"]


def test_findings_for_people(fused: Path, tmp_path: Path) -> None:
    """Severity and code head each finding; a sound recording is told to be one."""
    text = command("check", fused).stdout
    assert "fused.npz: 1 finding\n\nwarning: ids_beyond_experts\n  Every token lists id 8" in text
    save(planted_trace(0, 1000, 2, 8, 2, teams=2, pull=1.0, decline=0.1, sequence=20), tmp_path / "sound.npz")
    assert "nothing is wrong" in command("check", tmp_path / "sound.npz").stdout


def test_a_matrix_is_counts_or_a_placement_by_what_it_holds(tmp_path: Path) -> None:
    """Lists of numbers where every expert has a slot are a placement; `--engine` and `--format` say it as well."""
    counts, places = tmp_path / "counts.json", tmp_path / "places.json"
    counts.write_text(json.dumps(np.random.default_rng(0).integers(3, 9, (2, 8)).tolist()))
    places.write_text("[[0, 1, 2, 3], [3, 1, 0, 2]]")
    told = command("check", counts, "--json")
    assert [one["code"] for one in json.loads(told.stdout)["findings"]] == ["too_few_tokens"]
    assert json.loads(command("check", places, "--json").stdout)["valid"] is True
    assert command("check", counts, "--engine", "vllm_pr49572", "--topology", "1x2").exit_code == 1
    assert "findings" in json.loads(command("check", places, "--format", "eplb", "--json").stdout)


def test_options_of_placements_and_recordings_exclude_each_other(fused: Path) -> None:
    """A file is one of both."""
    result = command("check", fused, "--engine", "sglang", "--top-k", 3)
    assert result.exit_code == 1
    assert "[without_effect]" in result.stderr


def test_damaged_recordings_fail_as_ever(tmp_path: Path) -> None:
    """What is no fault of a capture is the reader's error."""
    (tmp_path / "trace.npz").write_bytes(b"PK\x03\x04 and nothing")
    result = command("check", tmp_path / "trace.npz", "--json")
    assert result.exit_code == 1
    assert "error" in json.loads(result.stdout)


def test_plans_and_replays_begin_with_the_line(fused: Path, tmp_path: Path) -> None:
    """What is wrong with the recording is a note of `solve`, `evaluate` and `compare`, once."""
    line = "The recording has ids beyond the routed experts"
    plan = tmp_path / "plan.json"
    solved = command("solve", fused, "--topology", "1x3", "--solver", "contiguous", "-o", plan)
    assert solved.stderr.replace("\n       ", " ").count(line) == 1
    assert Plan.load(plan).num_experts == 9
    for words in (("evaluate", plan, fused), ("compare", plan, fused)):
        assert command(*words).stderr.count(line) == 1


def test_balance_per_pass_is_shown(tmp_path: Path) -> None:
    """Sizes of passes as asked, in text and in JSON; the whole trace is even while every pass is not."""
    trace, plan = tmp_path / "trace.npz", tmp_path / "plan.json"
    save(Trace.of((np.arange(512) // 64 % 4)[:, None, None], num_experts=4), trace)
    Plan.of([[0, 1, 2, 3]], layer_ids=[0], num_experts=4, gpus_per_node=(4,)).save(plan)
    asked = ("evaluate", plan, trace, "--pass-tokens", 64, "--pass-tokens", 256)
    found = json.loads(command(*asked, "--json").stdout)
    assert [(one["pass_tokens"], one["balancedness_vllm"]) for one in found["per_pass"]] == [(64, 0.25), (256, 1.0)]
    assert found["balancedness_whole_trace"] == 1.0
    assert "of 64 tokens" in command(*asked).stdout
    compared = json.loads(command("compare", plan, trace, "--pass-tokens", 64, "--json").stdout)
    assert [one["imbalance_trtllm"] for one in compared["plans"][0]["per_pass"]] == [3.0]
    assert "--pass-tokens" in command("evaluate", plan, trace, "--pass-tokens", 0).stderr
