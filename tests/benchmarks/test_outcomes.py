"""The published outcomes: what the documentation says of the model is what it says now."""

from pathlib import Path

from benchmarks import outcomes, overlap

DOCS = Path(__file__).parents[2] / "docs"


def test_rows_of_the_documentation_are_those_of_the_model() -> None:
    """Each row stands in docs/advise.md as the script writes it; rewrite the table with the script."""
    rows, text = [outcomes.as_row(row) for row in outcomes.outcomes()], (DOCS / "advise.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line in rows] == rows
    assert all(" ".join(note.split()) in " ".join(text.split()) for note in outcomes.as_notes().splitlines())


def test_overlap_of_the_documentation_is_that_of_the_model() -> None:
    """The same of docs/time.md and benchmarks/overlap.py."""
    lines = (DOCS / "time.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in overlap.rows() if row not in lines] == []


def test_signs_are_right() -> None:
    """No published outcome that was not fitted has another sign; sizes are right in five of seven."""
    rows = outcomes.outcomes()
    assert not [row.case for row in rows if row.sign is False]
    assert [row.case for row in rows if row.size is False] == [
        "ATOM PR 1210: no EP, with overlap",
        "DeepSpeed 8213: NCCL",
    ]
