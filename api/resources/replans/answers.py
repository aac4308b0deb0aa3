"""Re-plans as answers show them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.resources.answers import loads
from api.resources.searches.answers import SearchState
from api.store.rows import PlanRow

__all__ = ["BestPlan", "MachineNow", "ReplanAnswer", "ReplanList", "ReplanPoint", "ReplanResource", "RolloutStep"]


class ReplanPoint(BaseModel):
    """A plan between the one that runs and the best one."""

    moved_experts: int
    moved_bytes: int | None
    between_nodes: int
    value: float = Field(description="On the part that plans are fitted on.")
    gain_fraction: float | None
    transfer_s: float | None
    chosen: bool


class BestPlan(BaseModel):
    """What the best plan that was found would move."""

    moved_without_relabelling: int
    moved_with_relabelling: int


class MachineNow(BaseModel):
    """The GPUs that are there."""

    gpus: int
    dead_gpus: list[int]
    rank_before: list[int | None] = Field(description="The rank that each GPU had; null where it is new.")
    lost_experts: list[list[int]] = Field(description="Layer and expert, without a live copy.")


class RolloutStep(BaseModel):
    """A step: a plan that is reached from the one before by one exchange."""

    step: int
    layers: list[int]
    moved_experts: int
    moved_bytes: int | None
    between_nodes: int
    from_checkpoint: int
    staging_experts: int = Field(description="Experts of a layer that a GPU needs room for beside its slots.")
    transfer_s: float | None
    back_transfer_s: float | None = Field(description="The way back to the plan before it.")
    arrivals: list[list[int | None]] = Field(
        description="Layer, expert, GPU, and the GPU that sends it; null: the checkpoint."
    )
    plan: dict[str, Any] = Field(description="The plan after it, a plan file's content.")


class ReplanAnswer(BaseModel):
    """Whether to change the plan that runs, to what, and how; see `solvers.Replan`."""

    verdict: Literal["leave_it", "replan", "not_enough_data"]
    unit: str = Field(description="Of before, after and the front: ms per step, or score.")
    before: float | None = Field(description="On what is held out; null where the plan that runs can't go on.")
    after: float
    gain_fraction: float | None
    gain_interval: list[float] | None = Field(description="90 %.")
    reasons: list[str]
    horizon_s: float
    saved_s: float | None = Field(description="Over the horizon; null where gains are not in time.")
    cost_s: float
    stall_s: float
    transfer_s: float | None
    moved_experts: int
    moved_bytes: int | None
    between_nodes: int
    from_checkpoint: int
    moved_by_layer: dict[str, int]
    best_plan: BestPlan
    front: list[ReplanPoint]
    machine: MachineNow
    steps: list[RolloutStep]


class ReplanSummary(SearchState):
    """A re-plan without what it has found."""

    replaces: str | None = Field(description="Plan that runs, where it was named by its id; it may have been deleted.")

    @classmethod
    def of(cls, row: PlanRow) -> ReplanSummary:
        """Show a row of the store."""
        return cls(**cls.fields_of(row), replaces=row.replaces)


class ReplanResource(ReplanSummary):
    """A re-plan: how it goes, and at the end whether to change the plan that runs, to what, and how."""

    replan: ReplanAnswer | None = Field(description="Null before the end.")
    plan: dict[str, Any] | None = Field(description="The plan to change to, a plan file's content.")

    @classmethod
    def of_documents(cls, row: PlanRow, plan: str | None, summary: str | None) -> ReplanResource:
        """Show a row of the store with the texts of its plan file and its figures."""
        found = None if summary is None else ReplanAnswer.model_validate_json(summary)
        return cls(**cls.fields_of(row), replaces=row.replaces, replan=found, plan=loads(plan))


class ReplanList(BaseModel):
    """A page of re-plans, the newest first."""

    items: list[ReplanSummary]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
