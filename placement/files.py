"""Plans and topologies as JSON: every field known, every violation reported."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from placement.plan.plan import Limit, Plan, Reason, Termination
from placement.support.fields import check_fields, check_figures, check_numbers, check_texts, integers
from placement.support.json_files import read_json, write_json
from placement.topology.topology import MAX_GPUS, Link, Topology
from traces import InputError, Violations

__all__ = [
    "load_plan",
    "load_topology",
    "plan_from_dict",
    "plan_to_dict",
    "recorded_topology",
    "save_plan",
    "topology_from_dict",
    "topology_to_dict",
]

SCHEMA_VERSION = 1
PLAN_FIELDS = {
    "schema_version": int,
    "layer_ids": list,
    "num_experts": int,
    "num_gpus": int,
    "gpus_per_node": (int, list),
    "slots_per_gpu": int,
    "physical_to_logical_map": list,
}
PLAN_OPTIONAL = {
    "score": (float, int, type(None)),
    "bound": (float, int, type(None)),
    "gap": (float, int, type(None)),
    "termination": (dict, type(None)),
    "provenance": dict,
    "warnings": list,
}
TERMINATION_FIELDS = {"reason": str}
TERMINATION_OPTIONAL = {"limit": (str, type(None)), "detail": str, "deterministic": bool}
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
}
LINKS = ("intra_node", "inter_node")
LINK_MATRICES = ("bandwidth_gb_s", "latency_us")


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan file's content."""
    sizes = plan.gpus_per_node
    return {
        "schema_version": SCHEMA_VERSION,
        "layer_ids": plan.layer_ids.tolist(),
        "num_experts": plan.num_experts,
        "num_gpus": plan.num_gpus,
        "gpus_per_node": sizes[0] if len(set(sizes)) == 1 else list(sizes),
        "slots_per_gpu": plan.slots_per_gpu,
        "physical_to_logical_map": plan.physical_to_logical_map.tolist(),
        "score": plan.score,
        "bound": plan.bound,
        "gap": plan.gap,
        "termination": None if plan.termination is None else asdict(plan.termination),
        "provenance": dict(plan.provenance),
        "warnings": list(plan.warnings),
    }


def plan_from_dict(content: Any, place: str = "") -> Plan:
    """Build a plan from a plan file's content; `gap` is derived, so it is not read.

    Raises
    ------
    InputError
        With a pointer for each violation.
    """
    found = Violations()
    check_fields(found, content, PLAN_FIELDS, PLAN_OPTIONAL, place)
    found.raise_if_any()
    if content["schema_version"] != SCHEMA_VERSION:
        detail = f"Version {content['schema_version']} is not {SCHEMA_VERSION}."
        raise InputError.of("schema_version", f"{place}/schema_version", detail, "Convert the file first.")
    table = integers(found, content["physical_to_logical_map"], 2, f"{place}/physical_to_logical_map")
    layers = integers(found, content["layer_ids"], 1, f"{place}/layer_ids")
    sizes = content["gpus_per_node"]
    if isinstance(sizes, int):
        even = sizes > 0 and 0 < content["num_gpus"] <= MAX_GPUS and content["num_gpus"] % sizes == 0
        sizes = [sizes] * (content["num_gpus"] // sizes) if even else [sizes]
    gpus = integers(found, sizes, 1, f"{place}/gpus_per_node")
    termination = _termination(found, content.get("termination"), f"{place}/termination")
    check_texts(found, content.get("warnings", []), f"{place}/warnings")
    check_figures(found, content.get("score"), content.get("bound"), place)
    found.raise_if_any()
    try:
        return Plan(
            physical_to_logical_map=table,  # type: ignore[arg-type]  # Plan narrows what it has checked
            layer_ids=layers,
            num_experts=content["num_experts"],
            num_gpus=content["num_gpus"],
            slots_per_gpu=content["slots_per_gpu"],
            gpus_per_node=tuple(gpus.tolist()),
            score=content.get("score"),
            bound=content.get("bound"),
            termination=termination,
            provenance=content.get("provenance", {}),
            warnings=tuple(content.get("warnings", ())),
        )
    except InputError as error:
        found.extend(error, place)
        raise InputError(tuple(found.found)) from None


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan file.

    Raises
    ------
    InputError
        If the score or the bound is not finite, or the bound is above the score: it could not be read again.
    """
    found = Violations()
    check_figures(found, plan.score, plan.bound, "")
    found.raise_if_any()
    write_json(plan_to_dict(plan), path)


def load_plan(path: str | Path) -> Plan:
    """Read a plan file."""
    return plan_from_dict(read_json(path), f"{Path(path).name}#")


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
    return content


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
        )
        return replace(topology, **own) if own else topology
    except InputError as error:
        found.extend(error, place)
        raise InputError(tuple(found.found)) from None


def recorded_topology(plan: Plan, place: str = "") -> Topology | None:
    """Return the topology in a plan's provenance, None where it has none.

    Raises
    ------
    InputError
        If it is no topology, or has other nodes than the plan: which of the two is meant can't be known.
    """
    content = plan.provenance.get("topology")
    if content is None:
        return None
    pointer = f"{place}/provenance/topology"
    recorded = topology_from_dict(content, pointer)
    if recorded.gpus_per_node != plan.gpus_per_node:
        sizes, own = list(recorded.gpus_per_node), list(plan.gpus_per_node)
        detail = f"Nodes of {sizes} GPUs, but the plan's gpus_per_node are {own}."
        raise InputError.of("nodes_differ", f"{pointer}/gpus_per_node", detail, "Correct the plan, or name a topology.")
    return recorded


def load_topology(text: str | Path) -> Topology:
    """Read a topology from a file, or parse a shorthand such as ``4x8``.

    Parameters
    ----------
    text : str or path
        A file that `placement.topology.machines.load_machine` reads, perhaps with its options behind a comma
        (``topo.txt,hosts=4``), or a shorthand.

    Raises
    ------
    InputError
    """
    from placement.topology.machines import load_machine

    whole = str(text)
    path, _, options = whole.partition(",")
    if whole.lower().endswith(".json") or _is_file(whole):
        return load_machine(whole)
    if _is_file(path) or (options and "=" in options):
        return load_machine(path, options)
    return Topology.parse(whole)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a name that can't be
        return False


def _termination(found: Violations, value: Any, pointer: str) -> Termination | None:
    if value is None:
        return None
    checked = Violations()
    check_fields(checked, value, TERMINATION_FIELDS, TERMINATION_OPTIONAL, pointer)
    if not checked.found:
        for name, words in (("reason", get_args(Reason)), ("limit", (None, *get_args(Limit)))):
            if value.get(name) not in words:
                allowed = ", ".join(word or "null" for word in words)
                detail = f"There is no {name} {value[name]!r}."
                checked.add("termination", f"{pointer}/{name}", detail, f"Use one of: {allowed}.")
    found.found += checked.found
    return None if checked.found else Termination(**value)


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


def _link(found: Violations, value: Any, pointer: str) -> Link | None:
    if value is None:
        return None
    check_fields(found, value, {"bandwidth_gb_s": (int, float)}, {"latency_us": (int, float)}, pointer)
    if found.found:
        return None
    return Link(bandwidth_gb_s=value["bandwidth_gb_s"], latency_us=value.get("latency_us", 0.0))
