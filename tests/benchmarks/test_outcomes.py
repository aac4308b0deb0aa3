"""The published outcomes: what the documentation says of the model is what it says now."""

from pathlib import Path

import pytest

from benchmarks import outcomes

DOCUMENT = Path(__file__).parents[2] / "docs" / "advise.md"


@pytest.mark.parametrize(
    "part", [outcomes.deepspeed, outcomes.ascend, outcomes.stall, outcomes.slower], ids=lambda part: part.__name__
)
def test_rows_of_the_documentation_are_those_of_the_model(part: object) -> None:
    """Each row stands in docs/advise.md as the script writes it; rewrite the table with the script."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert callable(part)
    for row in part():
        assert outcomes.as_row(row) in lines
