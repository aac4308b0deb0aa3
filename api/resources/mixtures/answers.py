"""Mixtures as answers show them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.resources.answers import loads
from api.resources.searches.answers import JobState
from api.store.rows import PlanRow

__all__ = ["MixtureList", "MixtureResource", "MixtureSummary"]


class MixtureRound(BaseModel):
    """A search for the mixture."""

    weights: list[float] = Field(description="Of the domains, that it was made with.")
    costs: list[float] = Field(description="Of its plan in each domain, on the tokens to fit, hedged.")
    target: float = Field(description="What is minimised, of these.")


class MixtureCell(BaseModel):
    """A plan on held-out tokens of a domain."""

    cost: float
    interval: list[float] = Field(description="95 %.")
    fit: float = Field(description="The cost on the tokens to fit.")
    imbalance: float
    traffic: float
    step_ms: float | None


class MixturePlan(BaseModel):
    """A plan on all domains."""

    target: float = Field(description="What is minimised over the domains, held out.")
    interval: list[float] = Field(description="95 %.")
    above_mixture: list[float] = Field(description="95 % interval of how far it is above the mixture's.")
    step_ms: float | None
    domains: dict[str, MixtureCell]


class MixtureBoundAnswer(BaseModel):
    """What no plan can beat, on the tokens to fit."""

    costs: list[float]
    cost: float
    bound: float
    gap: float


class PoolAnswer(BaseModel):
    """GPUs for some of the domains."""

    domains: list[str]
    gpus: list[int]
    slots_per_gpu: int
    step_ms: float
    load_ms: float = Field(description="What it takes in the time of one pass of the whole machine.")


class PoolsAnswer(BaseModel):
    """Pools against one plan for all."""

    together_ms: float | None
    apart_ms: float | None
    saved: float | None = Field(description="Share of the time that pools save; negative where they lose.")
    reason: str
    interval: list[float] | None = Field(description="95 %, of what is saved.")
    pools: list[PoolAnswer]


class MixtureAnswer(BaseModel):
    """The held-out matrix, and how the plan was found; as `moe-placement mixture --json` gives it."""

    over: Literal["worst", "weighted", "quantile"]
    quantile: float | None
    unit: str
    domains: list[str]
    weights: list[float]
    rounds: list[MixtureRound]
    plans: dict[str, MixturePlan] = Field(description="`mixture`, `pooled`, and `only NAME` for each domain.")
    found_by: str = Field(
        description="What the mixture's plan was found by: `round`, the best one, or what does better: `pooled`, "
        "`only NAME`."
    )
    bound: MixtureBoundAnswer
    pools: PoolsAnswer | None
    notes: list[str]


class MixtureSummary(JobState):
    """A mixture without what it has found."""

    traces: list[str]

    @classmethod
    def state_of(cls, row: PlanRow) -> dict[str, Any]:
        """Return these fields for a row of the store."""
        return cls.fields_of(row) | {"traces": row.request["traces"]}

    @classmethod
    def of(cls, row: PlanRow) -> MixtureSummary:
        """Show a row of the store."""
        return cls(**cls.state_of(row))


class MixtureResource(MixtureSummary):
    """A mixture: how it goes, and at the end one plan for all domains beside simpler ones."""

    mixture: MixtureAnswer | None = Field(description="Null before the end.")
    plan: dict[str, Any] | None = Field(description="The plan for all domains, a plan file's content.")

    @classmethod
    def of_documents(cls, row: PlanRow, plan: str | None, summary: str | None) -> MixtureResource:
        """Show a row of the store with the texts of its plan file and its figures."""
        found = None if summary is None else MixtureAnswer.model_validate_json(summary)
        return cls(**cls.state_of(row), mixture=found, plan=loads(plan))


class MixtureList(BaseModel):
    """A page of mixtures, the newest first."""

    items: list[MixtureSummary]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")
