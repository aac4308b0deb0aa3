"""Whether loads have changed between two times, or differ as sampling alone makes them differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.series.window import Window
from traces.support.content import ByContent
from traces.support.errors import InputError
from traces.support.kinds import checked

__all__ = ["ALPHA", "Drift", "drift_between", "variation"]

Floats = npt.NDArray[np.float64]
Method = Literal["permutation", "prediction", "none"]
ALPHA = 0.05
AT_ONCE = 40  # permutations, which bounds the memory
DRAWS = 399  # permutations: the least p-value is 1 / 400
LEAST_EARLIER = 3  # windows before, for the spread of their distances to be known at all


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift(ByContent):
    """How far the loads of one time are from those of another, and whether sampling explains it.

    Attributes
    ----------
    size : float
        Share of the assignments that would have to go to other experts, mean over layers: total variation, 0 to 1.
    noise : float or None
        What `size` is on average where nothing has changed; None where that can't be known.
    p_value : float or None
        How often sampling alone makes a difference of this size, all layers together.
    drifted : bool or None
        Whether `p_value` is at most `alpha`. None: there are too few sequences, or dumps, to tell.
    alpha : float
        Rate of false alarms where nothing has changed.
    layer_size : (L,) float64
        The size by layer.
    layer_drifted : (L,) bool
        Layers that have drifted; the rate of any false one among all is `alpha`.
    method : {"permutation", "prediction", "none"}
        How it was told, see `drift_between`.
    """

    size: float
    noise: float | None
    p_value: float | None
    drifted: bool | None
    alpha: float
    layer_size: Floats
    layer_drifted: npt.NDArray[np.bool_]
    method: Method

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, JSON-ready; layers by number of those that have drifted."""
        return {
            "size": self.size,
            "noise": self.noise,
            "p_value": self.p_value,
            "drifted": self.drifted,
            "alpha": self.alpha,
            "layers_drifted": int(self.layer_drifted.sum()),
            "largest_layer_size": float(self.layer_size.max()),
            "method": self.method,
        }


def variation(one: Floats, other: Floats) -> Floats:
    """Return the total variation between shares, (..., L), from (..., L, E) each."""
    distance: Floats = np.abs(one - other).sum(axis=-1) / 2
    return distance


@checked
def drift_between(before: Sequence[Window], after: Sequence[Window], *, alpha: float = ALPHA, seed: int = 0) -> Drift:
    """Tell whether loads have drifted from some windows to others.

    Tokens of one sequence are alike, so that counts spread more than if every token were drawn by itself. Whole parts
    are exchanged for that: under the null hypothesis all parts of both times are alike and in any order, and the
    share of permutations that make a difference at least as large is a p-value with exactly the stated rate of false
    alarms, however alike the tokens of a sequence are.

    Where each window is a single dump there is nothing to exchange. Then the distance of the later windows from the
    mean of the earlier ones is held against the distances of each earlier window from the mean of the others, in
    logarithms and with Student's distribution: a prediction interval, which takes it that these distances are
    log-normal, and needs three earlier windows.

    Parameters
    ----------
    before, after : sequence of Window
        Of one series; at least one each.
    alpha : float
        Rate of false alarms, 0.001 to 0.5.
    seed : int
        Of the permutations.

    Returns
    -------
    Drift

    Raises
    ------
    InputError
        If `alpha` is out of range, or there is no window.
    """
    if not 0.001 <= alpha <= 0.5:
        raise InputError.of("alpha_range", "/alpha", f"alpha is {alpha}.", "Give a rate of 0.001 to 0.5.")
    if not before or not after:
        raise InputError.of("no_windows", "/windows", "There is no window.", "Give at least one of each time.")
    mine, other = (sum(window.load for window in windows) for windows in (before, after))
    size = variation(_shares(np.asarray(mine)), _shares(np.asarray(other)))
    most = max(window.per_part for window in (*before, *after))
    first, last = (np.concatenate([_parts(window, most) for window in windows]) for windows in (before, after))
    if comb(len(first) + len(last), len(last)) * alpha >= 2 and min(len(first), len(last)) > 1:
        return _permuted(first, last, size, alpha, seed)
    if len(before) >= LEAST_EARLIER:
        return _predicted(before, after, size, alpha)
    return _drift(size, alpha, "none")


def _parts(window: Window, per_part: int) -> Floats:
    """Return parts of so many sequences each, as only parts of one make can be exchanged; what is left over is out."""
    together = per_part // window.per_part
    whole = len(window.parts) // together * together
    parts: Floats = window.parts[:whole].reshape(-1, together, *window.load.shape).sum(axis=1)
    return parts


