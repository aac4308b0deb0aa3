"""Residency as answers show it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["Policy", "Residency"]


class Policy(BaseModel):
    """A policy on steps that nothing was fitted on; see `solvers.PolicyFigures`."""

    name: str
    summary: str
    practical: bool = Field(description="Whether an engine can follow it.")
    hit_rate: float = Field(description="Of the accesses: in the cache, or fetched ahead.")
    cache_hit_rate: float
    prefetch_hit_rate: float
    transfers_per_step: float = Field(description="Experts that are moved, on demand or ahead.")
    wasted_per_step: float = Field(description="Those fetched ahead for nothing.")
    moved: dict[str, float] = Field(description="Transfers per step from each tier.")
    gb_per_step: float | None = Field(description="Null where the size of an expert is not known.")
    step: float = Field(description="Time of a step in `unit`, mean.")
    step_p99: float = Field(description="99 % of the steps take no longer.")
    waited: float = Field(description="Of a step: waiting for experts.")
    budget: Literal["shared", "equal", "by_gain"]
    slots_per_layer: list[int] = Field(description="Empty where all layers share them.")
    settings: dict[str, float] = Field(description="Chosen on the part that was fitted.")


class Residency(BaseModel):
    """Which experts should stay in a GPU's memory; see `solvers.Residency`."""

    best: str = Field(description="The practical policy whose step takes the least time.")
    reference: str = Field(description="The policy that bounds the others.")
    fits: bool = Field(description="Whether all experts fit.")
    unit: Literal["ms", "transfers"]
    slots: int = Field(description="Resident experts of all layers.")
    experts: int
    expert_bytes: float | None
    memory_gb: float | None = Field(description="Of the resident experts.")
    steps: int
    accesses: int
    tokens: int
    batch_tokens: int
    phase: Literal["prefill", "decode"]
    policies: list[Policy]
    layer_ids: list[int] = Field(description="Model layers.")
    resident: list[list[int]] = Field(description="Experts of each layer that `static` keeps.")
    notes: list[str]
