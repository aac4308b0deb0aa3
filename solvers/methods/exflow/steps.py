"""The integer programmes that a form of ExFlow's method solves one after the other.

References
----------
ExFlow, arXiv 2401.08383, section IV; ``docs/methods/exflow.md``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from placement import Problem
from solvers.arrange.in_order import gpu_in_order
from solvers.arrange.shares import shares

__all__ = ["Form", "Step", "steps_of"]

Form = Literal["flat", "staged", "bisection"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One model: the experts on a run of GPUs are split into parts of it.

    Attributes
    ----------
    first : int
        First GPU of the run.
    experts : int
        Experts of each layer on the run, n.
    parts : tuple of int
        First GPU of each part, P of them.
    low, high : tuple of int
        Fewest and most experts of a layer on each part.
    """

    first: int
    experts: int
    parts: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Part of each expert where parts are filled one after the other, (n,)."""
        if sum(self.low) == self.experts:
            return tuple(part for part, count in enumerate(self.low) for _ in range(count))
        return tuple(gpu_in_order(self.experts, len(self.parts)).tolist())

    def settings(self) -> dict[str, Any]:
        """Return what the program takes: the fields, and the order."""
        return asdict(self) | {"order": self.order}

    def rows(self, num_layers: int) -> int:
        """Return the size of the model in crossing rows, ``(L - 1) n^2 P``."""
        return (num_layers - 1) * self.experts**2 * len(self.parts)


def steps_of(problem: Problem, form: Form) -> list[Step]:
    """Return the models in order: a run is split before its parts are.

    Parameters
    ----------
    problem : Problem
        With the same number of slots on every GPU.
    form : {"flat", "staged", "bisection"}
        All GPUs at once; nodes, then the GPUs of each node; or halves, halves of these, and so on.

    Returns
    -------
    list of Step
        Empty for a single GPU.
    """
    experts, gpus = problem.num_experts, problem.num_gpus
    bounds = [*np.flatnonzero(np.diff(problem.topology.node_of_gpu, prepend=-1)).tolist(), gpus]
    if form == "bisection":
        return _halves(0, gpus, experts, bounds)
    slots = problem.slots_per_gpu
    if form == "flat" or len(bounds) == 2:
        return _gpus(0, gpus, experts, slots)
    counts = shares(experts, tuple(problem.topology.gpus_per_node))
    steps = [Step(first=0, experts=experts, parts=tuple(bounds[:-1]), low=counts, high=counts)]
    for first, stop, count in zip(bounds, bounds[1:], counts, strict=False):
        steps += _gpus(first, stop, count, slots)
    return steps


def _gpus(first: int, stop: int, experts: int, slots: int) -> list[Step]:
    """Split a run into its GPUs: equal counts where they divide, else as many as fit."""
    count = stop - first
    if count == 1 or experts == 0:
        return []
    equal = experts % count == 0
    low, high = (experts // count, experts // count) if equal else (0, slots)
    return [
        Step(first=first, experts=experts, parts=tuple(range(first, stop)), low=(low,) * count, high=(high,) * count)
    ]


def _halves(first: int, stop: int, experts: int, bounds: list[int]) -> list[Step]:
    """Split a run in the middle, between nodes if it has several, and then its halves."""
    if stop - first == 1 or experts == 0:
        return []
    places = [bound for bound in bounds if first < bound < stop] or range(first + 1, stop)
    middle = min(places, key=lambda place: abs(2 * place - first - stop))
    counts = shares(experts, (middle - first, stop - middle))
    return [
        Step(first=first, experts=experts, parts=(first, middle), low=counts, high=counts),
        *_halves(first, middle, counts[0], bounds),
        *_halves(middle, stop, counts[1], bounds),
    ]
