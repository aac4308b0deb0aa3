"""Topology files: JSON, every field known, every violation reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from placement.support.fields import check_fields, check_numbers, integers
from placement.topology.links import MAX_GPUS, Link
from placement.topology.topology import Topology
from traces import InputError, Violations

__all__ = ["MAX_NOTE", "MAX_NOTES", "topology_from_dict", "topology_to_dict"]

SCHEMA_VERSION = 1
MAX_NOTES, MAX_NOTE = 100, 2000
TOPOLOGY_FIELDS = {
    "schema_version": int,
    "name": str,
    "gpus_per_node": (int, list),
    "num_nodes": int,
    "intra_node": dict,
    "inter_node": dict,
    "rank_cost_matrix": list,
    "bandwidth_gb_s": list,
    "latency_us": list,
    "gpu_speed": (int, float, list),
    "memory_gb": (int, float, list),
    "slots": (int, list),
    "gpus_per_host": int,
    "host_of_gpu": list,
    "notes": list,
}
LINKS = ("intra_node", "inter_node")
LINK_MATRICES = ("bandwidth_gb_s", "latency_us")


def topology_to_dict(topology: Topology) -> dict[str, Any]:
    """Return the topology file's content: everything that the topology holds."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": topology.name,
        "gpus_per_node": list(topology.gpus_per_node),
        "gpu_speed": topology.speed.tolist() if len(set(topology.speed.tolist())) > 1 else float(topology.speed[0]),
    }
    links = _links_of(topology)
    content |= _matrices_of(topology) if links is None else links
    content |= _hosts_of(topology)
    if topology.memory_gb is not None:
        content["memory_gb"] = topology.memory_gb.tolist()
    if topology.slots is not None:
        content["slots"] = topology.slots.tolist()
    return content | ({"notes": list(topology.notes)} if topology.notes else {})


def topology_from_dict(content: Any, place: str = "") -> Topology:
    """Build a topology from a topology file's content.

    Either ``gpus_per_node`` as a list of node sizes, or as a number with ``num_nodes``; ``rank_cost_matrix`` alone is a
    flat topology with those costs.

    Raises
    ------
    InputError
        With a pointer for each violation; fields that have no meaning together are violations.
    """
    found = Violations()
    check_fields(found, content, {}, TOPOLOGY_FIELDS, place)
    found.raise_if_any()
    if content.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        detail = f"Version {content['schema_version']} is not {SCHEMA_VERSION}."
        raise InputError.of("schema_version", f"{place}/schema_version", detail, "Convert the file first.")
    matrix = content.get("rank_cost_matrix")
    sizes = content.get("gpus_per_node")
    if sizes is None and matrix is None:
        raise InputError.of(
            "topology_empty",
            f"{place}/gpus_per_node",
            "The topology names no GPU.",
            "Give gpus_per_node or rank_cost_matrix.",
        )
    _check_together(found, content, place)
    found.raise_if_any()
    if sizes is None:
        sizes = [len(matrix)]
    elif isinstance(sizes, int):
        sizes = [sizes] * content.get("num_nodes", 1)
    gpus = integers(found, sizes, 1, f"{place}/gpus_per_node")
    for name in ("rank_cost_matrix", *LINK_MATRICES):
        if name in content:
            check_numbers(found, content[name], 2, f"{place}/{name}")
    for name in ("gpu_speed", "memory_gb", "slots"):
        if isinstance(content.get(name), list):
            check_numbers(found, content[name], 1, f"{place}/{name}")
    own = {name: content[name] for name in LINK_MATRICES if name in content}
    if "host_of_gpu" in content:
        own["host_of_gpu"] = integers(found, content["host_of_gpu"], 1, f"{place}/host_of_gpu")
    notes = _notes(found, content.get("notes", []), f"{place}/notes")
    links = {name: _link(found, content.get(name), f"{place}/{name}") for name in LINKS}
    found.raise_if_any()
    try:
        topology = Topology.of(
            tuple(gpus.tolist()),
            name=content.get("name"),
            **{key: link for key, link in (("intra", links["intra_node"]), ("inter", links["inter_node"])) if link},
            rank_cost_matrix=matrix,
            speed=content.get("gpu_speed"),
            memory_gb=content.get("memory_gb"),
            slots=content.get("slots"),
            gpus_per_host=content.get("gpus_per_host"),
            notes=notes,
        )
        return replace(topology, **own) if own else topology
    except InputError as error:
        found.extend(error, place)
        raise found.error() from None


