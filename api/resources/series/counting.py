"""What a helper counts for a series: a window's loads, its drift, and what a plan makes of loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from api.resources.traces.stored import StoredTrace
from api.store.series import packed, unpacked
from placement import Plan, expected_loads
from traces import LoadCounts, Window, drift_between
from traces.series.each import bare, window_of

__all__ = ["LoadsTask", "WindowTask", "counted_window", "loads_of", "predicted_drift"]

LEAST_PREDICTED = 3  # windows before, as `drift_between` has it


@dataclass(frozen=True, kw_only=True)
class WindowTask:
    """Everything that counting a window needs; pickles."""

    trace: StoredTrace
    before: StoredTrace | None
    alpha: float


@dataclass(frozen=True, kw_only=True)
class LoadsTask:
    """Loads of windows, and what is asked of them; pickles."""

    layer_ids: Sequence[int]
    layer: int
    num_experts: int
    first: int
    loads: Sequence[bytes]
    plan: Mapping[str, Any] | None


def counted_window(task: WindowTask) -> tuple[bytes, dict[str, Any] | None]:
    """Return the loads of a trace, and how they differ from those of the window before.

    Raises
    ------
    InputError
        If a stored file can't be read any more.
    """
    window = window_of(task.trace.open(), task.trace.name or task.trace.id)
    if task.before is None:
        return packed(window.load), None
    before = window_of(task.before.open(), task.before.name or task.before.id)
    return packed(window.load), drift_between([before], [window], alpha=task.alpha).as_dict()


def predicted_drift(loads: Sequence[bytes], shape: tuple[int, int], alpha: float) -> dict[str, Any]:
    """Return how the last of some loads differ from all before, each as a single dump."""
    windows = [
        bare(Window(name="", time=None, load=load, parts=load[None]))
        for load in (unpacked(content, shape) for content in loads)
    ]
    return drift_between(windows[:-1], windows[-1:], alpha=alpha).as_dict()


def loads_of(task: LoadsTask) -> list[dict[str, Any]]:
    """Return figures of windows.

    Raises
    ------
    InputError
        If the plan is for other experts, or other layers.
    """
    plan = None if task.plan is None else Plan.from_dict(task.plan, "?plan")
    found = []
    for number, content in enumerate(task.loads, task.first):
        load = unpacked(content, (len(task.layer_ids), task.num_experts))
        shares = load / load.sum(axis=1, keepdims=True)
        imbalance = None
        if plan is not None:
            loads = expected_loads(plan, LoadCounts.of(load, layer_ids=np.asarray(task.layer_ids)))
            imbalance = loads.imbalance_max_over_mean
        found.append(
            {
                "number": number,
                "shares": shares[task.layer].tolist(),
                "hottest_share": float(shares.max(axis=1).mean()),
                "imbalance": imbalance,
            }
        )
    return found