def _shares(load: Floats) -> Floats:
    total = load.sum(axis=-1, keepdims=True)
    found: Floats = np.divide(load, total, out=np.zeros_like(load, dtype=np.float64), where=total > 0)
    return found


def _permuted(first: Floats, last: Floats, size: Floats, alpha: float, seed: int) -> Drift:
    """Exchange parts between both times; the statistic is taken from the parts, as they are all that is exchanged."""
    parts = np.concatenate([first, last])
    flat = parts.reshape(len(parts), -1)
    rng = np.random.default_rng(seed)
    chosen = np.zeros((DRAWS + 1, len(parts)))
    chosen[0, len(first) :] = 1
    for draw in range(1, DRAWS + 1):
        chosen[draw, rng.permutation(len(parts))[: len(last)]] = 1
    total = flat.sum(axis=0)
    distances = np.empty((DRAWS + 1, parts.shape[1]))
    for start in range(0, DRAWS + 1, AT_ONCE):
        later = chosen[start : start + AT_ONCE] @ flat
        one, other = (load.reshape(-1, *parts.shape[1:]) for load in (total - later, later))
        distances[start : start + AT_ONCE] = variation(_shares(one), _shares(other))
    means = distances.mean(axis=1)
    p_value = float((means >= means[0] - 1e-12).mean())
    spread = np.maximum(distances.std(axis=0), 1e-12)
    scaled = (distances - distances.mean(axis=0)) / spread
    largest = scaled.max(axis=1)  # Westfall and Young: a layer is held against the largest of all layers
    found = (largest[:, None] >= scaled[0] - 1e-9).mean(axis=0) <= alpha
    return _drift(size, alpha, "permutation", noise=float(means[1:].mean()), p_value=p_value, layers=found)


def _predicted(before: Sequence[Window], after: Sequence[Window], size: Floats, alpha: float) -> Drift:
    earlier, later = (np.stack([window.shares for window in windows]) for windows in (before, after))
    count = len(earlier)
    total = earlier.sum(axis=0)
    left_out = np.stack([variation(one, (total - one) / (count - 1)) for one in earlier])  # (B, L)
    # The mean of all earlier windows is nearer to each of them than that of the others: the same factor for all.
    fair = np.sqrt((1 + 1 / count) / (1 + 1 / (count - 1))) * np.sqrt((1 / len(later) + 1 / count) / (1 + 1 / count))
    seen = variation(later.mean(axis=0), total / count)
    usual = np.log(np.maximum(left_out * fair, 1e-12))

    from scipy.special import stdtr  # takes long to load

    def tail(logs: Floats, now: Floats) -> Floats:
        spread = np.maximum(logs.std(axis=0, ddof=1), LEAST_SPREAD) * np.sqrt(1 + 1 / count)
        values: Floats = stdtr(count - 1, -(now - logs.mean(axis=0)) / spread)
        return values

    means = np.log(np.maximum((left_out * fair).mean(axis=1), 1e-12))
    p_value = float(tail(means, np.log(np.maximum(seen.mean(), 1e-12))))
    by_layer = tail(usual, np.log(np.maximum(seen, 1e-12)))
    noise = float(np.exp(means).mean())
    return _drift(size, alpha, "prediction", noise=noise, p_value=p_value, layers=_holm(by_layer, alpha))


LEAST_SPREAD = 0.02  # of the logarithms: distances of thousands of counts are never known better


def _drift(
    size: Floats,
    alpha: float,
    method: Method,
    noise: float | None = None,
    p_value: float | None = None,
    layers: npt.NDArray[np.bool_] | None = None,
) -> Drift:
    return Drift(
        size=float(size.mean()),
        noise=noise,
        p_value=p_value,
        drifted=None if p_value is None else p_value <= alpha,
        alpha=alpha,
        layer_size=size,
        layer_drifted=np.zeros(len(size), np.bool_) if layers is None else layers,
        method=method,
    )


def _holm(p_values: Floats, alpha: float) -> npt.NDArray[np.bool_]:
    """Return which hypotheses are rejected, none of them falsely but at the rate `alpha` (Holm, 1979)."""
    order = np.argsort(p_values)
    passed = p_values[order] <= alpha / np.arange(len(p_values), 0, -1)
    rejected = np.zeros(len(p_values), np.bool_)
    rejected[order[: len(passed) if passed.all() else int(passed.argmin())]] = True
    return rejected
