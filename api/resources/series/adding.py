"""Adding a window: checked against the series, counted by a helper, kept at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.http.problems import ProblemError
from api.resources.context import Services
from api.resources.helped import look_at
from api.resources.named import trace_named
from api.resources.series.bodies import WindowBody
from api.resources.series.counting import LEAST_PREDICTED, WindowTask, counted_window, predicted_drift
from api.resources.traces.stored import StoredTrace
from api.store.rows import ConflictError, SeriesRow, SeriesWindowRow, TraceRow
from api.store.tenant import TenantStore
from traces import InputError, Violations
from traces.series.series import MOST
from traces.support.shown import runs

__all__ = ["add_window", "series_named"]

TRIES = 3  # where windows of one series come at the same time
REMEDY = "Begin another series for it."


def series_named(store: TenantStore, series_id: str) -> SeriesRow:
    """Return a series; ``not-found`` if there is none."""
    row = store.series.get(series_id)
    if row is None:
        raise ProblemError("not-found", f"There is no series {series_id[:100]!r}.")
    return row


async def add_window(services: Services, store: TenantStore, series_id: str, body: WindowBody) -> SeriesWindowRow:
    """Add a trace to a series as its last window.

    Raises
    ------
    InputError
        With everything that keeps the trace from it.
    ProblemError
        If there is no such series, or other windows come all the time.
    """
    for _ in range(TRIES):
        row, windows, trace = await run_in_threadpool(_checked, store, series_id, body)
        load, drift = await _counted(services, store, row, windows, trace)
        try:
            await run_in_threadpool(
                store.series.append,
                row,
                trace,
                len(windows),
                at=body.time,
                axes=_axes(trace.facts),
                load=load,
                drift=drift,
            )
        except ConflictError as conflict:
            if conflict.slug == "series-changed":
                continue
            raise ProblemError(conflict.slug, conflict.detail) from None
        return (await run_in_threadpool(store.series.windows, row, len(windows) + 1))[-1]
    raise ProblemError("series-changed", "Other windows came at the same time. Send yours again.")


def _checked(store: TenantStore, series_id: str, body: WindowBody) -> tuple[SeriesRow, list[SeriesWindowRow], TraceRow]:
    row, found = series_named(store, series_id), Violations()
    windows = store.series.windows(row)
    trace = trace_named(store, body.trace, found)
    if trace is not None:
        _check_axes(row, trace.facts, found)
    if twice := [window.number for window in windows if window.trace_id == body.trace]:
        detail = f"The trace is window {twice[0]} of the series already."
        found.add("trace_twice", "/trace", detail, "Add what was recorded next.")
    if len(windows) >= MOST:
        found.add("windows_range", "/trace", f"The series has {MOST:,} windows, and takes no more.", REMEDY)
    _check_time(windows, body.time, found)
    found.raise_if_any()
    assert trace is not None
    return row, windows, trace


def _check_axes(row: SeriesRow, facts: Mapping[str, Any], found: Violations) -> None:
    axes = row.axes
    if axes is None:
        return
    if facts["kind"] != axes["kind"]:
        detail = f"This is a {facts['kind']}; the windows before are of the kind {axes['kind']}."
        found.add("kinds_differ", "/trace", detail, REMEDY)
    if facts["layer_ids"] != axes["layer_ids"]:
        detail = f"It has layers {runs(facts['layer_ids'])}, the windows before {runs(axes['layer_ids'])}."
        found.add("layers_differ", "/trace", detail, REMEDY)
    for name, what in (("num_experts", "experts"), ("top_k", "experts per token")):
        if facts[name] != axes[name]:
            detail = f"It has {facts[name]} {what}, the windows before {axes[name]}."
            found.add(f"{name}_differ", "/trace", detail, REMEDY)


def _check_time(windows: list[SeriesWindowRow], time: float | None, found: Violations) -> None:
    if not windows:
        return
    last = windows[-1].time
    if (last is None) != (time is None):
        detail = "The windows before have none." if last is None else "The windows before have times."
        found.add("times_mixed", "/time", detail, "Leave it out." if last is None else "Give one.")
    elif last is not None and time is not None and time < last:
        found.add("time_order", "/time", f"The last window is of {last:g}.", "Add windows in order of time.")


def _axes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ("kind", "layer_ids", "num_experts", "top_k")}


async def _counted(
    services: Services, store: TenantStore, row: SeriesRow, windows: list[SeriesWindowRow], trace: TraceRow
) -> tuple[bytes, dict[str, Any] | None]:
    """Return the loads of a trace, packed, and its drift: from the window before, else from all before it."""
    settings = services.settings
    last = None
    if windows:
        last = await run_in_threadpool(store.traces.get, windows[-1].trace_id)
        if last is None:  # with its series, meanwhile
            raise ProblemError("not-found", f"There is no series {row.id!r}.")
    size = trace.bytes + (0 if last is None else last.bytes)
    task = WindowTask(
        trace=StoredTrace.of(settings, trace),
        before=None if last is None else StoredTrace.of(settings, last),
        alpha=row.alpha,
    )
    load, drift = await look_at(services, row.tenant, size, "Counting the window", counted_window, task)
    if drift is None or drift["drifted"] is not None or len(windows) < LEAST_PREDICTED:
        return load, drift
    assert row.axes is not None
    shape = len(row.axes["layer_ids"]), int(row.axes["num_experts"])
    earlier = (await run_in_threadpool(store.series.packed_loads, row))[: len(windows)]
    loads = [*earlier, load]
    size = 8 * shape[0] * shape[1] * len(loads)
    return load, await look_at(
        services, row.tenant, size, "Counting the window", predicted_drift, loads, shape, row.alpha
    )


def not_a_layer(layer: int, layers: list[int]) -> InputError:
    """Return the error on a layer that a series has not."""
    detail = f"The series has no layer {layer}."
    return InputError.of("unknown_layer", "?layer", detail, f"Name one of {runs(layers)}.")
