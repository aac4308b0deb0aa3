"""A simulation of policies as text: what was assumed, the policies side by side, and what follows from them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from api.report.tables import table

__all__ = ["policies_text"]

WIDTH = 100


def policies_text(found: Mapping[str, Any]) -> str:
    """Return a simulation as text, of a document of `solvers.Simulation.as_dict`: made here or by a service."""
    passes = f"{found['windows']} windows of {found['window_passes']:,} forward passes each, in seconds of time."
    lines = [passes, *_bullets(found["notes"]), ""]
    rows = [
        [
            run["name"],
            f"{run['total_ms'] / 1e3:.4g}",
            str(run["replans"]),
            str(run["unpaid"]),
            f"{run['moved_experts']:,}",
            f"{run['moved_bytes'] / 1e9:,.4g}",
        ]
        for run in found["policies"]
    ]
    header = ["policy", "total\ns", "re-plans\n", "of these\nunpaid", "experts\nmoved", "GB\nmoved"]
    lines += [table(header, rows), ""]
    gate = "Re-plan now" if found["now"]["replan"] else "Leave it now"
    lines += _bullets([f"{gate}: {found['now']['reason']}."])
    told = [each["drifted"] for each in found["drift"]]
    known = [each for each in told if each is not None]
    drift = (
        f"Loads drifted from {sum(known)} of {len(known)} windows to the next (alpha {found['drift'][0]['alpha']:g})"
    )
    unknown = len(told) - len(known)
    lines += _bullets([f"{drift}." if not unknown else f"{drift}; of {unknown} more there is too little to tell."])
    best = found["forecasts"][0]
    errors = ", ".join(f"{each['name']} {each['error']:.3f}" for each in found["forecasts"])
    beats = "better than both baselines" if best["beats_baselines"] else "no better than a baseline"
    lines += _bullets([f"Error of forecasts one window ahead: {errors}. The best, {best['name']}, is {beats}."])
    for each in found["engine_settings"]:
        if each["recommended"]:
            total = f"{each['total_ms'] / 1e3:.4g} s, {each['replans']} re-plans"
            lines.append(f"- {each['engine']}, the best of its own settings here, in hindsight ({total}):")
            lines.append(f"    {each['options']}")
    return "\n".join(lines)


def _bullets(texts: Sequence[str]) -> list[str]:
    return [textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ") for text in texts]
