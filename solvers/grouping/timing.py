"""Steps in milliseconds of requests that were sent to GPUs: their second halves, at home on the GPUs they go to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from placement import Plan
from placement.advice.sample import sample_passes
from placement.advice.timing import PlanOnPasses, mean_step_ms
from placement.time import TimeModel
from placement.time.step import check_fit, travel_in_steps
from solvers.grouping.signatures import Signatures
from traces import Batch, Trace
from traces.support.words import Phase

__all__ = ["served", "step_ms"]

Ints = npt.NDArray[np.int64]


def step_ms(time: TimeModel, phase: Phase, plan: Plan, trace: Trace, requests: Signatures, worker: Ints) -> float:
    """Return the mean time of a forward pass of the requests' second halves, in ms.

    Parameters
    ----------
    time : TimeModel
    phase : {"prefill", "decode"}
        In decode, a pass has a token of every request in turn, as a batch has.
    plan : Plan
    trace : Trace
        With `seq_id`.
    requests : Signatures
        Those to judge by.
    worker : (R,) int64
        GPU of each.

    Raises
    ------
    InputError
        If plan, machine and model don't fit.
    """
    tokens = served(trace, requests, worker)
    check_fit(plan, tokens, time)
    travel = travel_in_steps(tokens, time, None, "dispatch", "measured", None)
    sample = sample_passes(tokens, time.pass_tokens, phase)
    return mean_step_ms(time, PlanOnPasses(plan, sample, time, travel).times())


def served(trace: Trace, requests: Signatures, worker: Ints) -> Trace:
    """Return the second halves of requests as a trace, with the GPU of each as the source rank of its tokens."""
    return replace(
        trace,
        read=_Served(trace=trace, ids=requests.ids, tokens=requests.tokens, worker=worker).read,
        columns=frozenset({"seq_id", "source_rank"}),
        num_tokens=int((requests.tokens // 2).sum()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Served:
    """Reads what `served` returns."""

    trace: Trace
    ids: Ints
    tokens: Ints
    worker: Ints

    def read(self, max_tokens: int) -> Iterator[Batch]:
        """Yield the batches."""
        order = np.argsort(self.ids)
        known, passed, row = self.ids[order], np.zeros(len(self.ids), np.int64), 0
        for batch in self.trace.batches(max_tokens):
            sequence = np.asarray(batch.seq_id).astype(np.int64)
            at = np.minimum(np.searchsorted(known, sequence), len(known) - 1)
            mine = np.flatnonzero(known[at] == sequence)
            number = order[at[mine]]
            place = passed[number] + _before(number)
            passed += np.bincount(number, minlength=len(passed))
            late = place >= (self.tokens[number] + 1) // 2
            if late.any():
                kept, request = mine[late], number[late]
                yield Batch(
                    topk_ids=batch.topk_ids[kept],
                    rows=row + np.arange(len(kept)),
                    seq_id=sequence[kept],
                    source_rank=self.worker[request].astype(np.int32),
                )
                row += len(kept)


def _before(number: Ints) -> Ints:
    """Return how many entries of the same number come before each one."""
    order = np.argsort(number, kind="stable")
    ordered = number[order]
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    place = np.empty(len(number), np.int64)
    place[order] = np.arange(len(number)) - np.repeat(starts, np.diff(np.r_[starts, len(number)]))
    return place
