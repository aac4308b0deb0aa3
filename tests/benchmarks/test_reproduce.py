"""Published figures: the page has the rows that the scripts make, and what is judged has the right direction."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import pytest

from benchmarks import outcomes
from benchmarks.reproduce.__main__ import DOCUMENT, PAPERS, section, with_section
from benchmarks.reproduce._rows import Row, as_table, bisected
from tests.builders.outputs import same

SMALL = {
    "exflow": {"tokens": 2_000, "work": 20_000},
    "moetuner": {"tokens": 4_000, "work": 20_000},
    "metro": {"tokens": 4_096},
    "hiermoe": {"tokens": 8_192, "work": 20_000},
    "eplb": {"tokens": 4_096},
}


def made(paper: str) -> list[Row]:
    """Make the rows of a paper at small sizes."""
    rows: list[Row] = import_module(f"benchmarks.reproduce.{paper}").rows(**SMALL[paper])
    return rows


rows_of = cache(made)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_page_has_these_rows_and_their_directions(paper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, printed figures and what is fitted are those of the page; every figure that is judged is a gain."""
    monkeypatch.setattr(outcomes, "TOKENS", 4_096)
    lines = section(paper, DOCUMENT.read_text(encoding="utf-8")).splitlines()[2:]
    rows = rows_of(paper)
    for line, row in zip(lines, rows, strict=True):
        what, printed, _, difference = (cell.strip() for cell in line.strip("|").split("|"))
        assert (what, printed, difference == "fitted") == (row.what, row.cells()[1], row.fitted)
        if row.printed is not None:
            assert min(row.here) > 0 if isinstance(row.here, tuple) else row.here > 0
            if "times faster" in what:
                assert min(row.here) > 1 if isinstance(row.here, tuple) else row.here > 1
        if row.printed == 32 or "most nodes" in what:
            assert row.difference == difference == "the same"


def test_figures_of_the_page_are_those_of_the_scripts() -> None:
    """The quickest paper at full size; after a change of the time model, ``make reproduce`` again."""
    rows = import_module("benchmarks.reproduce.metro").rows()
    assert same(as_table(rows), section("metro", DOCUMENT.read_text(encoding="utf-8")))


def test_same_seed_same_figures() -> None:
    """Work limits end the searches, not the clock."""
    assert made("hiermoe") == rows_of("hiermoe")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (Row(what="a", printed=2.0, here=2.5), "+25.0 %"),
        (Row(what="gain, %", printed=20.0, here=12.0), "-8.0 points"),
        (Row(what="a", printed=(1.0, 2.0), here=(1.2, 1.9)), "within"),
        (Row(what="a", printed=(1.0, 2.0), here=(1.9, 2.1)), "overlaps"),
        (Row(what="a", printed=(1.0, 2.0), here=(0.1, 0.9)), "below"),
        (Row(what="a", printed=2.0, here=(1.0, 3.0)), "contains it"),
        (Row(what="a", printed=2.0, here=(2.5, 3.0)), "above"),
        (Row(what="a", printed=2.0, here=(0.5, 1.5), most=True), "75 % of it"),
        (Row(what="a", printed=2.0, here=2.0), "the same"),
        (Row(what="a", printed=2.0, here=2.5, fitted=True), "fitted"),
        (Row(what="a", printed=None, here=2.5), "-"),
    ],
)
def test_differences_in_words(row: Row, word: str) -> None:
    """A figure against a figure, in percent or points; ranges by how they lie."""
    assert row.difference == word


def test_what_cannot_be_fitted_is_refused() -> None:
    """A figure out of reach is no fit at the end of the range."""
    assert bisected(lambda value: -value, -3.0, 0.0, 4.0, 30) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="can't be fitted on 0 to 4"):
        bisected(lambda value: value, 5.0, 0.0, 4.0)


def test_a_table_replaces_the_one_of_its_paper() -> None:
    """Only what is between the marks changes; a page without them is refused."""
    page = "a\n<!-- x -->\n<!-- /x -->\nb\n<!-- y -->\n\nkept\n\n<!-- /y -->\n"
    twice = with_section("x", with_section("x", page, "| 1 |"), "| 2 |")
    assert (section("x", twice), section("y", twice)) == ("| 2 |", "kept")
    with pytest.raises(ValueError, match="no section"):
        section("z", page)
