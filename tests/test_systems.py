"""The pages on systems of others: the same parts on each, and examples that print what the page says.

After a change of the time model, ``UPDATE_EXAMPLES=1 pytest tests/test_systems.py`` writes what they print now; read
whether the words around it still hold.
"""

from __future__ import annotations

import os
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.builders.outputs import same

PAGES = sorted((Path(__file__).parents[1] / "docs" / "systems").glob("*.md"))
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.stem))
def test_pages_of_systems_follow_the_recipe(page: Path) -> None:
    """What it does, what of it is here, an example with its output, and what differs; all in the index."""
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert parts == ["What it does", "Here", "Example", "What differs"]
    assert "https://arxiv.org/abs/" in text
    assert f"systems/{page.name}" in (page.parents[1] / "index.md").read_text(encoding="utf-8")
    assert f"systems/{page.name}" in (page.parents[2] / "zensical.toml").read_text(encoding="utf-8")


def output(code: str, page: Path) -> str:
    """Return what an example prints."""
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.mark.parametrize(
    ("now", "alike"),
    [("1.02 ms, +3%", True), ("1.30 ms, +3%", False), ("1.00 ms, -3%", False), ("1.00 s, +3%", False)],
)
def test_what_counts_as_the_same(now: str, alike: bool) -> None:
    """Numbers by their size and digits, words to the letter."""
    assert same(now, "1.00 ms, +2%") is alike


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.stem))
def test_examples_print_what_the_page_says(page: Path) -> None:
    """At most some seconds each; seeds and work limits make the figures the same again."""
    text = page.read_text(encoding="utf-8")
    examples = EXAMPLE.findall(text)
    assert len(examples) == text.count("```python") > 0
    for code, expected in examples:
        now = output(code, page)
        if "UPDATE_EXAMPLES" in os.environ:
            text = text.replace(f"```text\n{expected}```", f"```text\n{now}```")
        else:
            assert same(now, expected), now
    if "UPDATE_EXAMPLES" in os.environ:
        page.write_text(text, encoding="utf-8")
