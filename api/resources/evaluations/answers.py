"""The figures of an evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, RootModel

__all__ = ["CountsEvaluation", "DumpLoads", "Evaluation", "PassFigures", "ReplayAnswer"]


class PassFigures(BaseModel):
    """Balance of the GPUs in forward passes of one size, as engines log it; see `placement.PassFigures`."""

    pass_tokens: int = Field(description="Consecutive tokens of a pass.")
    passes: int
    balancedness_vllm: float | None = Field(description="Null where the tokens make no whole pass, as the others.")
    utilization_sglang: float | None
    imbalance_trtllm: float | None


class Evaluation(BaseModel):
    """What the tokens of the trace do under the plan; see `placement.Evaluation`."""

    kind: Literal["tokens"] = "tokens"
    execution: str
    dedup: str | None
    ownership: str | None
    replica_policy: str
    tokens: int
    cross_gpu_fraction: float
    cross_node_fraction: float
    fanout_gpus: float
    fanout_nodes: float
    remote_gpus: float | None
    remote_nodes: float | None
    traffic: float
    traffic_unit: str
    imbalance_max_over_mean: float
    balancedness_whole_trace: float = Field(
        description="Mean load by the largest, over all tokens; engines log it per pass, where it is lower."
    )
    per_pass: list[PassFigures] = Field(description="Balance per forward pass of each size, mean over passes.")
    imbalance_optimal_split: float | None = Field(description="Null for plans without replicas.")
    activated_experts: float | None = Field(
        description="Null unless the plan was made for activated experts, or a decode_batch was given."
    )
    per_layer: dict[str, list[Any]]
    traffic_matrix: list[list[int]]
    hottest_links: list[dict[str, Any]]
    gpu_load: list[list[int]]
    notes: list[str] = Field(description="What was inferred on reading the trace, or which tokens stand for the rest.")


class DumpLoads(BaseModel):
    """Loads of the GPUs that the counts of one point in time lead to."""

    name: str
    imbalance_max_over_mean: float
    balancedness_whole_trace: float
    imbalance_trtllm: float
    count: float
    layers: int


class CountsEvaluation(BaseModel):
    """Loads of the GPUs that counts lead to under the plan, without any token; see `placement.ExpectedLoads`."""

    kind: Literal["counts"] = "counts"
    replica_policy: str = Field(description="Which replica a token takes.")
    imbalance_max_over_mean: float = Field(description="Busiest GPU by the mean one, the mean over layers.")
    balancedness_whole_trace: float
    imbalance_trtllm: float
    count: float = Field(description="Tokens, or any weight, summed over the layers that count.")
    layers: int = Field(description="Layers of the plan that have counts.")
    dumps: list[DumpLoads] = Field(description="Of each dump over time, in order; empty for counts of one time.")
    notes: list[str] = Field(description="What was inferred on reading the counts, and which dumps stand for the rest.")


class ReplayAnswer(RootModel[Annotated[Evaluation | CountsEvaluation, Field(discriminator="kind")]]):
    """Figures of tokens, or of counts."""
