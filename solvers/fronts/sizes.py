"""The numbers of slots per GPU that a front against replicas tries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement import Problem
from solvers.methods.registry import Solver
from traces import InputError, Violations

__all__ = ["check_sizes", "sizes_of"]

EXTRA_SLOTS = 4  # per GPU, where the problem has no spare ones; chosen by trial


def sizes_of(problem: Problem, points: int) -> list[int]:
    """Return the slots per GPU to try, rising."""
    least = math.ceil(problem.num_experts / problem.num_gpus)
    while True:
        try:
            replace(problem, slots_per_gpu=least)
            break
        except InputError:
            if least >= problem.slots_per_gpu:
                raise
            least += 1
    most = problem.slots_per_gpu if problem.slots_per_gpu > least else least + EXTRA_SLOTS
    if problem.constraints.distinct_replicas:
        most = max(least, min(most, problem.num_experts))
    sizes = sorted({round(size) for size in np.linspace(least, most, min(points, most - least + 1))})
    found = Violations()
    for size in sizes:
        try:
            replace(problem, slots_per_gpu=size)
        except InputError as error:
            found.extend(error)
    found.raise_if_any()
    return sizes


def check_sizes(solver: Solver, problem: Problem, sizes: list[int]) -> None:
    """Refuse, before the first search, a solver that can't take some number of slots: one that fills them all, say."""
    for size in sizes:
        if reason := solver.supports(replace(problem, slots_per_gpu=size)):
            detail = f"{solver.name}, with {size} slots per GPU: {reason}"
            raise InputError.of("unsupported", "/solver", detail, "Choose another solver, such as 'auto'.")
