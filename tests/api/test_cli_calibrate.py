"""``calibrate``: from a table of one's own to coefficients, and back to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from tests.builders.measurements import rows_of, written


def test_own_table_is_fitted_and_judged(tmp_path: Path) -> None:
    """Coefficients are written; --check judges them by a table, in JSON."""
    table, file = written(tmp_path / "my.csv", rows_of(0, 0.02)), tmp_path / "mine.json"
    done = CliRunner().invoke(app, ["calibrate", str(table), "-o", str(file), "--json"])
    assert done.exit_code == 0, done.stderr
    (told,) = json.loads(done.stdout)["files"]
    assert (told["gpu"], told["kernels"][0]["name"]) == ("h200", "mine")
    done = CliRunner().invoke(app, ["calibrate", "--check", str(table), "--coefficients", str(file), "--json"])
    (judged,) = json.loads(done.stdout)["judged"]
    assert (judged["rows"], judged["phase"], judged["judged_by"]) == (90, "any", "mine")
    assert judged["median"] < 0.03
    shown = CliRunner().invoke(app, ["calibrate", "--check", str(table), "--coefficients", str(file)])
    assert "mine bfloat16" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [["calibrate", "--check"], ["calibrate", "t.csv"], ["calibrate", "t.csv", "--coefficients", "a", "-o", "b"]],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    """Wrong usage, before anything is read."""
    assert CliRunner().invoke(app, arguments).exit_code == 2
