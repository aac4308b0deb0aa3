"""The shape of a score analysis."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["ScoreAnalysis"]


class ScoreTerm(BaseModel):
    """A named part of the score; `cost` is `weight` times `value`, and the costs add up to the score."""

    name: str
    value: float
    weight: float
    cost: float
    unit: str


class ScoreLayer(BaseModel):
    """A layer; its traffic goes to the next layer (context_coherent), or from the homes of its tokens (dispatch)."""

    layer_id: int
    next_layer_id: int | None = Field(description="null under dispatch, and for the last layer.")
    traffic: float | None = Field(description="Adds up to the value of the traffic term; null for the last layer.")
    traffic_bound: float | None = Field(
        description="No plan has less here. These are instant bounds; `bound` of the plan may be tighter."
    )
    leaves_gpu: float | None = Field(description="Share of what is sent that goes to another GPU.")
    leaves_node: float | None = Field(description="Share of what is sent that goes to another node.")
    max_load: float = Field(description="Load of the busiest GPU, relative to its fair share.")
    max_load_bound: float = Field(description="No plan has less, however tokens are split over replicas.")
    busiest_gpu: int
    load_cap: float | None
    load_excess: float = Field(description="Loads above the cap, summed over GPUs; the term is the mean over layers.")
    load_spread: float = Field(description="Standard error of a GPU's load, in mean GPU loads.")


class LayerTraffic(BaseModel):
    """What goes from where to where, as shares of all that is sent in this layer; what stays is on the diagonal."""

    layer_id: int
    next_layer_id: int | None
    gpus: list[list[float]]
    nodes: list[list[float]]


class CostlyExpert(BaseModel):
    """An expert, and the part of the traffic that its tokens have a part in; a pair counts at both of its experts."""

    layer_id: int
    expert: int
    gpus: list[int] = Field(description="GPUs that have a replica.")
    traffic: float


class CostlyPair(BaseModel):
    """Two experts, and the traffic of the tokens that use one after the other."""

    layer_id: int
    expert: int
    next_layer_id: int
    next_expert: int
    traffic: float


class HotReplica(BaseModel):
    """A replica, and the load that it brings to its GPU, relative to the GPU's fair share of the layer."""

    layer_id: int
    expert: int
    gpu: int
    load: float


class ScoreAnalysis(BaseModel):
    """Where the score of a plan comes from, on the tokens that it was fitted to; see `placement.cost.breakdown`."""

    plan: str
    execution: str
    score: float
    bound: float | None
    gap: float | None
    terms: list[ScoreTerm]
    layers: list[ScoreLayer]
    gpu_load: list[list[float]] = Field(description="By layer and GPU, relative to fair shares.")
    traffic: LayerTraffic | None = Field(description="Of the layer that was asked for; null where nothing is sent.")
    experts: list[CostlyExpert] = Field(
        description="The costliest; none under dispatch with deduplication, where a message is for several experts."
    )
    pairs: list[CostlyPair] = Field(description="The costliest; context_coherent only.")
    replicas: list[HotReplica] = Field(description="The hottest.")
    warnings: list[str] = Field(description="Layers that miss their load cap.")
    notes: list[str] = Field(description="What was inferred on reading the trace, or which tokens stand for the rest.")
