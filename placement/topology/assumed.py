"""What is assumed of links that nobody describes, and a check that the order of costs makes sense."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.topology.links import FASTEST, GENERIC, SLOWEST, Link
from placement.topology.shorthand import parse_shorthand

__all__ = ["BEYOND", "assumed_links", "assumed_network", "order_warnings", "shorthand_note"]

# Share of the slowest link inside a host that a message to another host gets where nothing else is known: it passes
# that link's PCIe, and a host bridge and a network port besides.
BEYOND = 0.8


def assumed_network(inside: float) -> float:
    """Return GB/s per GPU and direction to other nodes, where only the slowest link inside a host is known."""
    return max(SLOWEST, min(GENERIC.inter.bandwidth_gb_s, BEYOND * inside))


def assumed_links(sizes: tuple[int, ...], intra: Link | None, inter: Link | None) -> tuple[Link, Link, tuple[str, ...]]:
    """Return the links inside nodes and between them, and notes on those that nobody gave.

    A link that is given is never contradicted by the default of the other one.

    Parameters
    ----------
    sizes : tuple of int
        GPUs of each node.
    intra, inter : Link or None
        Links inside and between nodes, as far as they are given.
    """
    used_inside, used_between = max(sizes) > 1, len(sizes) > 1
    if intra is not None and inter is not None:
        return intra, inter, ()
    if intra is not None:
        speed = assumed_network(intra.bandwidth_gb_s)
        note = f"Links between nodes are not given: {speed:g} GB/s per GPU are assumed"
        note += f", {BEYOND:g} of those inside." if speed < GENERIC.inter.bandwidth_gb_s else " (a 400 Gb/s port each)."
        between = Link(bandwidth_gb_s=speed, latency_us=GENERIC.inter.latency_us)
        return intra, between, (note,) if used_between else ()
    if inter is not None:
        speed = min(FASTEST, max(GENERIC.intra.bandwidth_gb_s, inter.bandwidth_gb_s / BEYOND))
        note = f"Links inside nodes are not given: {speed:g} GB/s per GPU are assumed."
        inside = Link(bandwidth_gb_s=speed, latency_us=GENERIC.intra.latency_us)
        return inside, inter, (note,) if used_inside else ()
    return GENERIC.intra, GENERIC.inter, ()  # what a shorthand means: it is documented, and `shorthand_note` tells it


def shorthand_note(text: str) -> str | None:
    """Return what a shorthand without a preset, such as ``2x8``, means for links; None of anything else."""
    said = parse_shorthand(text)
    if said.name is not None or len(said.gpus_per_node) == 1 or max(said.gpus_per_node) == 1:
        return None
    return (
        f"Links are not given: {GENERIC.intra.bandwidth_gb_s:g} GB/s per GPU inside a node and "
        f"{GENERIC.inter.bandwidth_gb_s:g} between nodes are assumed, as on an HGX H100."
    )


def order_warnings(
    cost: npt.NDArray[np.float64], node: npt.NDArray[np.int64], host: npt.NDArray[np.int64]
) -> tuple[str, ...]:
    """Return a warning where a hop to another node, or host, costs less than one inside.

    Parameters
    ----------
    cost : (G, G) float64
        Hop costs.
    node, host : (G,) int64
        Node and host of each GPU.
    """
    itself = np.eye(len(cost), dtype=bool)
    same_node, same_host = node[:, None] == node[None, :], host[:, None] == host[None, :]
    for what, inside, between in (
        ("node", same_node & ~itself, ~same_node),
        ("host", same_host & ~same_node, ~same_host & ~same_node),
    ):
        if not inside.any() or not between.any():
            continue
        far = np.unravel_index(int(np.where(between, cost, np.inf).argmin()), cost.shape)
        near = np.unravel_index(int(np.where(inside, cost, -1.0).argmax()), cost.shape)
        if cost[far] < cost[near]:
            return (
                f"A hop between {what}s costs less than one inside: {cost[far]:.3g} from GPU {far[0]} to {far[1]}, "
                f"{cost[near]:.3g} from GPU {near[0]} to {near[1]}. Plans will send tokens to other {what}s rather "
                "than to neighbours; check the bandwidths.",
            )
    return ()
