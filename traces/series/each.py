"""A series whose windows are recordings of their own: one window of each, in the order given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite

import numpy as np

from traces.counts import LoadCounts
from traces.profile.profile import Profile
from traces.provenance import Provenance
from traces.series.cutting import PARTS, each_whole
from traces.series.drift import ALPHA, Drift, drift_between
from traces.series.series import MOST, Series
from traces.series.window import Window
from traces.support.errors import Violations
from traces.support.kinds import checked
from traces.support.shown import runs
from traces.trace import Trace

__all__ = ["bare", "drift_of_next", "series_of_each", "window_of"]

Recording = Trace | LoadCounts | Profile


@checked
def series_of_each(
    sources: Sequence[Recording], *, names: Sequence[str] | None = None, times: Sequence[float] | None = None
) -> Series:
    """Make a series of recordings, a window of each.

    Parameters
    ----------
    sources : sequence of Trace, LoadCounts or Profile
        In order of time, 2 to 1,000, all of one kind, of the same layers and experts.
    names : sequence of str, optional
        Of the windows; those of the sources by default.
    times : sequence of float, optional
        When they were recorded, in order: seconds, a step or an iteration.

    Raises
    ------
    InputError
        With every source that is of another kind, or has other layers or experts, than the first one.
    """
    found = Violations()
    if not 2 <= len(sources) <= MOST:
        found.add("windows_range", "/windows", f"{len(sources)} windows.", f"Give 2 to {MOST:,}.")
    for what, given in (("names", names), ("times", times)):
        if given is not None and len(given) != len(sources):
            detail = f"{len(given)} {what} for {len(sources)} windows."
            found.add("windows_differ", f"/{what}", detail, "Give as many as there are windows.")
    if times is not None and not all(map(isfinite, times)):
        found.add("time_range", "/times", "A time is no finite number.", "Give seconds, a step or an iteration.")
    elif times is not None and any(later < earlier for earlier, later in pairwise(times)):
        found.add("time_order", "/times", "A window is older than the one before it.", "Give them in order of time.")
    found.raise_if_any()
    first = sources[0]
    for number, source in enumerate(sources[1:], 1):
        if type(source) is not type(first):
            detail = f"It is a {type(source).__name__}, and the first window a {type(first).__name__}."
            found.add("kinds_differ", f"/windows/{number}", detail, "Give sources of one kind.")
            continue
        if source.layer_ids.tolist() != first.layer_ids.tolist():
            detail = f"It has layers {runs(source.layer_ids.tolist())}, the first {runs(first.layer_ids.tolist())}."
            found.add("layers_differ", f"/windows/{number}", detail, "Record the same layers.")
        if source.num_experts != first.num_experts:
            detail = f"It has {source.num_experts} experts, the first {first.num_experts}."
            found.add("experts_differ", f"/windows/{number}", detail, "Record the same model.")
        if isinstance(source, Trace) and isinstance(first, Trace) and source.top_k != first.top_k:
            detail = f"Its tokens have {source.top_k} experts, those of the first {first.top_k}."
            found.add("top_k_differs", f"/windows/{number}", detail, "Record the same model.")
    found.raise_if_any()
    called = names or [_name(source) for source in sources]
    windows = [window_of(source, name) for source, name in zip(sources, called, strict=True)]
    if times is not None:
        windows = [replace(window, time=float(time)) for window, time in zip(windows, times, strict=True)]
    return Series(
        windows=tuple(windows),
        layer_ids=first.layer_ids,
        num_experts=first.num_experts,
        provenance=Provenance(source=_name(first)).noting(f"{len(windows)} windows over time, of one recording each."),
    )


def window_of(source: Recording, name: str) -> Window:
    """Return all of a recording as one window.

    Parts of a trace are whole sequences, those of counts its dumps; a profile, and counts without dumps, are one part.
    """
    if isinstance(source, Trace):
        return each_whole([source], [name])[0]
    load = np.asarray(source.load, np.float64)
    window = Window(name=name, time=None, load=load, parts=load[None])
    return _of_dumps(source, window) if isinstance(source, LoadCounts) and len(source.dumps) > 1 else window


def _of_dumps(counts: LoadCounts, window: Window) -> Window:
    """Return the window with its dumps as parts, neighbours joined in twos, fours and so on until there are few."""
    per_part = 1
    while len(counts.dumps) > PARTS * per_part:
        per_part *= 2
    parts = np.zeros((len(counts.dumps) // per_part, *window.load.shape))
    for number, dump in enumerate(counts.dumps[: len(parts) * per_part]):
        parts[number // per_part] += dump.read()
    return replace(window, parts=parts, per_part=per_part)


def bare(window: Window) -> Window:
    """Return the window as one part, as if it were a single dump."""
    return replace(window, parts=window.load[None], per_part=1, tokens=None)


def drift_of_next(earlier: Sequence[Window], following: Window, *, alpha: float = ALPHA, seed: int = 0) -> Drift:
    """Tell whether a window has drifted from the one before it; if they have too few parts, from all before it.

    Parameters
    ----------
    earlier : sequence of Window
        All before, at least one; of all but the last, only the loads are looked at.
    following : Window
    alpha, seed
        See `drift_between`.
    """
    found = drift_between(earlier[-1:], [following], alpha=alpha, seed=seed)
    if found.drifted is not None:
        return found
    return drift_between([bare(window) for window in earlier], [bare(following)], alpha=alpha, seed=seed)


def _name(source: Recording) -> str:
    if isinstance(source, Profile):
        return source.sources[0].source if source.sources else "profile"
    return source.provenance.source
