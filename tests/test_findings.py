"""Findings are told and pinned; running them installs packages, so that is left to people (`findings/README.md`)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
HEADINGS = ["Surprising", "Versions", "Why", "Seen"]
PIN = re.compile(r"\b([a-z][a-z0-9-]*)==(\d[\w.]*)")


def header(script: Path) -> str:
    """Return the comment at the head of a script, without its first line."""
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[1:end])


def test_there_are_findings() -> None:
    """The tests below look at something."""
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
class TestFinding:
    """One script."""

    def test_is_executable_bash(self, script: Path) -> None:
        """It runs by its name, and bash can read it."""
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)

    def test_header_says_what_and_when(self, script: Path) -> None:
        """The header has its four parts in order, a date among them, below one sentence."""
        text = header(script)
        assert re.findall(r"^(\w+):  ", text, flags=re.MULTILINE) == HEADINGS
        assert re.search(r"^Seen: +20\d\d-\d\d-\d\d$", text, flags=re.MULTILINE)
        assert text.splitlines()[0].endswith(".")

    def test_installs_what_the_header_names(self, script: Path) -> None:
        """Every package is pinned, and header and commands name the same versions."""
        code = script.read_text(encoding="utf-8").split("set -euo pipefail\n")[1].split("<<'PYTHON'")
        shell = code[0] + code[1].split("\nPYTHON\n")[1].replace("$version", "1.15.1")
        named = set(PIN.findall(re.findall(r"^Versions:.*?(?=^Why)", header(script), re.DOTALL | re.MULTILINE)[0]))
        installed = set(PIN.findall(shell))
        assert installed
        assert {name for name, _ in installed} == {name for name, _ in named}
        assert installed <= named
        for command in re.findall(r"pip (?:install|download) (.*)", shell.replace("\\\n", " ")):
            words = re.sub(r"--(?:python-version|platform) \S+|(?<!\S)-\S+", "", command).split()
            assert words
            assert all("==" in word for word in words)

    def test_cleans_up_and_may_fail(self, script: Path) -> None:
        """It stops at the first error, removes its folder, and fails if the behaviour changes; it is short."""
        text = script.read_text(encoding="utf-8")
        assert '\nset -euo pipefail\nwork=$(mktemp -d)\ntrap \'rm -rf "$work"\' EXIT\ncd "$work"\n' in text
        assert "\nassert " in text or "\n    assert " in text
        assert "behaviour has changed" in text
        assert len(text.splitlines()) < 120
        assert max(map(len, text.splitlines())) <= 120

    def test_is_listed(self, script: Path) -> None:
        """The table has a line for it."""
        assert f"\n| `{script.stem}` | " in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_no_finding_is_missing() -> None:
    """Every line of the table has its script."""
    listed = re.findall(r"^\| `(\w+)` \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [script.stem for script in SCRIPTS]
