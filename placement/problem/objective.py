"""What is minimised: named terms with units and weights, for both ways that tokens travel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from traces import Violations

__all__ = ["Dedup", "Execution", "Objective", "Ownership", "ReplicaPolicy"]

Execution = Literal["context_coherent", "dispatch"]
Dedup = Literal["none", "gpu", "node"]
Ownership = Literal["token", "sequence", "measured"]
ReplicaPolicy = Literal["fair", "same_gpu", "same_node"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The weighted sum of terms that a plan is judged by.

    Attributes
    ----------
    execution : {"context_coherent", "dispatch"}
        ``context_coherent`` (ExFlow, arXiv 2401.08383): a token goes from its experts of layer l straight to those of
        l+1. ``dispatch``: it leaves its home rank and comes back in every layer (vLLM, SGLang, TensorRT-LLM, Megatron).
    dedup : {"none", "gpu", "node"}
        Messages of a dispatch: one per expert, per distinct GPU, or per distinct remote node, forwarded inside
        (DeepEP's normal kernels). Without meaning for ``context_coherent``.
    ownership : {"token", "sequence", "measured"}
        Home rank of a token under ``dispatch``: hashed per token, hashed per sequence (needs `seq_id`), or the trace's
        `source_rank`.
    replica_policy : {"fair", "same_gpu", "same_node"}
        Which replica of a replicated expert a token uses: an equal split; one on the token's own GPU if there is one,
        else an equal split; or own GPU, own node, equal split.
    traffic_weight, imbalance_weight, load_excess_weight, load_spread_weight : float
        Weights. `traffic`: hop cost per inter-layer pair (context_coherent), per expert assignment (dispatch, dedup
        none), or per token and layer (dedup gpu, node). `imbalance`: mean over layers of max/mean GPU load, minus 1.
        `load_excess`: mean over layers of the load above the cap, summed over GPUs, in mean GPU loads. `load_spread`:
        standard error of a GPU's load over the profile's windows, mean over layers, above the tolerance, in mean GPU
        loads. Experts that fire together also peak together; without this term a cap that holds on the fitted tokens is
        missed on others. The excess counts only where a load cap is set, the spread where there is a cap or the
        imbalance has a weight, and not with `Constraints.load_quantile`, which takes its place; it vanishes as the
        trace gets longer.
    load_spread_tolerance : float
        Spread that costs nothing, as a share of a layer's load.
    activated_weight : float
        Weight of `activated` (dispatch only; needs tokens): the most experts with tokens on a GPU in a batch, mean over
        layers and batches. Memory-bound decoding waits for it.
    decode_batch : int
        Tokens in such a batch, over all ranks together.
    """

    execution: Execution = "context_coherent"
    dedup: Dedup = "gpu"
    ownership: Ownership = "token"
    replica_policy: ReplicaPolicy = "fair"
    traffic_weight: float = 1.0
    imbalance_weight: float = 0.0
    load_excess_weight: float = 100.0
    load_spread_weight: float = 3.0
    load_spread_tolerance: float = 0.0088
    activated_weight: float = 0.0
    decode_batch: int = 128

    def __post_init__(self) -> None:
        found = Violations()
        choices = {"execution": Execution, "dedup": Dedup, "ownership": Ownership, "replica_policy": ReplicaPolicy}
        for name, kind in choices.items():
            value = getattr(self, name)
            if value not in get_args(kind):
                detail = f"{value!r} is not one of {list(get_args(kind))}."
                found.add("unknown_choice", f"/objective/{name}", detail, "Choose one of them.")
        for name in (
            "traffic_weight",
            "imbalance_weight",
            "load_excess_weight",
            "load_spread_weight",
            "load_spread_tolerance",
            "activated_weight",
        ):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                detail = f"Weight {value} must be finite and not negative."
                found.add("weight_range", f"/objective/{name}", detail, "Use 0 to leave the term out.")
        if self.activated_weight and self.execution != "dispatch":
            detail = "Activated experts are counted with home ranks, which only execution 'dispatch' knows."
            found.add("activated_execution", "/objective/activated_weight", detail, "Use 'dispatch', or weight 0.")
        if not 1 <= self.decode_batch <= 1_000_000:
            detail = f"{self.decode_batch} tokens per batch."
            found.add("decode_batch_range", "/objective/decode_batch", detail, "Give 1 to 1,000,000.")
        found.raise_if_any()

    @property
    def traffic_unit(self) -> str:
        """Unit of the traffic term."""
        if self.execution == "context_coherent":
            return "hop cost per inter-layer pair"
        return "hop cost per expert assignment" if self.dedup == "none" else "hop cost per token and layer"

    @classmethod
    def for_execution(cls, execution: Execution, dedup: Dedup = "gpu", *, capped: bool = False) -> Objective:
        """Return the objective that fits an engine.

        Under dispatch the nearest replica of an expert is used, and the busiest GPU counts: every layer waits for it
        twice. On other tokens, the busiest of 64 GPUs is about 2 standard errors above what was expected, so the spread
        has twice the weight of the imbalance. With a load cap (`capped`) it is the cap that says how much balance is
        wanted: the imbalance has no weight below it, and the spread the same as for ``context_coherent``.
        """
        if execution == "dispatch":
            near = cls(execution=execution, dedup=dedup, replica_policy="same_node")
            if capped:
                return near
            return replace(near, imbalance_weight=30.0, load_spread_weight=60.0, load_spread_tolerance=0.0)
        return cls(execution=execution, dedup=dedup)
