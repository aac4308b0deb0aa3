"""Figures that papers print, beside what comes out here: ``python -m benchmarks.reproduce``, or ``make reproduce``.

``--write`` puts the tables into ``docs/reproduce.md``. Everything is made from seeds and work limits, so that the same
versions of libraries give the same figures on any machine.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

from benchmarks.reproduce._rows import as_table

PAPERS = ("exflow", "moetuner", "metro", "hiermoe", "eplb")
DOCUMENT = Path(__file__).parents[2] / "docs" / "reproduce.md"


def section(paper: str, text: str) -> str:
    """Return the part of the page between a paper's marks.

    Raises
    ------
    ValueError
        If the page has no such marks.
    """
    _, opened, rest = text.partition(f"<!-- {paper} -->\n")
    content, closed, _ = rest.partition(f"<!-- /{paper} -->")
    if not opened or not closed:
        raise ValueError(f"{DOCUMENT.name} has no section between <!-- {paper} --> and <!-- /{paper} -->.")
    return content.strip()


def with_section(paper: str, text: str, table: str) -> str:
    """Return the page with another table between a paper's marks."""
    section(paper, text)
    before, opened, rest = text.partition(f"<!-- {paper} -->\n")
    _, closed, after = rest.partition(f"<!-- /{paper} -->")
    return f"{before}{opened}\n{table}\n\n{closed}{after}"


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(PAPERS)}; all by default")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/reproduce.md")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.papers) - set(PAPERS)):
        parser.error(f"{', '.join(unknown)}: not among {', '.join(PAPERS)}")
    for paper in asked.papers or PAPERS:
        start = time.process_time()
        table = as_table(import_module(f"benchmarks.reproduce.{paper}").rows())
        print(f"## {paper}\n\n{table}\n", f"{time.process_time() - start:.0f} s of CPU time\n", sep="\n", flush=True)
        if asked.write:
            text = DOCUMENT.read_text(encoding="utf-8")
            DOCUMENT.write_text(with_section(paper, text, table), encoding="utf-8")


if __name__ == "__main__":
    main()
