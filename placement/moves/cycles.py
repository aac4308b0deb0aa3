"""The difference of two plans of a layer, cut into cycles of GPUs that each leave a valid plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OUTSIDE", "Cycles", "cycles"]

Cycle = list[tuple[int, int, int]]  # (expert, from, to)
Cycles = list[Cycle]
OUTSIDE = -1  # where replicas come from that are new, and go to that are dropped


def cycles(start: npt.NDArray[np.integer[Any]], target: npt.NDArray[np.integer[Any]], num_gpus: int) -> Cycles:
    """Cut the difference of two rows (S,) of maps into cycles, shortest first: exchanges of two GPUs where it has any.

    Returns
    -------
    list of cycles of (expert, from, to)
        GPUs; -1 is outside, and expert -1 an empty slot. Each cycle visits a GPU once, and leaves it with as many slots
        filled as it has. Any of them together keep an expert alive that both rows hold: its replicas only go up from
        one row to the other, or only down, overall and on each GPU.
    """
    edges = _edges(start, target, num_gpus)
    found = _pairs(edges)
    while edges:
        path: Cycle = []
        visited: dict[int, int] = {}
        gpu = next(iter(edges))
        while gpu not in visited:
            visited[gpu] = len(path)
            expert, onward = edges[gpu].pop()
            if not edges[gpu]:
                del edges[gpu]
            path.append((expert, gpu, onward))
            gpu = onward
        found.append(path[visited[gpu] :])
        for expert, a, b in path[: visited[gpu]]:  # the way into the cycle is not part of it
            edges.setdefault(a, []).append((expert, b))
    return sorted(found, key=len)


def _edges(
    start: npt.NDArray[np.integer[Any]], target: npt.NDArray[np.integer[Any]], num_gpus: int
) -> dict[int, list[tuple[int, int]]]:
    """Return by GPU what leaves it, and where that goes."""
    before, after = (np.sort(row.reshape(num_gpus, -1), axis=1) for row in (start, target))
    leaves: dict[int, list[int]] = {}
    arrives: dict[int, list[int]] = {}
    for gpu in range(num_gpus):
        old, new = before[gpu].tolist(), after[gpu].tolist()
        for expert in list(old):
            if expert in new:
                old.remove(expert)
                new.remove(expert)
        for expert in old:
            leaves.setdefault(expert, []).append(gpu)
        for expert in new:
            arrives.setdefault(expert, []).append(gpu)
    edges: dict[int, list[tuple[int, int]]] = {}
    for expert in sorted(leaves.keys() | arrives.keys()):
        out, into = leaves.get(expert, []), arrives.get(expert, [])
        length = max(len(out), len(into))
        out, into = out + [OUTSIDE] * (length - len(out)), into + [OUTSIDE] * (length - len(into))
        for a, b in zip(out, into, strict=True):
            edges.setdefault(a, []).append((expert, b))
    return edges


def _pairs(edges: dict[int, list[tuple[int, int]]]) -> Cycles:
    """Take exchanges of two GPUs out of the edges."""
    found: Cycles = []
    for a in sorted(edges):
        for expert, b in list(edges.get(a, ())):
            back = next((item for item in edges.get(b, ()) if item[1] == a), None)
            if b == a or back is None or (expert, b) not in edges[a]:
                continue
            edges[a].remove((expert, b))
            edges[b].remove(back)
            found.append([(expert, a, b), (back[0], b, a)])
    for gpu in [gpu for gpu, left in edges.items() if not left]:
        del edges[gpu]
    return found
