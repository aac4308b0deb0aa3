"""The description of the API that is kept in the repository is the one that the service gives: changes are seen."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from api.service.app import create_app
from api.settings.settings import Settings
from placement.exports import EXPORTS

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "openapi.json"


def test_description_is_kept(tmp_path: Path) -> None:
    """`docs/openapi.json` is up to date; with UPDATE_OPENAPI=1 it is written anew."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for package in ("fastapi", "pydantic"):
        if version(package) != pins[package]:
            pytest.skip(
                f"{package} is {version(package)}, not {pins[package]}: it may describe the same API in other words."
            )
    content = create_app(Settings(data_dir=tmp_path)).openapi()
    content["info"].pop("version")
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_OPENAPI"):
        KEPT.write_text(text)
    assert json.loads(KEPT.read_text()) == json.loads(text), "run UPDATE_OPENAPI=1 pytest tests/api/test_openapi.py"


def test_formats_have_names_for_people(tmp_path: Path) -> None:
    """The formats of exports are listed, each with the engine that loads it: the page offers them by it."""
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    parameters = paths["/v1/plans/{plan_id}/exports/{format}"]["get"]["parameters"]
    schema = next(item["schema"] for item in parameters if item["name"] == "format")
    assert schema["enum"] == [export.name for export in EXPORTS]
    assert schema["x-enum-descriptions"] == [export.engine for export in EXPORTS]
    assert len(set(schema["x-enum-descriptions"])) == len(EXPORTS)


def test_links_name_operations_and_their_parameters(tmp_path: Path) -> None:
    """Whatever makes something with an id leads on to every operation on it, with the id in the right place."""
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    operations = {item["operationId"]: path for path, methods in paths.items() for item in methods.values()}
    assert len(operations) == sum(map(len, paths.values())), "an id stands for one operation"
    linked = set()
    for methods in paths.values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for link in response.get("links", {}).values():
                    path = operations[link["operationId"]]
                    assert all(f"{{{name}}}" in path for name in link["parameters"]), (path, link)
                    linked.add(link["operationId"])
    assert linked == {name for name, path in operations.items() if "_id}" in path}
