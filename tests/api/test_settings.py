"""Settings: where they come from, and that the texts about them are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.problems import CATALOGUE
from api.service.app import create_app
from api.settings.settings import Settings, default_data_dir, unknown_variables

DOCS = (Path(__file__).parents[2] / "docs" / "rest.md").read_text()


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every setting can be given in the environment; what looks like one and is none is told."""
    monkeypatch.setenv("MOE_PLACEMENT_MAX_WORKERS", "3")
    monkeypatch.setenv("MOE_PLACEMENT_MAX_WORKER", "4")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = Settings()
    assert settings.max_workers == 3
    assert settings.data_dir == default_data_dir() == tmp_path / "moe-placement"
    assert "MOE_PLACEMENT_MAX_WORKER" in unknown_variables()
    assert "MOE_PLACEMENT_MAX_WORKERS" not in unknown_variables()


def test_help_tells_the_defaults() -> None:
    """The defaults in `serve --help` are those of the settings."""
    text = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    for name in ("host", "port"):
        assert f"[default: {Settings.model_fields[name].default}]" in text


def test_docs_list_the_settings() -> None:
    """The table of settings is complete, and its defaults are true."""
    rows = re.findall(r"^\| `MOE_PLACEMENT_([A-Z_]+)` \| ([^|]+) \|", DOCS, re.MULTILINE)
    shown = {name.lower(): text.strip() for name, text in rows}
    fields = dict(Settings.model_fields)
    assert list(shown) == list(fields)
    del fields["data_dir"]  # made when it is asked for
    for name, field in fields.items():
        assert shown[name] == ("all cores" if name == "threads_per_plan" else _shown(field.default)), name


def test_docs_list_the_problems() -> None:
    """The table of problems is complete, with the right statuses."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", DOCS, re.MULTILINE)
    assert {slug: int(status) for slug, status in rows} == {slug: kind.status for slug, kind in CATALOGUE.items()}


def test_docs_list_the_endpoints(tmp_path: Path) -> None:
    """The table of endpoints is complete."""
    rows = re.findall(r"^\| `(GET|POST|PATCH|PUT|DELETE) (/[^`]*)` \|", DOCS, re.MULTILINE)
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    known = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert set(rows) - {("GET", "/openapi.json")} == known


def _shown(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)
