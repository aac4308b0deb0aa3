"""The verdict on a trace: what its tokens do under a plan, what crosses, and who waits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy
from placement.replay.passes import PassFigures
from traces import Violations
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.shown import Facts, Shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evaluation", "HotLink"]


@dataclass(frozen=True, kw_only=True)
class HotLink:
    """A pair of GPUs, the messages from one to the other, and their share of all messages that leave a GPU."""

    source: int
    target: int
    messages: int
    share: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evaluation(Shown, ByContent):
    """What the tokens of a trace do under a plan. Names are fixed; all are also given per layer.

    Attributes
    ----------
    tokens : int
    cross_gpu_fraction, cross_node_fraction : float
        ``context_coherent``: share of inter-layer pair weight between different GPUs (nodes). ``dispatch``: share of
        expert assignments that leave the home GPU (node).
    fanout_gpus, fanout_nodes : float
        Distinct GPUs (nodes) per token and layer.
    remote_gpus, remote_nodes : float or None
        As the fan-out, without the home; None for ``context_coherent``.
    traffic : float
        Traffic term of the objective on this trace; its unit is `traffic_unit`.
    imbalance_max_over_mean : float
        Mean over layers of the largest GPU load by the mean.
    balancedness_whole_trace : float
        Sum over layers of the mean load by the sum of the maxima, over all tokens. Engines log this ratio per forward
        pass, where it is lower: see `per_pass`.
    per_pass : tuple of PassFigures
        Balance per forward pass of each size, as engines log it.
    imbalance_optimal_split : float or None
        The least `imbalance_max_over_mean` that any split of these tokens over the replicas gives; None for plans
        without replicas.
    activated_experts : float or None
        The most experts with tokens on a GPU, mean over layers and batches of `decode_batch` tokens that are drawn at
        random from the trace (32,768 tokens at most); None if no batch was given.
    per_layer : dict of str to list
        Under the same names; entry l of the context-coherent crossings stands for the boundary l, l+1.
    traffic_matrix : (G, G) int64
        Pairs or messages from GPU to GPU, all layers together; what stays is on the diagonal.
    hottest_links : tuple of HotLink
    gpu_load : (L, G) int64
        Expert assignments.
    """

    execution: Execution
    dedup: Dedup | None
    ownership: Ownership | None
    replica_policy: ReplicaPolicy
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
    balancedness_whole_trace: float
    per_pass: tuple[PassFigures, ...]
    imbalance_optimal_split: float | None
    activated_experts: float | None
    per_layer: dict[str, list[Any]]
    traffic_matrix: npt.NDArray[np.int64]
    hottest_links: tuple[HotLink, ...]
    gpu_load: npt.NDArray[np.int64]

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation as a JSON-ready dictionary."""
        result = {field.name: getattr(self, field.name) for field in fields(self)}
        result["traffic_matrix"] = self.traffic_matrix.tolist()
        result["gpu_load"] = self.gpu_load.tolist()
        result["hottest_links"] = [asdict(link) for link in self.hottest_links]
        result["per_pass"] = [asdict(item) for item in self.per_pass]
        return result

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `as_dict` has made a dictionary of.

        Parameters
        ----------
        content : mapping
            Every attribute under its name, lists in place of arrays and tuples, as JSON gives it.

        Raises
        ------
        InputError
            If an attribute is missing, or there is one that an evaluation does not have.
        """
        found, names = Violations(), {field.name for field in fields(cls)}
        for name in sorted(names - set(content)):
            found.add("missing_field", f"/{name}", "The field is missing.", "Give what `as_dict` returns.")
        for name in sorted(set(content) - names):
            found.add("unknown_field", f"/{name}", "There is no such field.", "Give what `as_dict` returns.")
        found.raise_if_any()
        arrays = {name: np.array(content[name], dtype=np.int64) for name in ("traffic_matrix", "gpu_load")}
        links = tuple(HotLink(**link) for link in content["hottest_links"])
        per_pass = tuple(PassFigures(**item) for item in content["per_pass"])
        return cls(**{**content, **arrays, "hottest_links": links, "per_pass": per_pass})

    def _shown(self) -> tuple[str, Facts]:
        how = "" if self.dedup is None else f", dedup {self.dedup}, ownership {self.ownership}"
        crossing = f"{self.cross_gpu_fraction:.1%} leave the GPU, {self.cross_node_fraction:.1%} the node"
        remote = "" if self.remote_gpus is None else f"; remote: {self.remote_gpus:.3f}, {self.remote_nodes:.3f}"
        shown = {
            "tokens": f"{self.tokens:,} in {len(self.per_layer['layer_id'])} layers",
            "execution": f"{self.execution}{how}, replica policy {self.replica_policy}",
            "crossing": crossing,
            "GPUs, nodes per token and layer": f"{self.fanout_gpus:.3f}, {self.fanout_nodes:.3f}{remote}",
            "traffic": f"{self.traffic:.4f} {self.traffic_unit}",
            "busiest GPU / mean": f"{self.imbalance_max_over_mean:.4f}",
        }
        if self.imbalance_optimal_split is not None:
            shown["... with the best split"] = f"{self.imbalance_optimal_split:.4f}"
        for item in self.per_pass:
            if item.imbalance_trtllm is not None:
                shown[f"... per pass of {item.pass_tokens:,} tokens"] = f"{1 + item.imbalance_trtllm:.4f}"
        if self.activated_experts is not None:
            shown["activated experts"] = f"{self.activated_experts:.2f} on the GPU that has most"
        return "Evaluation", shown

    def to_frame(self) -> pd.DataFrame:
        """Return the figures per layer as a pandas DataFrame, one row each, `layer_id` first.

        Figures of a boundary (context-coherent crossings and traffic) are in the row of its first layer; the last
        layer has none.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        layers = len(self.per_layer["layer_id"])
        missing = [math.nan]
        return frame({name: [*values, *missing * (layers - len(values))] for name, values in self.per_layer.items()})
