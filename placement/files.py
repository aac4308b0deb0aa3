"""Plans and topologies as JSON: every field known, every violation reported."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from placement.fields import check_fields, check_numbers, check_texts, integers
from placement.json_files import read_json, write_json
from placement.plan import Limit, Plan, Reason, Termination
from placement.topology import MAX_GPUS, Link, Topology
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
    "gpu_speed": (int, float, list),
    "memory_gb": (int, float, list),
    "slots": (int, list),
    "gpus_per_host": int,
}


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
    """Write a plan file."""
    write_json(plan_to_dict(plan), path)


def load_plan(path: str | Path) -> Plan:
    """Read a plan file."""
    return plan_from_dict(read_json(path), f"{Path(path).name}#")


def topology_to_dict(topology: Topology) -> dict[str, Any]:
    """Return the topology file's content."""
    sizes = topology.gpus_per_node
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": topology.name,
        "gpus_per_node": list(sizes),
        "gpu_speed": topology.speed.tolist() if len(set(topology.speed.tolist())) > 1 else float(topology.speed[0]),
    }
    if topology.bandwidth_gb_s is None or topology.latency_us is None:
        content["rank_cost_matrix"] = topology.hop_cost.tolist()
    else:
        node = topology.node_of_gpu
        same_gpu = np.eye(topology.num_gpus, dtype=bool)
        same_node = node[:, None] == node[None, :]
        for name, mask in (("intra_node", same_node & ~same_gpu), ("inter_node", ~same_node)):
            if mask.any():
                first = tuple(np.argwhere(mask)[0])
                content[name] = {
                    "bandwidth_gb_s": float(topology.bandwidth_gb_s[first]),
                    "latency_us": float(topology.latency_us[first]),
                }
        if topology.num_nodes == 1 and 0 < (cost := float(topology.hop_cost.max())) < 1:
            # The cost of a single node's links in a cluster: it follows from the link between nodes.
            content["inter_node"] = {"bandwidth_gb_s": content["intra_node"]["bandwidth_gb_s"] * cost}
    if not np.array_equal(topology.host_of_gpu, topology.node_of_gpu):
        content["gpus_per_host"] = int(np.bincount(topology.host_of_gpu)[0])
    if topology.memory_gb is not None:
        content["memory_gb"] = topology.memory_gb.tolist()
    if topology.slots is not None:
        content["slots"] = topology.slots.tolist()
    return content


def topology_from_dict(content: Any, place: str = "") -> Topology:
    """Build a topology from a topology file's content.

    Either ``gpus_per_node`` as a list of node sizes, or as a number with ``num_nodes``; ``rank_cost_matrix`` alone is a
    flat topology with those costs.
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
    if sizes is None:
        sizes = [len(matrix)] if matrix else [0]
    elif isinstance(sizes, int):
        # One node too many is enough for the size to be refused.
        sizes = [sizes] * min(content.get("num_nodes", 1), MAX_GPUS + 1)
    if isinstance(content.get("gpus_per_node"), list) and content.get("num_nodes", len(sizes)) != len(sizes):
        detail = f"{content['num_nodes']} nodes, but {len(sizes)} sizes."
        found.add("num_nodes", f"{place}/num_nodes", detail, "Leave num_nodes out where the sizes are listed.")
    gpus = integers(found, sizes, 1, f"{place}/gpus_per_node")
    if matrix is not None:
        check_numbers(found, matrix, 2, f"{place}/rank_cost_matrix")
    for name in ("gpu_speed", "memory_gb", "slots"):
        if isinstance(content.get(name), list):
            check_numbers(found, content[name], 1, f"{place}/{name}")
    links = {name: _link(found, content.get(name), f"{place}/{name}") for name in ("intra_node", "inter_node")}
    found.raise_if_any()
    try:
        return Topology.of(
            tuple(gpus.tolist()),
            name=content.get("name"),
            **{key: link for key, link in (("intra", links["intra_node"]), ("inter", links["inter_node"])) if link},
            rank_cost_matrix=matrix,
            speed=content.get("gpu_speed"),
            memory_gb=content.get("memory_gb"),
            slots=content.get("slots"),
            gpus_per_host=content.get("gpus_per_host"),
        )
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
    """Read a topology file (a path that ends in ``.json``), or parse a shorthand such as ``4x8``."""
    if str(text).lower().endswith(".json"):
        return topology_from_dict(read_json(text), f"{Path(text).name}#")
    return Topology.parse(str(text))


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


def _link(found: Violations, value: Any, pointer: str) -> Link | None:
    if value is None:
        return None
    check_fields(found, value, {"bandwidth_gb_s": (int, float)}, {"latency_us": (int, float)}, pointer)
    if found.found:
        return None
    return Link(bandwidth_gb_s=value["bandwidth_gb_s"], latency_us=value.get("latency_us", 0.0))
