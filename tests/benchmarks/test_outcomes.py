"""The published outcomes: what the documentation says of the model is what it says now."""

from pathlib import Path

from benchmarks import outcomes

DOCUMENT = Path(__file__).parents[2] / "docs" / "advise.md"


def test_rows_of_the_documentation_are_those_of_the_model() -> None:
    """Each row stands in docs/advise.md as the script writes it; rewrite the table with the script."""
    rows, lines = outcomes.outcomes(), DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line in set(map(outcomes.as_row, rows))] == list(map(outcomes.as_row, rows))
    notes = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert all(" ".join(note.split()) in notes for note in outcomes.as_notes().splitlines())


def test_signs_are_right() -> None:
    """No published outcome that was not fitted has another sign; sizes are right in five of seven."""
    rows = outcomes.outcomes()
    assert not [row.case for row in rows if row.sign is False]
    assert [row.case for row in rows if row.size is False] == [
        "ATOM PR 1210: no EP, with overlap",
        "DeepSpeed 8213: NCCL",
    ]
