"""Load alone, balanced better than EPLB does, in milliseconds as well.

References
----------
https://github.com/deepseek-ai/EPLB, for the replicas and the packing it starts from; ``docs/solvers.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.methods.load_balance.kernels.balance import balance_layers
from solvers.searching.search import Search
from solvers.searching.threads import run_together
from traces import InputError, Violations

__all__ = ["LoadBalance", "balanced", "rebalance"]

EXCHANGES = 20_000_000  # that the moves of a layer may look at, at most: some 20 ms
CHUNKS = 4  # per worker, as layers take unequal time

Floats = npt.NDArray[np.float64]
Tables = npt.NDArray[np.int32]


def rebalance(
    weight: npt.ArrayLike, *, num_slots: int, num_gpus: int, retries: int = 1, workers: int = 1
) -> npt.NDArray[np.int32]:
    """Replicate and place experts by load, on equal GPUs.

    Parameters
    ----------
    weight : (L, E) float
        Load per layer and expert.
    num_slots : int
        Slots per layer, S.
    num_gpus : int
    retries : int
        As in `LoadBalance`.
    workers : int
        Threads; the result does not depend on them.

    Returns
    -------
    (L, S) int32
        Physical-to-logical map, -1 for an empty slot. No GPU holds two replicas of an expert. In no layer is the
        largest GPU load above that of `solvers.methods.eplb.solver.rebalance` with its second replicas on a GPU
        separated.

    Raises
    ------
    InputError
        If loads or sizes are not right.
    """
    load = np.ascontiguousarray(weight, dtype=np.float64)
    if load.ndim != 2 or not np.isfinite(load).all() or (load < 0).any():
        raise InputError.of("weight", "/weight", "Expected finite loads (layers, experts).", "Correct the matrix.")
    found = Violations()
    if num_gpus < 1 or num_slots % num_gpus:
        detail = f"{num_slots} can't be divided into {num_gpus} equal parts."
        found.add("not_divisible", "/num_gpus", detail, "Change the sizes.")
    if num_slots < load.shape[1]:
        found.add("more_experts_than_slots", "/num_slots", f"{load.shape[1]} experts, {num_slots} slots.", "Add slots.")
    found.raise_if_any()
    capacity, fair = np.full(num_gpus, num_slots // num_gpus), np.full(num_gpus, 1 / num_gpus)
    table = np.empty((len(load), num_gpus, num_slots // num_gpus), np.int32)
    tasks = _tasks(load, capacity, fair, retries, table, CHUNKS * workers, lambda: False)
    with ThreadPoolExecutor(max(1, workers)) as threads:
        for future in [threads.submit(task) for task in tasks]:
            future.result()
    return table.reshape(len(load), num_slots)


def balanced(problem: Problem, extra: int) -> Tables:
    """Return a map with `extra` replicas in each layer, as even as `rebalance` makes it, (L, S); -1 for an empty slot.

    Parameters
    ----------
    problem : Problem
        Without pins, exclusions and groups.
    extra : int
        At most the spare slots of a layer.
    """
    capacity = problem.capacity.copy()
    for _ in range(int(capacity.sum()) - problem.num_experts - extra):
        capacity[capacity.argmax()] -= 1
    table = np.empty((problem.num_layers, problem.num_gpus, problem.slots_per_gpu), np.int32)
    for task in _tasks(problem.profile.load, capacity, problem.topology.fair_share, 1, table, 1, lambda: False):
        task()
    return table.reshape(problem.num_layers, problem.num_slots)


def _tasks(
    load: Floats,
    capacity: npt.NDArray[np.int64],
    fair: Floats,
    retries: int,
    table: Tables,
    parts: int,
    stop: Callable[[], bool],
) -> list[Callable[[], None]]:
    """Return calls that fill `table`, (L, G, C), a run of layers each; after `stop` they are packed only."""
    layers, gpus, per_gpu = table.shape
    load = load.view()
    load.flags.writeable = False  # as in a profile: for other arrays, all loops would be compiled once more
    as_eplb = bool((capacity == per_gpu).all() and (fair == fair[0]).all())
    total = load.sum(axis=1, keepdims=True)
    scale = 1 / (fair * np.where(total > 0, total, 1.0))
    moves = max(1, EXCHANGES // (gpus * per_gpu * per_gpu))

    def place(first: int, end: int) -> None:
        few = stop()
        balance_layers(
            load[first:end],
            capacity,
            scale[first:end],
            as_eplb,
            0 if few else retries,
            0 if few else moves,
            table[first:end],
        )

    cuts = np.linspace(0, layers, min(layers, max(1, parts)) + 1).astype(int).tolist()
    return [partial(place, first, end) for first, end in pairwise(cuts)]


@dataclass(frozen=True, kw_only=True)
class LoadBalance:
    """Replicas and packing as EPLB's, then moves that relieve the busiest GPU of each layer.

    Attributes
    ----------
    retries : int
        Other numbers of replicas to try in a layer whose largest load stays above its lower bound.
    """

    retries: int = 1

    name: ClassVar[str] = "load_balance"
    summary: ClassVar[str] = "Balances load only: EPLB's steps, then moves that relieve the busiest GPU. Milliseconds."

    def __post_init__(self) -> None:
        if not 0 <= self.retries <= 1000:
            raise InputError.of("option_range", "/options/retries", f"{self.retries} retries.", "Give 0 to 1000.")

    def supports(self, problem: Problem) -> str | None:
        """No pins, exclusions or groups; any speeds and slots."""
        constraints = problem.constraints
        if constraints.pins or constraints.forbidden or constraints.groups:
            return "it knows no pins, exclusions or groups."
        if problem.replicas_limited:
            return "it fills every slot, and knows no budget of replicas."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan."""
        table = np.empty((problem.num_layers, problem.num_gpus, problem.slots_per_gpu), np.int32)
        tasks = _tasks(
            problem.profile.load,
            problem.capacity,
            problem.topology.fair_share,
            self.retries,
            table,
            CHUNKS * search.workers,
            lambda: search.done,
        )
        run_together(search, tasks)
        search.offer(table.reshape(problem.num_layers, problem.num_slots))
