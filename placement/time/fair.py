"""How fast classes of devices are to each other: the loads with which all of them take the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from placement.time.experts import ExpertKernel
from traces.model.shape import ModelShape

__all__ = ["relative_speed"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
STEPS: Final = 60  # of tokens per expert, and of halving: shares to a hundredth
LIGHT, BUSY = 1, 4096  # tokens on each expert: reading weights is all there is, and computing


def relative_speed(kernels: Sequence[ExpertKernel], gpus: Counts, tokens: int, shape: ModelShape) -> Floats:
    """Return the load that is fair for a rank of each class, the largest 1, (kinds,).

    Ranks have as many experts each, and a class as many tokens on each of its own that all classes finish together. The
    speed of a class stays between that of its memory and that of its matrix units: where every expert is read whole,
    however few tokens it has, no share of the tokens makes a class finish sooner.

    Parameters
    ----------
    kernels : sequence of ExpertKernel
        Of each class.
    gpus : (kinds,) int64
        Ranks of each class.
    tokens : int
        Of the pass, all ranks together.
    shape : ModelShape
    """
    pairs, slots = tokens * shape.top_k, -(-shape.num_experts // int(gpus.sum()))
    each = np.unique(np.geomspace(1, max(2, -(-pairs // slots)), STEPS).round().astype(np.int64))
    grid = [_rank_ms(kernel, each, slots, pairs, shape) for kernel in kernels]
    rising = [np.maximum.accumulate(times) * (1 + 1e-9 * np.arange(len(each))) for times in grid]  # for the inverse

    def load(ms: float) -> Floats:
        return np.array([np.interp(ms, times, each) for times in rising])

    low, high = min(float(times[0]) for times in rising), max(float(times[-1]) for times in rising)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if load(middle) @ gpus * slots < pairs else (low, middle)
    fair = load(high)
    first = int(fair.argmax())
    at_ends = [_rank_ms(kernel, np.array([LIGHT, BUSY]), slots, pairs, shape) for kernel in kernels]
    ends = np.array([at_ends[first] / times for times in at_ends])
    found = np.clip(fair / fair[first], ends.min(axis=1), ends.max(axis=1))
    speed: Floats = found / found.max()
    return speed


def _rank_ms(kernel: ExpertKernel, each: Counts, slots: int, pairs: int, shape: ModelShape) -> Floats:
    """Return the time of a rank with so many tokens on each of its experts, (...) milliseconds."""
    share = np.minimum(each * slots / pairs, 1)
    rows = pairs / shape.top_k * (1 - (1 - share) ** shape.top_k)
    return kernel.rank_ms(np.repeat(each[:, None], slots, axis=1), rows, shape)
