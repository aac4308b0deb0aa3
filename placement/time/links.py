"""The time of an exchange over shared links: the busiest of ranks' links and nodes' uplinks, by what each carries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Links"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Links:
    """Links of ranks, and uplinks that all ranks of a node share.

    Every link carries both directions at once, each at its own speed. An exchange ends when the busiest direction of
    the busiest link has carried what goes over it: a slow link, or one that is oversubscribed, holds up everyone (C4,
    arXiv 2406.04594).

    Attributes
    ----------
    node_of_gpu : (G,) int64
        Node of each rank.
    rank_gb_s : (G,) float64
        Gigabytes per second of each rank's link, per direction.
    uplink_gb_s : (N,) float64
        The same of each node's uplink; infinite where ranks have links of their own to other nodes.
    launch_ms : float
        What an exchange takes that moves nothing.
    """

    node_of_gpu: npt.NDArray[np.int64]
    rank_gb_s: Floats
    uplink_gb_s: Floats
    launch_ms: float = 0.0

    def ms(self, gb: npt.ArrayLike) -> Floats:
        """Return milliseconds of exchanges, (...).

        Parameters
        ----------
        gb : (..., G, G) numbers
            Gigabytes from rank to rank; the diagonal stays where it is.
        """
        moved = np.array(gb, float)
        gpus = np.arange(moved.shape[-1])
        moved[..., gpus, gpus] = 0
        ranks = np.maximum(moved.sum(axis=-1), moved.sum(axis=-2)) / self.rank_gb_s
        member = np.eye(len(self.uplink_gb_s))[self.node_of_gpu]  # (G, N)
        between = member.T @ moved @ member
        nodes = np.arange(len(self.uplink_gb_s))
        between[..., nodes, nodes] = 0
        uplinks = np.maximum(between.sum(axis=-1), between.sum(axis=-2)) / self.uplink_gb_s
        found: Floats = self.launch_ms + 1e3 * np.maximum(ranks.max(axis=-1), uplinks.max(axis=-1))
        return found
