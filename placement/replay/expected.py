"""What a plan makes of counts: expected loads of the GPUs, without any token."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.loads.policies import POLICIES, replica_share
from placement.plan.plan import Plan
from placement.topology.topology import Topology
from traces import InputError, LoadCounts, Violations
from traces.support.content import ByContent

__all__ = ["ExpectedLoads", "expected_loads"]


@dataclass(frozen=True, kw_only=True)
class ExpectedLoads(ByContent):
    """Loads of the GPUs that counts per expert lead to, whatever tokens they are of.

    Attributes
    ----------
    imbalance_max_over_mean : float
        Busiest GPU's load over the mean GPU's, the mean over layers; 1 is balanced.
    balancedness_whole_trace : float
        Mean load over the busiest GPU's load, both summed over layers.
    imbalance_trtllm : float
        Mean over layers of the busiest GPU's load over the mean, less 1.
    count : float
        Tokens (or any weight), summed over the layers that count.
    layers : int
        Layers that count: those of the plan that have counts.
    """

    imbalance_max_over_mean: float
    balancedness_whole_trace: float
    imbalance_trtllm: float
    count: float
    layers: int

    @classmethod
    def of(cls, gpu_load: npt.NDArray[np.float64], count: float) -> ExpectedLoads:
        """Return the figures of shares of each layer's load by GPU, (L, G); rows sum to 1."""
        largest = gpu_load.max(axis=1) * gpu_load.shape[1]
        return cls(
            imbalance_max_over_mean=float(largest.mean()),
            balancedness_whole_trace=float(len(largest) / largest.sum()),
            imbalance_trtllm=float((largest - 1).mean()),
            count=count,
            layers=len(gpu_load),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def expected_loads(
    plan: Plan, counts: LoadCounts, topology: Topology | None = None, *, replica_policy: str = "fair"
) -> ExpectedLoads:
    """Return the loads of the GPUs that counts lead to under a plan.

    Parameters
    ----------
    plan : Plan
    counts : LoadCounts
        Layers without counts, and layers that the plan lacks, don't count.
    topology : Topology, optional
        For the nodes, which a policy by node asks for; the plan's own by default.
    replica_policy : {"fair", "same_gpu", "same_node"}
        Which replica a token takes. Every GPU is as likely a token's home as another.

    Raises
    ------
    InputError
        If plan and counts have other experts, or no layer in common.
    """
    topology = Topology.of(plan.gpus_per_node) if topology is None else topology
    found = Violations()
    if not isinstance(counts, LoadCounts):
        detail = f"{type(counts).__name__} holds no counts per expert."
        raise InputError.of("wrong_type", "/counts", detail, "Give LoadCounts; `evaluate` replays tokens.")
    if replica_policy not in POLICIES:
        detail = f"{replica_policy!r:.40} is not one of {list(POLICIES)}."
        found.add("unknown_choice", "/replica_policy", detail, "Choose one.")
    if counts.num_experts != plan.num_experts:
        detail = f"The counts have {counts.num_experts} experts, the plan {plan.num_experts}."
        found.add("num_experts_differ", "/num_experts", detail, "Give counts of the model that the plan is for.")
    if topology.num_gpus != plan.num_gpus:
        detail = f"The topology has {topology.num_gpus} GPUs, the plan {plan.num_gpus}."
        found.add("num_gpus_differ", "/topology", detail, "Name the machine that the plan was made for.")
    layers, mine, theirs = np.intersect1d(plan.layer_ids, counts.layer_ids, return_indices=True)
    if not layers.size:
        detail = f"The plan has layers {plan.layer_ids[:8].tolist()}, the counts {counts.layer_ids[:8].tolist()}."
        found.add("layers_differ", "/layer_ids", detail, "Name the layers of the counts: `layer_ids`, or `model`.")
    found.raise_if_any()
    load = counts.load[theirs]
    shares = load / load.sum(axis=1, keepdims=True)
    held = plan.replicas_on_gpu[mine]
    gpu_load = np.einsum("le,leg->lg", shares, replica_share(held, replica_policy, topology.node_of_gpu, None))
    return ExpectedLoads.of(gpu_load, float(load.sum()))
