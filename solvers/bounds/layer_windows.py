"""Context-coherent traffic: relaxations of windows of layers, on each level of hop costs, add up over the chain."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.bounds import levels_of, most_kept
from solvers.bounds.loads import load_rows
from solvers.bounds.relaxation import LoadRows, Relaxation

__all__ = ["ChainBound", "Window"]

Array = npt.NDArray[np.float64]
# Rows of the largest matrix over several pairs of layers; a step takes 100 to 200 ms there (docs/bounds.md).
MAX_SIZE = 1024
# Per pass; each pass has longer windows; chosen by trial: gains of longer windows come later.
MOST_STEPS = (150, 300, 600)
MAX_PAIR_SIZE = 1536  # of a single pair: a step takes half a second; by docs/bounds.md


@dataclass(frozen=True)
class Window:
    """Layers first..last on one level; it covers the boundaries between them."""

    level: int
    first: int
    last: int


class ChainBound:
    """A lower bound of the traffic term, put together from bounds of windows.

    A plan with replicas under a fair split is an average of plans with one replica each, and empty slots are experts
    that nobody calls, so one relaxation serves all. Windows share only their end layers: each boundary counts once. The
    levels of hop costs add up (`placement.cost.bounds.levels_of`).

    Parameters
    ----------
    problem : Problem
        Context-coherent, at least two GPUs, some traffic.
    """

    patience = 20  # steps

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        affinity = problem.profile.affinity
        assert affinity is not None
        self.affinity = affinity
        self._unit = problem.objective.traffic_weight / float(affinity.sum())
        # The dearest first: it has most to gain.
        self.levels = sorted(levels_of(problem), key=lambda level: -level.cost)
        self._found: dict[Window, float] = {}
        for level, what in enumerate(self.levels):
            for boundary, kept in enumerate(most_kept(affinity, what.room)):
                self.found(Window(level, boundary, boundary + 1), float(kept))

    def windows(self, layers: int) -> list[Window]:
        """Return windows of at most so many layers that cover the chain, about equally long, on each level they fit."""
        boundaries = self.problem.num_layers - 1
        count = -(-boundaries // (layers - 1))
        ends = [boundaries * number // count for number in range(count + 1)]
        most = MAX_PAIR_SIZE if layers == 2 else MAX_SIZE
        return [
            Window(level, first, last)
            for level in range(len(self.levels))
            for first, last in itertools.pairwise(ends)
            if (last - first + 1) * self._places(level) <= most
        ]

    def passes(self) -> list[tuple[list[Window], int]]:
        """Return the windows to try one after the other, and the steps that each may take.

        Pairs of layers, then each time about twice as many layers.
        """
        widths = [2]
        while widths[-1] < self.problem.num_layers:
            widths.append(min(2 * widths[-1], self.problem.num_layers))
        tilings = [windows for width in widths if (windows := self.windows(width))]
        return [(windows, MOST_STEPS[min(number, len(MOST_STEPS) - 1)]) for number, windows in enumerate(tilings)]

    def _places(self, level: int) -> int:
        return self.levels[level].blocks * self.levels[level].room

    def size(self, window: Window) -> int:
        """Return the rows of the matrix of a window."""
        return (window.last - window.first + 1) * self._places(window.level)

    def first_round(self) -> list[Window]:
        """Return the pairs of layers; none where they are too large."""
        return next((pairs for pairs, _ in self.passes()), [])

    def is_quick(self, window: Window) -> bool:
        """Whether a few steps pay early: always, as they bring most of the gain."""
        return True

    def least_chunk(self, window: Window) -> int:
        """Return the steps between two bounds, at least."""
        return 8

    def kept_bytes(self, window: Window) -> int:
        """Return what a relaxation takes while it waits: its matrices."""
        return 32 * self.size(window) ** 2

    def step_cost(self, window: Window) -> int:
        """Return what a step takes beside those of the matrix: nothing."""
        return 0

    def relaxation(self, window: Window) -> Relaxation:
        """Return the relaxation of a window."""
        places, E = self._places(window.level), self.problem.num_experts
        layers = window.last - window.first + 1
        weight = np.zeros((layers, places, layers, places))
        for step in range(layers - 1):
            pair = self.affinity[window.first + step] / 2
            weight[step, :E, step + 1, :E] = pair
            weight[step + 1, :E, step, :E] = pair.T
        blocks = self.levels[window.level].blocks
        return Relaxation(weight.reshape(layers * places, -1), layers, blocks, self._rows(window))

    def _rows(self, window: Window) -> LoadRows | None:
        # Each layer is in two windows of a tiling at most, on each level.
        level = self.levels[window.level]
        share = level.cost * self._unit * 2 * len(self.levels)
        return load_rows(self.problem, range(window.first, window.last + 1), level, share)

    def found(self, window: Window, kept: float) -> None:
        """Take note that at most so many pairs of a window stay together."""
        weight = self.levels[window.level].cost * self._unit
        crossing = weight * max(0.0, float(self.affinity[window.first : window.last].sum()) - kept)
        self._found[window] = max(self._found.get(window, 0.0), crossing)

    def total(self) -> float:
        """Return the bound on the traffic term: for each level, the best tiling of the chain by windows."""
        result, found = 0.0, list(self._found.items())  # a replica: other threads go on
        for level in range(len(self.levels)):
            best = np.zeros(self.problem.num_layers)
            own = sorted((window.last, window.first, value) for window, value in found if window.level == level)
            for last, first, value in own:
                best[last] = max(best[last], best[first] + value)
            result += float(best[-1])
        return result
