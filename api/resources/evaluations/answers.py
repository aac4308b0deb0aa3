"""The figures of an evaluation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["Evaluation"]


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
    balancedness_vllm: float
    imbalance_trtllm: float
    imbalance_optimal_split: float | None = Field(description="Null for plans without replicas.")
    activated_experts: float | None = Field(
        description="Null unless the plan was made for activated experts, or a decode_batch was given."
    )
    per_layer: dict[str, list[Any]]
    traffic_matrix: list[list[int]]
    hottest_links: list[dict[str, Any]]
    gpu_load: list[list[int]]
    notes: list[str] = Field(description="What was inferred on reading the trace, or which tokens stand for the rest.")
