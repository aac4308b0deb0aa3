"""``moe-placement simulate``: the document, the text, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from placement import Plan
from tests.builders.cli import command, document
from tests.builders.series import domain_trace
from traces import save

OPTIONS = ("--topology", "1x4", "--redundant-experts", "4")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a file of tokens per window."""
    folder = tmp_path_factory.mktemp("simulate")
    paths = [folder / f"window{number}.npz" for number in range(4)]
    for seed, path in enumerate(paths):
        save(domain_trace(seed, 1, 8), path)
    return paths


def test_document_and_plan(files: list[Path], tmp_path: Path) -> None:
    """One document: policies with the promised keys, and the plan to run next in a file of its own."""
    out = tmp_path / "next.json"
    found = document("simulate", *files, *OPTIONS, "-o", out)
    keys = ["name", "total_ms", "replans", "moved_experts", "moved_bytes", "unpaid", "per_window"]
    assert [list(run) for run in found["policies"]] == [keys] * 6
    names = ["never", "every_window", "eplb_every_window", "on_drift", "on_gain", "oracle"]
    assert [run["name"] for run in found["policies"]] == names
    assert [each["name"] for each in found["policies"][0]["per_window"]] == [path.name for path in files]
    assert Plan.load(out).num_gpus == 4


def test_text_says_first_what_was_assumed(files: list[Path]) -> None:
    """A person reads windows and assumptions first, then the policies, then what to do now."""
    done = command("simulate", *files, *OPTIONS, "--windows", "4")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("4 windows of 1,000 forward passes")
    assert lines[1].startswith("- No machine was named")
    assert any(line.startswith(("- Leave it now", "- Re-plan now")) for line in lines)


def test_violations_are_told_together_by_option(files: list[Path]) -> None:
    """A GPU and a model that are not known, and a format of no plan, are told at once."""
    done = command("simulate", *files, "--machine", "h2000:1x4", "--model", "qwen4", "--plan-format", "vllm")
    assert done.exit_code == 1
    for words in ("--machine:", "unknown_gpu", "--model:", "unknown_model", "--plan-format:"):
        assert words in done.stderr
