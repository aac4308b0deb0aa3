"""Plan files: JSON, every field known, every violation reported.

Nothing here knows `Plan`: what a plan file holds are the arguments that make one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from placement.plan.termination import Limit, Reason, Termination
from placement.support.fields import check_fields, check_figures, check_texts, integers
from placement.support.json_files import read_json
from placement.topology.links import MAX_GPUS
from traces import InputError, Violations

__all__ = ["plan_arguments", "plan_content", "read_plan_file"]

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
UNREADABLE = ("cannot_read", "not_a_file", "file_too_large")  # whatever the file is
OTHERS = "Read placement files of engines with placement.exports.load_placement."
TERMINATION_FIELDS = {"reason": str}
TERMINATION_OPTIONAL = {"limit": (str, type(None)), "detail": str, "deterministic": bool}


def plan_content(plan: Mapping[str, Any], gap: float | None) -> dict[str, Any]:
    """Return the content of a plan file, JSON-ready.

    Parameters
    ----------
    plan : mapping
        The attributes of a `Plan`.
    gap : float or None
    """
    sizes, termination = plan["gpus_per_node"], plan["termination"]
    return {
        "schema_version": SCHEMA_VERSION,
        "layer_ids": plan["layer_ids"].tolist(),
        "num_experts": plan["num_experts"],
        "num_gpus": plan["num_gpus"],
        "gpus_per_node": sizes[0] if len(set(sizes)) == 1 else list(sizes),
        "slots_per_gpu": plan["slots_per_gpu"],
        "physical_to_logical_map": plan["physical_to_logical_map"].tolist(),
        "score": plan["score"],
        "bound": plan["bound"],
        "gap": gap,
        "termination": None if termination is None else asdict(termination),
        "provenance": dict(plan["provenance"]),
        "warnings": list(plan["warnings"]),
    }


def read_plan_file(path: str | Path) -> Any:
    """Return the content of a plan file, as JSON gives it.

    Raises
    ------
    InputError
        If it can't be read, or has the fields of something else; it names what reads placement files of engines.
    """
    found, content = Violations(), None
    try:
        content = read_json(path)
        check_fields(found, content, PLAN_FIELDS, PLAN_OPTIONAL, f"{Path(path).name}#")
    except InputError as error:
        found.extend(error)
    like_ours = isinstance(content, Mapping) and 2 * len(PLAN_FIELDS.keys() & content.keys()) > len(PLAN_FIELDS)
    if found.found and not like_ours and found.found[0].code not in UNREADABLE:
        found.found[0] = replace(found.found[0], remedy=f"{found.found[0].remedy} {OTHERS}".strip())
    found.raise_if_any()
    return content


def plan_arguments(content: Any, place: str) -> dict[str, Any]:
    """Return the arguments of `Plan` that a plan file's content holds; `gap` is derived, so it is not read.

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
    return {
        "physical_to_logical_map": table,
        "layer_ids": layers,
        "num_experts": content["num_experts"],
        "num_gpus": content["num_gpus"],
        "slots_per_gpu": content["slots_per_gpu"],
        "gpus_per_node": tuple(gpus.tolist()),
        "score": content.get("score"),
        "bound": content.get("bound"),
        "termination": termination,
        "provenance": content.get("provenance", {}),
        "warnings": tuple(content.get("warnings", ())),
    }


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
