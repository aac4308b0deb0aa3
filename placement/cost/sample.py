"""Replay of the profile's sample of tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.problem.problem import Problem
from placement.replay.replay import Replay
from traces.support.parallel import available_cores, map_threads

__all__ = ["replay_sample"]

THREADED_CELLS = 1_000_000  # assignments of a sample from which on its replay takes longer than threads to start


def replay_sample(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> Replay:
    """Replay the profile's sample of tokens through a map (L, S), under the problem's objective."""
    sample = problem.profile.sample
    assert sample is not None
    replay = Replay.of(table, problem.num_experts, problem.slots_per_gpu, problem.topology, problem.objective)
    size = sample.topk_ids.size

    def add(tokens: slice) -> Replay:
        part = replay.fork()
        part.add(sample.topk_ids[tokens], sample.rows[tokens], sample.seq_id[tokens], sample.source_rank[tokens])
        return part

    # Counts are whole numbers: they add up to the same, however many threads there are.
    threads = available_cores() if size >= THREADED_CELLS else 1
    bounds = np.linspace(0, len(sample.rows), threads + 1).astype(int)
    for part in map_threads(add, [slice(a, b) for a, b in pairwise(bounds)]):
        replay.join(part)
    return replay
