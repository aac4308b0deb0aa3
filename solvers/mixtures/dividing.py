"""Ways to divide domains into groups, and GPUs among them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["partitions", "shared_out"]

Floats = npt.NDArray[np.float64]
MOST_GROUPED = 4  # domains whose groupings are all tried; of more, each has a pool of its own


def partitions(count: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield all ways to put so many domains into two groups or more; of many domains, each alone only."""
    if count > MOST_GROUPED:
        yield tuple((number,) for number in range(count))
        return

    def parts(rest: list[int]) -> Iterator[list[list[int]]]:
        if not rest:
            yield []
            return
        first, others = rest[0], rest[1:]
        for known in parts(others):
            yield [[first], *known]
            for place in range(len(known)):
                yield [*known[:place], [first, *known[place]], *known[place + 1 :]]

    for found in parts(list(range(count))):
        if len(found) > 1:
            yield tuple(tuple(sorted(part)) for part in sorted(found))


def shared_out(weights: Floats, node_of_gpu: npt.NDArray[np.int64]) -> list[tuple[int, ...]] | None:
    """Return the GPUs of each pool, by weights: whole nodes if there are enough, else GPUs; None if they are too few.

    Each has at least one; the next one goes where most weight is per unit (Jefferson's method).

    Parameters
    ----------
    weights : (P,) float64
    node_of_gpu : (G,) int64
    """
    nodes = np.unique(node_of_gpu)
    units = [np.flatnonzero(node_of_gpu == node).tolist() for node in nodes]
    if len(nodes) < len(weights):
        units = [[gpu] for gpu in range(len(node_of_gpu))]
    if len(units) < len(weights):
        return None
    counts = np.ones(len(weights), np.int64)
    for _ in range(len(units) - len(weights)):
        counts[int((weights / counts).argmax())] += 1
    ends = np.cumsum(counts)
    return [
        tuple(gpu for unit in units[end - count : end] for gpu in unit) for end, count in zip(ends, counts, strict=True)
    ]
