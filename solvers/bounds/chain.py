"""Context-coherent traffic: relaxations of windows of layers, for GPUs and for nodes, that add up over the chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.bounds import hop_costs, room
from solvers.bounds.loads import load_rows
from solvers.bounds.relaxation import LoadRows, Relaxation

__all__ = ["ChainBound", "Window"]

Array = npt.NDArray[np.float64]
MAX_SIZE = 1024  # rows of the largest matrix


@dataclass(frozen=True)
class Window:
    """Layers first..last of one level (0: GPUs, 1: nodes); it covers the boundaries between them."""

    level: int
    first: int
    last: int


class ChainBound:
    """A lower bound of the objective, put together from bounds of windows.

    A plan with copies under a fair split is an average of plans with one copy each, and empty slots are experts that
    nobody calls, so one relaxation serves all. Windows share only their end layers: each boundary counts once. Crossing
    to another GPU costs at least `near`, to another node at least `far`:
    ``near * LB(GPUs) + (far - near) * LB(nodes)``.

    Parameters
    ----------
    problem : Problem
        Context-coherent, at least two GPUs, some traffic.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        affinity = problem.profile.affinity
        assert affinity is not None
        self.affinity = affinity
        total = float(affinity.sum())
        near, far = hop_costs(problem)
        slots, node_slots = room(problem)
        weight = problem.objective.traffic_weight / total
        self.levels = [
            (problem.num_gpus, slots, near * weight),
            (problem.topology.num_nodes, node_slots, (far - near) * weight),
        ]
        self.levels = [level for level in self.levels if level[0] > 1 and level[2] > 0]
        self._found: dict[Window, float] = {}

    def windows(self, layers: int) -> list[Window]:
        """Return windows of so many layers that cover the chain, of all levels; the last ones may be shorter."""
        last = self.problem.num_layers - 1
        starts = range(0, last, layers - 1)
        return [Window(level, a, min(a + layers - 1, last)) for level in range(len(self.levels)) for a in starts]

    def size(self, layers: int) -> int:
        """Return the rows of the matrix of a window of so many layers."""
        return layers * max((blocks * slots for blocks, slots, _ in self.levels), default=0)

    def widths(self) -> list[int]:
        """Return the lengths of windows to try, each about twice as long as the one before."""
        longest = self.problem.num_layers
        wanted = [width for width in (2, 4, 8) if width <= longest] or [longest]
        if longest not in wanted and longest < 8:
            wanted.append(longest)
        return [width for width in wanted if width == 2 or self.size(width) <= MAX_SIZE]

    def relaxation(self, window: Window) -> Relaxation:
        """Return the relaxation of a window."""
        blocks, slots, _ = self.levels[window.level]
        places, E = blocks * slots, self.problem.num_experts
        layers = window.last - window.first + 1
        weight = np.zeros((layers, places, layers, places))
        for step in range(layers - 1):
            pair = self.affinity[window.first + step] / 2
            weight[step, :E, step + 1, :E] = pair
            weight[step + 1, :E, step, :E] = pair.T
        return Relaxation(weight.reshape(layers * places, -1), layers, blocks, self._rows(window))

    def _rows(self, window: Window) -> LoadRows | None:
        # Each layer is in two windows at most, and in those of each level.
        blocks, slots, weight = self.levels[window.level]
        return load_rows(
            self.problem, range(window.first, window.last + 1), blocks, slots, weight * 2 * len(self.levels)
        )

    def found(self, window: Window, kept: float) -> None:
        """Take note that at most so many pairs of a window stay together."""
        weight = self.levels[window.level][2]
        crossing = weight * max(0.0, float(self.affinity[window.first : window.last].sum()) - kept)
        self._found[window] = max(self._found.get(window, 0.0), crossing)

    def total(self) -> float:
        """Return the bound on the traffic term: for each level, the best tiling of the chain by windows."""
        result, found = 0.0, dict(self._found)  # other threads go on
        for level in range(len(self.levels)):
            best = np.zeros(self.problem.num_layers)
            for first in range(self.problem.num_layers - 1):
                best[first + 1] = max(best[first + 1], best[first])
                for window, value in found.items():
                    if window.level == level and window.first == first:
                        best[window.last] = max(best[window.last], best[first] + value)
            result += float(np.maximum.accumulate(best)[-1])
        return result
