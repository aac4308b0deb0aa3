"""Plans and topologies as JSON: every field known, every violation reported, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np

from placement.plan import Limit, Plan, Reason, Termination
from placement.topology import MAX_GPUS, Link, Topology
from traces import InputError, Violations
from traces.atomic import atomic_write

__all__ = [
    "load_plan",
    "load_topology",
    "plan_from_dict",
    "plan_to_dict",
    "save_plan",
    "topology_from_dict",
    "topology_to_dict",
]

SCHEMA_VERSION = 1
MAX_INT = 2**63 - 1
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
    _check_fields(found, content, PLAN_FIELDS, PLAN_OPTIONAL, place)
    found.raise_if_any()
    if content["schema_version"] != SCHEMA_VERSION:
        detail = f"Version {content['schema_version']} is not {SCHEMA_VERSION}."
        raise InputError.of("schema_version", f"{place}/schema_version", detail, "Convert the file first.")
    table = _integers(found, content["physical_to_logical_map"], 2, f"{place}/physical_to_logical_map")
    layers = _integers(found, content["layer_ids"], 1, f"{place}/layer_ids")
    sizes = content["gpus_per_node"]
    if isinstance(sizes, int):
        even = sizes > 0 and 0 < content["num_gpus"] <= MAX_GPUS and content["num_gpus"] % sizes == 0
        sizes = [sizes] * (content["num_gpus"] // sizes) if even else [sizes]
    gpus = _integers(found, sizes, 1, f"{place}/gpus_per_node")
    termination = None
    if content.get("termination") is not None:
        try:
            termination = Termination(**content["termination"])
            if termination.reason not in get_args(Reason) or termination.limit not in (None, *get_args(Limit)):
                raise TypeError(f"reason {termination.reason!r}, limit {termination.limit!r}")
        except TypeError as error:
            found.add("termination", f"{place}/termination", f"Fields do not fit: {error}.", "See docs/formats.md.")
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
            warnings=tuple(str(warning) for warning in content.get("warnings", ())),
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
    _check_fields(found, content, {}, TOPOLOGY_FIELDS, place)
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
    gpus = _integers(found, sizes, 1, f"{place}/gpus_per_node")
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


def load_topology(text: str | Path) -> Topology:
    """Read a topology file (a path that ends in ``.json``), or parse a shorthand such as ``4x8``."""
    if str(text).lower().endswith(".json"):
        return topology_from_dict(read_json(text), f"{Path(text).name}#")
    return Topology.parse(str(text))


def read_json(path: str | Path) -> Any:
    """Read a JSON file; duplicate keys, NaN and infinities are refused."""
    name = Path(path).name
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        detail = f"Can't read the file: {error.strerror}."
        raise InputError.of("cannot_read", str(path), detail, "Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError.of("not_json", name, "The file is not UTF-8 text.", "Give a JSON file.") from error

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise InputError.of("duplicate_key", name, f"A key occurs twice among {sorted(keys)[:8]}.", "Keep one.")
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise InputError.of("not_finite", name, f"{constant} is not a finite number.", "Use finite numbers, or null.")

    def finite(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else refuse(digits)

    def whole(digits: str) -> int:
        if len(digits) > 20 or abs(int(digits)) > MAX_INT:
            detail = f"{digits[:20]}{'...' * (len(digits) > 20)} does not fit 64 bits."
            raise InputError.of("number_range", name, detail, "Correct the number.")
        return int(digits)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite, parse_int=whole)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError.of("not_json", name, f"This is not JSON: {error}.", "Check that the file is whole.") from error


def write_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, allow_nan=False).encode() + b"\n")


def _check_fields(
    found: Violations, content: Any, required: Mapping[str, Any], optional: Mapping[str, Any], place: str
) -> None:
    if not isinstance(content, dict):
        found.add(
            "not_an_object",
            place or "/",
            f"Expected a JSON object, got {type(content).__name__}.",
            "See docs/formats.md.",
        )
        return
    for name in sorted(set(content) - set(required) - set(optional)):
        found.add("unknown_field", f"{place}/{name}", "There is no such field.", "Remove it, or correct its name.")
    for name in required:
        if name not in content:
            found.add("missing_field", f"{place}/{name}", "The field is missing.", "Add it.")
    for name, kinds in {**required, **optional}.items():
        if name in content and (not isinstance(content[name], kinds) or isinstance(content[name], bool)):
            found.add(
                "field_type", f"{place}/{name}", f"{type(content[name]).__name__} is not the type of this field.", ""
            )
        elif name in content and name != "provenance" and _exceeds_64_bits(content[name]):
            detail = "A number does not fit 64 bits."
            found.add("number_range", f"{place}/{name}", detail, "Correct the number.")


def _exceeds_64_bits(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_exceeds_64_bits, value))
    return isinstance(value, int) and abs(value) > MAX_INT


def _integers(found: Violations, value: Any, axes: int, pointer: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return nested lists as integers; ragged rows, floats and booleans are violations."""
    try:
        array = np.array(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim != axes or array.dtype.kind not in "iu" or not array.size:
        found.add(
            "not_integers",
            pointer,
            f"Expected {axes} level(s) of lists of integers, all rows equally long.",
            "Correct it.",
        )
        return np.zeros((1,) * axes, np.int64)
    return array.astype(np.int64)


def _link(found: Violations, value: Any, pointer: str) -> Link | None:
    if value is None:
        return None
    _check_fields(found, value, {"bandwidth_gb_s": (int, float)}, {"latency_us": (int, float)}, pointer)
    if found.found:
        return None
    return Link(bandwidth_gb_s=value["bandwidth_gb_s"], latency_us=value.get("latency_us", 0.0))
