"""Topologies as answers show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.resources.answers import time_of
from api.store.rows import TopologyRow
from placement import Topology

__all__ = ["TopologyList", "TopologyPreset", "TopologyResource"]


class TopologyPreset(BaseModel):
    """A known machine."""

    name: str = Field(description="Write NAME:NODES as a plan's topology.")
    text: str
    gpus_per_node: int
    intra_node: dict[str, float]
    inter_node: dict[str, float]
    memory_gb: float
    gpus_per_host: int


class TopologyResource(BaseModel):
    """A stored topology."""

    id: str = Field(description="Write it as a plan's topology.")
    name: str | None
    tags: list[str]
    created_at: datetime
    topology: str | dict[str, Any] = Field(description="Shorthand, or the content of a topology file.")
    num_nodes: int
    num_gpus: int
    notes: list[str] = Field(description="What was understood, and what is assumed.")
    warnings: list[str] = Field(
        description="What makes no sense in it: a hop between nodes that costs less than inside."
    )

    @classmethod
    def of(cls, row: TopologyRow, topology: Topology) -> TopologyResource:
        """Show a row of the store."""
        return cls(
            id=row.id,
            name=row.name,
            tags=row.tags,
            created_at=time_of(row.created_at),
            topology=row.content,
            num_nodes=topology.num_nodes,
            num_gpus=topology.num_gpus,
            notes=list(topology.notes),
            warnings=list(topology.warnings),
        )


class TopologyList(BaseModel):
    """Stored topologies, the newest first; and the machines and shorthands that everybody has."""

    items: list[TopologyResource]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
    presets: list[TopologyPreset]
    shorthands: dict[str, str]
