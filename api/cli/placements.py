"""Placement files that commands are given: plans, and those of engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from api.cli.console import say

if TYPE_CHECKING:
    from placement import Plan, Topology
    from traces import ModelLayout

__all__ = ["read_placement"]


def read_placement(
    path: Path,
    format_name: str | None,
    *,
    topology: Topology | None = None,
    model: ModelLayout | None = None,
    num_experts: int | None = None,
    layer_ids: tuple[int, ...] | None = None,
) -> Plan:
    """Read a plan, or a placement file of an engine, and tell what was assumed."""
    from placement.exports import Context, load_placement

    plan = load_placement(
        path,
        Context(
            model=model,
            layer_ids=layer_ids,
            num_experts=num_experts,
            gpus_per_node=None if topology is None else topology.gpus_per_node,
        ),
        format=format_name,
    )
    source = plan.provenance.get("placement")
    for note in source.get("notes", ()) if isinstance(source, dict) else ():
        say(f"{path.name}: {note}", "note")
    return plan
