"""What the pages of ``docs/engines`` tell people to run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

__all__ = ["commands", "python_blocks"]

PAGES = Path(__file__).resolve().parents[2] / "docs" / "engines"


def python_blocks(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str, program: str) -> list[list[str]]:
    """Return the words after a program, of every line of a page's shell blocks that runs it."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = []
    for block in blocks:
        lexer = shlex.shlex(block.replace("\\\n", " "), posix=True, punctuation_chars="\n|;")
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, "#"
        line: list[str] = []
        for word in [*lexer, "\n"]:
            if set(word) <= set("\n|;"):
                start = " ".join(line).find(program)
                if start >= 0:
                    skipped = len(program.split()) + len(" ".join(line)[:start].split())
                    found.append(line[skipped:])
                line = []
            else:
                line.append(word)
    return found
