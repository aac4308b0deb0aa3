"""Plans for pools of GPUs, and their passes in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem
from placement.advice.sample import PassSample, sample_passes
from placement.advice.timing import PlanOnPasses, mean_step_ms
from placement.moves.carry import machine_without
from placement.time import TimeModel
from placement.time.step import travel_in_steps
from solvers.mixtures.domains import Domain
from solvers.mixtures.request import MixtureRequest
from solvers.mixtures.weighing import mixed
from solvers.solving.solving import solve
from traces import Trace
from traces.model.shape import WEIGHT_BYTES

__all__ = ["MadePool", "PoolSearch"]

Floats = npt.NDArray[np.float64]
MOST_TOKENS = 1 << 16  # of each domain, which bounds the memory
DRAWS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class MadePool:
    """A pool that was searched for."""

    domains: tuple[int, ...]
    gpus: tuple[int, ...]
    share: float
    time: TimeModel
    plan: Plan
    fitted_ms: float

    def load_ms(self, whole: TimeModel, step_ms: Any) -> Any:
        """Return what the pool takes in the time of a pass of the whole machine, of what a pass of its own takes."""
        return step_ms * self.share * whole.pass_tokens / self.time.pass_tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolSearch:
    """What pools are searched for with."""

    problem: Problem
    request: MixtureRequest
    domains: Sequence[Domain]
    weights: Floats
    time: TimeModel
    workers: int | None

    def pool(self, group: tuple[int, ...], gpus: tuple[int, ...]) -> MadePool | None:
        """Return the pool of some domains on some GPUs; None where these have too little memory."""
        request, whole = self.request, self.time.machine
        machine = machine_without(whole, tuple(gpu for gpu in range(whole.num_gpus) if gpu not in gpus))
        slots = self._slots(len(gpus))
        if slots is None:
            return None
        model, phase = request.model, request.phase or "prefill"
        assert model is not None  # with a machine
        time = TimeModel.of(machine, model, phase=phase, tokens_per_gpu=request.tokens_per_gpu)
        profile = mixed([self.domains[number].profile for number in group], self._shares(group))
        asked = replace(
            self.problem, profile=profile, topology=time.topology, slots_per_gpu=slots, redundant_experts=None
        )
        own: dict[str, Any] = {"limits": request.limits, "seed": request.seed, "workers": self.workers}
        plan = solve(asked, request.solver, options=dict(request.options), **own).plan
        fitted, _ = self.timed(time, plan, self.tokens(group, held_out=False), None)
        share = float(self.weights[list(group)].sum())
        return MadePool(domains=group, gpus=gpus, share=share, time=time, plan=plan, fitted_ms=fitted)

    def _slots(self, gpus: int) -> int | None:
        """Return slots per GPU: as many redundant experts as the one plan has, fewer where memory is short."""
        size = self.time.model.shape.expert_weights * WEIGHT_BYTES[self.time.weight_dtype]
        room = min(gpu.memory_gb for gpu in self.time.machine.gpus) * 1e9
        most = int(room // (size * self.problem.num_layers))
        least, wanted = -(-self.problem.num_experts // gpus), -(-self.problem.num_slots // gpus)
        return None if least > most else min(wanted, most, self.problem.num_experts)

    def _shares(self, group: tuple[int, ...]) -> Floats:
        own = self.weights[list(group)]
        shares: Floats = own / own.sum()
        return shares

    def tokens(self, group: tuple[int, ...], *, held_out: bool) -> Trace:
        """Return tokens of domains by their weights, whole sequences in turn."""
        read = [_sequences(self.domains[number].held_out if held_out else self.domains[number].fit) for number in group]
        shares = self._shares(group)
        most = min(sum(map(len, each)) / share for each, share in zip(read, shares, strict=True))
        places, kept = [], []
        for each, share in zip(read, shares, strict=True):
            ends = np.cumsum([len(sequence) for sequence in each])
            count = max(1, int(np.searchsorted(ends, most * share, side="right")))
            kept += each[:count]
            places += ((np.arange(count) + 0.5) / count).tolist()
        order = np.argsort(places, kind="stable")
        ids = np.concatenate([kept[number] for number in order])
        number = np.repeat(np.arange(len(order)), [len(kept[number]) for number in order])
        first = self.domains[0].fit
        return Trace.of(ids, num_experts=first.num_experts, layer_ids=first.layer_ids, seq_id=number)

    def timed(self, time: TimeModel, plan: Plan, trace: Trace, rng: np.random.Generator | None) -> tuple[float, Floats]:
        """Return the mean time of a pass, and that of draws of its groups of sequences, (B,)."""
        sample: PassSample = sample_passes(trace, time.pass_tokens, self.request.phase or "prefill")
        travel = travel_in_steps(trace, time, self.problem.engine, None, None, None)
        known = PlanOnPasses(plan, sample, time, travel, by_group=rng is not None)
        ms = mean_step_ms(time, known.times())
        if rng is None:
            return ms, np.zeros(0)
        groups = rng.multinomial(sample.groups, np.full(sample.groups, 1 / sample.groups), size=DRAWS)
        passes = rng.integers(sample.passes, size=(DRAWS, sample.passes))
        drawn = known.drawn(groups, passes)
        steps = [mean_step_ms(time, drawn.mapped(partial(_of_draw, number))) for number in range(DRAWS)]
        return ms, np.array(steps)


def _of_draw(number: int, part: Floats) -> Floats:
    chosen: Floats = part[number]
    return chosen


def _sequences(trace: Trace) -> list[npt.NDArray[np.integer[Any]]]:
    """Return the tokens (N, L, K) of a trace's sequences, of the first ones of a long trace."""
    ids, keys, count = [], [], 0
    for batch in trace.batches():
        ids.append(batch.topk_ids)
        keys.append(batch.rows // 64 if batch.seq_id is None else np.asarray(batch.seq_id, np.int64))
        count += len(batch)
        if count >= MOST_TOKENS:
            break
    flat, key = np.concatenate(ids)[:MOST_TOKENS], np.concatenate(keys)[:MOST_TOKENS]
    order = np.argsort(key, kind="stable")
    ends = np.flatnonzero(np.diff(key[order])) + 1
    return [flat[part] for part in np.split(order, ends)]
