"""``moe-placement advise``: the document, the text, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from placement import Plan
from traces import save
from traces.synthetic import Synthetic, generate

PARAMS = Synthetic(num_layers=2, num_experts=128, top_k=8, num_tokens=4096, skew=0.8, affinity=0)
OPTIONS = ("--machine", "h200:2x2", "--model", "qwen3-30b-a3b", "--engine", "sglang", "--solver", "load-balance")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a skewed trace."""
    path = tmp_path_factory.mktemp("advise") / "trace.npz"
    save(generate(PARAMS), path)
    return path


def command(*arguments: object) -> Result:
    """Run a command, and fail on any exception but an exit."""
    result = CliRunner().invoke(app, ["advise", *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_document_and_plan(trace: Path, tmp_path: Path) -> None:
    """One document with the promised keys; the plan that was found is written, and can be the one that runs."""
    out, report = tmp_path / "found.json", tmp_path / "report.html"
    more = ("--no-alternatives", "-o", out, "--report", report, "--json")
    done = command(trace, *OPTIONS, "--tokens-per-gpu", 256, *more)
    assert done.exit_code == 0, done.stderr
    document = report.read_text()
    assert document.index("orth it") < document.index("messages between nodes") < document.index("<svg")
    found: Any = json.loads(done.stdout)
    assert list(found) == [
        *("verdict", "step_ms_before", "step_ms_after", "gain_fraction", "gain_interval", "moe_share", "reasons"),
        "alternatives",
    ]
    assert Plan.load(out).num_gpus == 4
    again = command(trace, *OPTIONS, "--tokens-per-gpu", 256, "--no-alternatives", "--plan", out, "--json")
    assert json.loads(again.stdout)["step_ms_before"] == pytest.approx(found["step_ms_after"])


def test_text_has_the_verdict_on_top(trace: Path) -> None:
    """A person reads the verdict first, then before and after, why, and what else could be done."""
    done = command(trace, *OPTIONS, "--tokens-per-gpu", 256)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(("Worth it: ", "Not worth it: ", "Not enough data "))
    for words in ("messages between nodes", "experts", "leave_alone", "pull_weights"):
        assert any(line.startswith(words) for line in lines)


def test_violations_are_told_together_by_option(trace: Path) -> None:
    """A GPU and a model that are not known, and a format of no plan, are told at once."""
    done = command(trace, "--machine", "h2000:2x2", "--model", "qwen4", "--plan-format", "vllm")
    assert done.exit_code == 1
    for words in ("--machine:", "unknown_gpu", "--model:", "unknown_model", "--plan-format:"):
        assert words in done.stderr
