"""Loads and affinity as answers show them."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["Affinity"]


class Affinity(BaseModel):
    """Loads of a trace, and the affinity of two consecutive layers."""

    trace: str
    layer_id: int | None = Field(description="First layer of the pair; null without affinity.")
    next_layer_id: int | None
    tokens: int | None = Field(description="Tokens that were counted; null for counts.")
    num_experts: int
    experts_per_cell: int = Field(description="Experts next to each other that share a cell; the last may have fewer.")
    layers_per_row: int = Field(description="Layers next to each other that share a row of the load.")
    layer_ids: list[int] = Field(description="First layer of each row of the load.")
    load: list[list[float]] = Field(description="Assignments by layer (rows) and expert (cells).")
    affinity: list[list[int]] | None = Field(
        description="Pairs (token, expert in `layer_id`, expert in `next_layer_id`); null for counts and single layers."
    )
    notes: list[str]
