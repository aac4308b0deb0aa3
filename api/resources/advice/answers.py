"""An advice as answers show it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, RootModel

__all__ = ["Advice", "AdviceAnswer", "Alternative", "OnePlan", "Pool", "Pools", "TwoPhases"]

Verdict = Literal["worth_it", "not_worth_it", "not_enough_data"]


class Alternative(BaseModel):
    """Something else that could be done with the same machine."""

    name: str
    step_ms: float | None = Field(description="Null where it can't be run, or is not known.")
    gain_fraction: float | None = Field(description="Of the step of the plan that runs.")
    memory_gb: float | None = Field(description="Weights of experts on a GPU.")
    extra_memory_gb: float | None = Field(description="What that is beyond the plan that runs.")
    detail: str


class Advice(BaseModel):
    """Whether to change the placement; see `solvers.Advice`."""

    verdict: Verdict
    step_ms_before: float
    step_ms_after: float
    gain_fraction: float = Field(description="Of the step.")
    gain_interval: list[float] = Field(description="90 %, over sequences and the time model's own error.")
    moe_share: float = Field(description="Of dispatch, experts and combine in the step before.")
    reasons: list[str]
    alternatives: list[Alternative]


class OnePlan(BaseModel):
    """One plan for both phases: the one that costs both less."""

    of: Literal["prefill", "decode"] = Field(description="Whose plan it is.")
    prefill_step_ms: float
    prefill_cost_fraction: float = Field(description="Beyond the phase's own plan.")
    decode_step_ms: float
    decode_cost_fraction: float


class Pool(BaseModel):
    """A pool of GPUs for one phase."""

    least_gpus: int = Field(description="That hold all experts.")
    gpus: int
    expert_gb_per_gpu: float
    tokens_per_s_per_gpu: float


class Pools(BaseModel):
    """What separate pools need."""

    prefill: Pool
    decode: Pool
    prefill_gpus_per_decode_gpu: float = Field(description="For as many tokens of prompts as of answers.")
    moved_gb: float = Field(description="To go from one plan to the other on the same GPUs.")
    detail: str


class TwoPhases(BaseModel):
    """Prefill and decode, each with a plan of its own; see `solvers.TwoPhases`."""

    verdict: Verdict
    phases: dict[Literal["prefill", "decode"], Advice]
    one_plan: OnePlan
    separate_pools: Pools
    reasons: list[str]


class AdviceAnswer(RootModel[Advice | TwoPhases]):
    """Advice on one phase, or on both."""
