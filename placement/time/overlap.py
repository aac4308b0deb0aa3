"""Two-batch overlap: one half of a batch travels while the other computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from placement.time.passes import PassLoad

__all__ = ["HIDDEN", "Overlap", "in_halves", "of_halves", "overlapped_ms"]

Floats = npt.NDArray[np.float64]
Overlap = Literal["none", "two_batch"]

# Of the shorter of exchange and computing: they share memory and SMs, and each waits for the other at every step.
# SGLang, DeepSeek-V3 on 4x8 H100, 8,192 tokens per GPU: 27 to 35 % more tokens per second (LMSYS, May 2025, "Deploying
# DeepSeek with PD disaggregation ..."), whose middle is half here. ATOM on 8 MI355X hid as much of two all-reduces per
# layer (ROCm/ATOM#1681: 567 to 495 ms).
HIDDEN: Final = 0.5


def overlapped_ms(exchange: Floats, compute: Floats) -> Floats:
    """Return what two overlapped halves of a layer take, whose exchanges and computing take so long by themselves."""
    found: Floats = np.maximum(exchange, compute) + (1 - HIDDEN) * np.minimum(exchange, compute)
    return found


def in_halves(overlap: Overlap, ms: Callable[[PassLoad], Floats], load: PassLoad) -> Floats:
    """Return the time of a part of a pass: as a whole, or in the two halves that overlap with one another.

    Two halves read the weights of their experts once each, start every kernel twice and fill it less. They never take
    less than the whole.

    Parameters
    ----------
    overlap : {"none", "two_batch"}
    ms : callable
        The time of the part for the load of a pass.
    load : PassLoad
    """
    whole = ms(load)
    if overlap == "none":
        return whole
    found: Floats = np.maximum(whole, sum(map(ms, _halves(load))))
    return found


def of_halves(overlap: Overlap, ms: Callable[[float], npt.ArrayLike]) -> Floats:
    """Return the same where both halves are alike: `ms` is the time of a whole pass for 1, and of a half for .5."""
    whole = np.asarray(ms(1.0), float)
    found: Floats = whole if overlap == "none" else np.maximum(whole, 2 * np.asarray(ms(0.5), float))
    return found


def _halves(load: PassLoad) -> tuple[PassLoad, PassLoad]:
    """Return the loads of two halves: odd tokens go to the first and the second in turn."""
    names = ("counts", "rows", "inside", "across")
    wholes = {name: getattr(load, name) for name in names}
    first = {name: (whole + np.arange(whole.shape[-1]) % 2) // 2 for name, whole in wholes.items()}
    second = {name: whole - first[name] for name, whole in wholes.items()}
    half = load.tokens // 2
    return replace(load, tokens=load.tokens - half, **first), replace(load, tokens=half, **second)
