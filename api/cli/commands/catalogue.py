"""``moe-placement solvers`` and ``formats``."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from api.cli.console import Json, print_json, write

__all__ = ["formats", "solvers"]


def solvers(as_json: Json = False) -> None:
    """List the solvers and their options."""
    from solvers import names, solver_class

    listed = []
    for name in names():
        kind = solver_class(name)
        options = {item.name: {"type": str(item.type), "default": _default(item)} for item in fields(kind)}
        listed.append({"name": name, "summary": kind.summary, "options": options})
    if as_json:
        print_json({"solvers": listed})
        return
    for item in listed:
        write(f"{item['name']}\n    {item['summary']}")
        for name, option in item["options"].items():
            write(f"    --option {name}={option['default']}  ({option['type']})")


def formats(as_json: Json = False) -> None:
    """List the formats of traces and of placement files."""
    from placement.exports import EXPORTS
    from traces.formats.registry import READERS

    traces = [
        {"name": reader.name, "also_named": list(reader.also_named), "content": reader.content} for reader in READERS
    ]
    placements = [
        {
            "name": export.name,
            "also_named": list(export.also_named),
            "content": export.content,
            "engine": export.engine,
            "load": export.usage,
        }
        for export in EXPORTS
    ]
    if as_json:
        print_json({"traces": traces, "placements": placements})
        return
    write("Traces, to read (--format NAME):")
    for item in traces:
        write(f"  {_names(item)}\n      {item['content']}")
    write("\nPlacements, to write, check and read (--engine NAME, --to NAME, --plan-format NAME):")
    for item in placements:
        write(f"  {_names(item)}\n      {item['content']}\n      load it with: {item['load']}")


def _names(item: dict[str, Any]) -> str:
    return " or ".join([item["name"], *item["also_named"]])


def _default(item: Any) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default
