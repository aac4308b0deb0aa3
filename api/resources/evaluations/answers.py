"""The figures of an evaluation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["Evaluation", "PassFigures"]


class PassFigures(BaseModel):
    """Balance of the GPUs in forward passes of one size, as engines log it; see `placement.PassFigures`."""

    pass_tokens: int = Field(description="Consecutive tokens of a pass.")
    passes: int
    balancedness_vllm: float | None = Field(description="Null where the tokens make no whole pass, as the others.")
    utilization_sglang: float | None
    imbalance_trtllm: float | None


class Evaluation(BaseModel):
    """What the tokens of the trace do under the plan; see `placement.Evaluation`."""

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