def _links_of(topology: Topology) -> dict[str, Any] | None:
    """Return the two kinds of links if they give the topology's costs, bandwidths and latencies; otherwise None."""
    if topology.bandwidth_gb_s is None or topology.latency_us is None:
        return None
    node = topology.node_of_gpu
    other_gpu = ~np.eye(topology.num_gpus, dtype=bool)
    same_node = node[:, None] == node[None, :]
    content: dict[str, Any] = {}
    for name, mask in (("intra_node", same_node & other_gpu), ("inter_node", ~same_node)):
        if mask.any():
            first = np.unravel_index(int(mask.argmax()), mask.shape)
            content[name] = {
                "bandwidth_gb_s": float(topology.bandwidth_gb_s[first]),
                "latency_us": float(topology.latency_us[first]),
            }
    if topology.num_nodes == 1 and 0 < (cost := float(topology.hop_cost.max())) < 1:
        # The cost of a single node's links in a cluster: it follows from the link between nodes.
        content["inter_node"] = {"bandwidth_gb_s": content["intra_node"]["bandwidth_gb_s"] * cost}
    try:
        again = topology_from_dict({"gpus_per_node": list(topology.gpus_per_node), **content})
    except InputError:  # that link between nodes is slower than any may be
        return None
    # A GPU has no link to itself: what the other two matrices hold on their diagonals says nothing.
    same = np.array_equal(again.hop_cost, topology.hop_cost) and all(
        np.array_equal(getattr(again, name)[other_gpu], getattr(topology, name)[other_gpu]) for name in LINK_MATRICES
    )
    return content if same else None


def _matrices_of(topology: Topology) -> dict[str, Any]:
    """Return costs, bandwidths and latencies in full."""
    known = {name: getattr(topology, name) for name in LINK_MATRICES}
    return {"rank_cost_matrix": topology.hop_cost.tolist()} | {
        name: matrix.tolist() for name, matrix in known.items() if matrix is not None
    }


def _hosts_of(topology: Topology) -> dict[str, Any]:
    """Return the hosts as shortly as they can be said; nothing if they are the nodes."""
    host = topology.host_of_gpu
    if np.array_equal(host, topology.node_of_gpu):
        return {}
    size = int((host == host[0]).sum())
    even = np.array_equal(host, np.arange(len(host)) // size) and not any(n % size for n in topology.gpus_per_node)
    return {"gpus_per_host": size} if even else {"host_of_gpu": host.tolist()}


def _check_together(found: Violations, content: dict[str, Any], place: str) -> None:
    """Record a number of nodes that there can't be, and fields that say nothing, or another thing, beside others."""
    sizes, nodes = content.get("gpus_per_node"), content.get("num_nodes", 1)
    if not 1 <= nodes <= MAX_GPUS:
        found.add("num_nodes", f"{place}/num_nodes", f"{nodes} nodes.", f"Give between 1 and {MAX_GPUS} nodes.")
    elif sizes is None and nodes != 1:
        detail = f"{nodes} nodes, but nothing says how large they are; a cost matrix alone is one node."
        found.add("num_nodes", f"{place}/num_nodes", detail, "Add gpus_per_node, or leave num_nodes out.")
    elif isinstance(sizes, list) and content.get("num_nodes", len(sizes)) != len(sizes):
        detail = f"{nodes} nodes, but {len(sizes)} sizes."
        found.add("num_nodes", f"{place}/num_nodes", detail, "Leave num_nodes out where the sizes are listed.")
    if "rank_cost_matrix" in content:
        if not content["rank_cost_matrix"]:
            found.add("matrix_shape", f"{place}/rank_cost_matrix", "The matrix is empty.", "Give G rows of G numbers.")
        for name in LINKS:
            if name in content:
                detail = "rank_cost_matrix takes the place of the costs of links."
                found.add("links_and_costs", f"{place}/{name}", detail, f"Leave out {name} or rank_cost_matrix.")
    else:
        for name in LINK_MATRICES:
            if name in content:
                detail = "The matrix stands beside rank_cost_matrix, which is missing."
                remedy = "Add rank_cost_matrix, or describe the links with intra_node and inter_node."
                found.add("matrices_without_costs", f"{place}/{name}", detail, remedy)
    if "gpus_per_host" in content and "host_of_gpu" in content:
        detail = "gpus_per_host already says which hosts there are."
        found.add("hosts_twice", f"{place}/host_of_gpu", detail, "Leave out host_of_gpu or gpus_per_host.")


def _notes(found: Violations, value: list[Any], pointer: str) -> tuple[str, ...]:
    """Return the notes; texts of one line and of a length that can be shown."""
    if len(value) > MAX_NOTES or not all(isinstance(text, str) and len(text) <= MAX_NOTE for text in value):
        detail = f"Notes are at most {MAX_NOTES} texts of up to {MAX_NOTE} characters."
        found.add("topology_notes", pointer, detail, "Shorten them, or leave them out.")
        return ()
    return tuple(" ".join(text.split()) for text in value)


def _link(found: Violations, value: Any, pointer: str) -> Link | None:
    if value is None:
        return None
    check_fields(found, value, {"bandwidth_gb_s": (int, float)}, {"latency_us": (int, float)}, pointer)
    if found.found:
        return None
    return Link(bandwidth_gb_s=value["bandwidth_gb_s"], latency_us=value.get("latency_us", 0.0))
