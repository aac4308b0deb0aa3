"""``moe-placement group``: the document, the text, the plan."""

from __future__ import annotations

from pathlib import Path

from placement import Plan
from solvers import group_requests
from tests.builders.cli import command, document
from traces import save
from traces.synthetic import Synthetic, generate


def test_the_document_is_what_python_says(tmp_path: Path) -> None:
    """The same words at both doors; the text begins with what it comes to."""
    trace, out = tmp_path / "trace.npz", tmp_path / "plan.json"
    sizes = Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=512, tokens_per_sequence=32)
    save(generate(sizes), trace)
    shown = document("group", trace, "--topology", "1x2", "--restarts", 2, "-o", out)
    found = group_requests(trace, "1x2", restarts=2)
    assert shown == found.as_dict()
    assert Plan.load(out).physical_to_logical_map.tolist() == found.plan.physical_to_logical_map.tolist()
    text = command("group", trace, "--topology", "1x2", "--restarts", 2).stdout
    assert text.startswith(found.sentence)
    assert f"(gap {found.gap:.1%})" in text
