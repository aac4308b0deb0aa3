"""``moe-placement residency``: the document, the text, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from solvers import simulate_residency
from tests.builders.cli import command, document
from traces import load, save
from traces.synthetic import Synthetic, generate


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a small trace."""
    path = tmp_path_factory.mktemp("residency") / "trace.npz"
    save(generate(Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=512, skew=0.6)), path)
    return path


def test_the_document_is_what_python_says(trace: Path) -> None:
    """The same words mean the same at both doors."""
    shown = document(
        "residency", trace, "--resident", 0.5, "--tier", "host:50:.75", "--tier", "disk", "--budget", "equal"
    )
    from placement.residency import Tier

    tiers = (Tier.parse("host:50:.75"), Tier.parse("disk"))
    assert shown == simulate_residency(load(trace), resident=0.5, tiers=tiers, budget="equal").as_dict()


def test_the_text_names_the_best_policy_first(trace: Path) -> None:
    """Then a row for each, and what was assumed."""
    result = command("residency", trace, "--memory-gb", 0.01, "--expert-bytes", 1_000_000)
    first, *rest = result.stdout.splitlines()
    assert "10 of 16 experts resident (0.01 GB)" in first
    assert " is best, " in first
    assert sum(" (best)" in line for line in rest) == 1
    assert any("transfers alone" in line for line in rest)


def test_what_is_refused_names_options(trace: Path) -> None:
    """All of it at once, by the options' names."""
    result = command("residency", trace, "--cold", "compute", "--prefetch-experts", 2)
    assert result.exit_code == 1
    for words in ("--resident", "--machine", "--prefetch-experts"):
        assert words in result.stderr
