"""What holds up an exchange between nodes: the SMs that forward copies within nodes, or the links between nodes.

A kernel such as DeepEP's normal mode sends a token once to each node and has a rank there forward it to its GPUs. With
few SMs its time falls as 1 / SMs, and with enough of them it stays at what the links carry: two rates per number of
nodes, told apart by measurements with several numbers of SMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_GROUPS", "Bottleneck", "Way", "bottleneck_at", "distinct_places", "forwarded_copies"]

Floats = npt.NDArray[np.float64]
Way = Literal["dispatch", "combine"]
MOST_GROUPS = 4  # nodes per token that DeepEP's own test routes to


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """Rates of one direction on one number of nodes.

    Attributes
    ----------
    way : {"dispatch", "combine"}
    nodes : int
    sm_ms_per_gb : float
        Milliseconds that one SM takes for a gigabyte that its rank forwards within the node.
    link_ms_per_gb : float
        Milliseconds per gigabyte that a rank sends to or gets from other nodes; 0 where links never were the slower.
    """

    way: Way
    nodes: int
    sm_ms_per_gb: float
    link_ms_per_gb: float = 0.0

    def ms(self, sms: int, forwarded_gb: npt.ArrayLike, across_gb: npt.ArrayLike) -> Floats:
        """Return what the slower of the two takes, (...) milliseconds without start-up.

        Parameters
        ----------
        sms : int
        forwarded_gb, across_gb : (...) numbers
            Of the mean rank, and of the busiest.
        """
        forwarding = np.asarray(forwarded_gb, float) * (self.sm_ms_per_gb / sms)
        found: Floats = np.maximum(forwarding, np.asarray(across_gb, float) * self.link_ms_per_gb)
        return found


def bottleneck_at(nodes: int, known: Sequence[Bottleneck]) -> Bottleneck:
    """Return the rates on a number of nodes from those on other numbers, of one direction.

    Between measured numbers, rates are interpolated on log-log axes. Beyond them, those of SMs stay, as kernels forward
    the same way on any number of nodes. Those of links stay on fewer nodes, and on more grow as between the last two:
    networks have more contention where more nodes share them.
    """
    order = sorted(known, key=lambda each: each.nodes)
    at = np.log(nodes)
    sms = np.interp(at, [np.log(each.nodes) for each in order], [np.log(each.sm_ms_per_gb) for each in order])
    linked = [each for each in order if each.link_ms_per_gb > 0]
    link = 0.0
    if linked:
        places = np.log([each.nodes for each in linked])
        rates = np.log([each.link_ms_per_gb for each in linked])
        link = float(np.interp(at, places, rates))
        if at > places[-1] and len(linked) > 1:
            link = float(rates[-1] + max(0.0, np.diff(rates)[-1] / np.diff(places)[-1]) * (at - places[-1]))
        link = float(np.exp(link))
    return Bottleneck(way=order[0].way, nodes=nodes, sm_ms_per_gb=float(np.exp(sms)), link_ms_per_gb=link)


def distinct_places(top_k: int, experts: int, places: int) -> float:
    """Return how many of the places that share experts evenly a token of random choices uses on average."""
    miss = comb(experts - experts // places, top_k) / comb(experts, top_k) if experts >= top_k else 0.0
    return places * (1 - miss)


def forwarded_copies(top_k: int, experts: int, nodes: int, gpus: int) -> float:
    """Return the copies per token that a rank forwards to other GPUs of its node, under the tables' even routing.

    Parameters
    ----------
    top_k, experts : int
        K and E.
    nodes, gpus : int
        Of all nodes together.
    """
    groups = min(nodes, MOST_GROUPS)
    per_node = gpus // nodes
    return distinct_places(top_k, experts * groups // nodes, groups * per_node) * (1 - 1 / per_node)
