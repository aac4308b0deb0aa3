"""Merging profiles: what must agree, and the sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from traces.profile.checks import Counts
from traces.profile.sample import TokenSample
from traces.profile.windows import WindowedLoad
from traces.support.errors import Violations

__all__ = ["merged"]

OPTIONAL = ("affinity", "coactivation", "distant", "windows", "source_load", "sequence_load", "sample")


def merged(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the merged profile, given those of two; see `Profile`.

    Raises
    ------
    InputError
        Naming every field in which they don't go together.
    """
    _check_alike(mine, other)
    windows, sample = mine["windows"], mine["sample"]
    return {
        **mine,
        "tokens": mine["tokens"] + other["tokens"],
        "load": mine["load"] + other["load"],
        "affinity": _sum(mine["affinity"], other["affinity"]),
        "coactivation": _sum(mine["coactivation"], other["coactivation"]),
        "distant": {distance: counts + other["distant"][distance] for distance, counts in mine["distant"].items()},
        "windows": None if windows is None else WindowedLoad.union([windows, other["windows"]]),
        "source_load": _sum_padded(mine["source_load"], other["source_load"]),
        "sequence_load": _sum(mine["sequence_load"], other["sequence_load"]),
        "sample": None if sample is None else TokenSample.union([sample, other["sample"]]),
        "sources": tuple(sorted(mine["sources"] + other["sources"], key=lambda item: item.key)),
    }


def _check_alike(mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    found = Violations()
    for name in ("num_experts", "top_k"):
        if mine[name] != other[name]:
            detail = f"{mine[name]} and {other[name]} differ."
            found.add("profiles_differ", f"/{name}", detail, "Merge profiles of the same model only.")
    if mine["layer_ids"].tolist() != other["layer_ids"].tolist():
        found.add("profiles_differ", "/layer_ids", "The layers differ.", "Merge profiles of the same layers only.")
    for name in OPTIONAL:
        one, two = mine[name], other[name]
        if (one is None) != (two is None) or (name == "distant" and set(one) != set(two)):
            found.add(
                "profiles_differ",
                f"/{name}",
                f"One profile has {name}, or distances of it, that the other lacks.",
                "Profile both traces with the same options, from traces with the same columns; loads alone can't "
                "be merged with tokens.",
            )
    windows, others = mine["windows"], other["windows"]
    if windows and others and not windows.aligned_to(others.window_tokens):
        found.add(
            "profiles_differ",
            "/windows",
            f"Windows of {windows.window_tokens} and {others.window_tokens} tokens don't nest.",
            "Profile both traces with the same `window_tokens`.",
        )
    found.raise_if_any()


def _sum(a: Counts | None, b: Counts | None) -> Counts | None:
    return None if a is None or b is None else a + b


def _sum_padded(a: Counts | None, b: Counts | None) -> Counts | None:
    """Add two source x expert counts whose number of ranks may differ."""
    if a is None or b is None:
        return None
    ranks = max(len(a), len(b))
    pad = [np.pad(x, ((0, ranks - len(x)), (0, 0), (0, 0))) for x in (a, b)]
    return pad[0] + pad[1]
