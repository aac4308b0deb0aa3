"""The time of a plan on sampled passes, and on passes that a bootstrap makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.advice.sample import PassSample
from placement.plan.plan import Plan
from placement.problem.objective import SettledObjective
from placement.time.model import TimeModel
from placement.time.passes import LayerTimes, PassLoad, PassReplay

__all__ = ["PassTimes", "PlanOnPasses", "mean_step_ms"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
ARRAYS = ("dispatch", "experts", "combine", "dispatch_even", "combine_even", "remote")
AT_ONCE = 500_000  # slots that are timed together, which bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class PassTimes:
    """Times of passes, part by part.

    Attributes
    ----------
    dispatch, experts, combine : (..., P, L) float64
        Milliseconds of each pass and layer.
    rest_ms : float
        Milliseconds per layer beside these.
    dispatch_even, combine_even : (..., P, L) float64
        What dispatch and combine would take if every rank moved as much as the mean one.
    remote : (..., P, L) float64
        Copies of tokens that travel between nodes, per token.
    """

    dispatch: Floats
    experts: Floats
    combine: Floats
    rest_ms: float
    dispatch_even: Floats
    combine_even: Floats
    remote: Floats

    def mapped(self, change: Callable[[Floats], Floats]) -> PassTimes:
        """Return the times with every array changed alike."""
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in ARRAYS}
        return replace(self, **changed)

    def mean(self) -> LayerTimes:
        """Return the means over passes."""
        axes = tuple(range(self.experts.ndim - 1))
        return LayerTimes(
            dispatch=self.dispatch.mean(axis=axes),
            experts=self.experts.mean(axis=axes),
            combine=self.combine.mean(axis=axes),
            rest=self.rest_ms,
        )


def mean_step_ms(time: TimeModel, times: PassTimes) -> float:
    """Return the mean over passes of the time of a step; each pass waits for its own slowest ranks."""
    passes, dense = len(times.experts), time.dense_layers * times.rest_ms
    every = LayerTimes(
        dispatch=times.dispatch.ravel(),
        experts=times.experts.ravel(),
        combine=times.combine.ravel(),
        rest=times.rest_ms,
    )
    return (time.step_ms(every) - dense) / passes + dense


class PlanOnPasses:
    """What every pass and group of a sample does under a plan.

    Parameters
    ----------
    plan : Plan
    sample : PassSample
    time : TimeModel
    objective : SettledObjective
        How tokens travel.
    by_group : bool
        Whether groups are kept apart, for a bootstrap.
    """

    def __init__(
        self,
        plan: Plan,
        sample: PassSample,
        time: TimeModel,
        objective: SettledObjective,
        *,
        by_group: bool = False,
    ) -> None:
        self.time, self.sample = time, sample
        layers, slots = plan.physical_to_logical_map.shape
        gpus = plan.num_gpus
        self._shape: tuple[int, int, int] = (layers, slots, gpus)
        groups = sample.groups if by_group else 1
        cell = sample.cell if by_group else sample.cell // sample.groups
        replay = PassReplay(plan, time.topology, objective, relayed=time.relayed)
        self._sums = np.zeros((sample.passes, groups, layers * (slots + 5 * gpus)), np.int32)
        self._tokens = np.bincount(cell, minlength=sample.passes * groups).reshape(sample.passes, groups)
        order = np.argsort(cell, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(self._tokens.ravel())])
        for number in np.flatnonzero(self._tokens.ravel()):
            part = replay.sums(sample.tokens.select(order[bounds[number] : bounds[number + 1]]))
            flat = np.concatenate([np.asarray(item).ravel() for item in part])
            self._sums[number // groups, number % groups] = flat

    @property
    def slots(self) -> int:
        """Slots per layer, S."""
        return self._shape[1]

    def times(self) -> PassTimes:
        """Return the times of the passes as they are, (P, L) per part."""
        whole = self._sums.sum(axis=1, dtype=np.int64)
        scale = self.sample.pass_tokens / self._tokens.sum(axis=1)
        return self._timed(np.rint(whole * scale[:, None]), (self.sample.passes,))

    def drawn(self, weights: Counts, passes: Counts) -> PassTimes:
        """Return the times of passes in which groups count as often as a bootstrap drew them.

        Parameters
        ----------
        weights : (B, S) int64
            How often each group was drawn.
        passes : (B, P) int64
            Which pass stands in each place.

        Returns
        -------
        PassTimes
            (B, P, L) per part. A pass without a token of the groups drawn is as it was.
        """
        draws, places = passes.shape
        layers, slots, _ = self._shape
        step = max(1, AT_ONCE // (places * layers * slots))
        parts = []
        for start in range(0, draws, step):
            chunk = range(start, min(start + step, draws))
            sums = np.stack([self._drawn(weights[draw], passes[draw]) for draw in chunk])
            parts.append(self._timed(sums, (len(chunk), places)))
        stacked = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        return PassTimes(rest_ms=self.time.rest_ms, **stacked)

    def _drawn(self, weights: Counts, passes: Counts) -> Floats:
        """Return the sums of the passes of one draw, (P, D)."""
        found = np.empty((len(passes), self._sums.shape[2]))
        made: dict[int, Floats] = {}
        for place, number in enumerate(passes.tolist()):
            if number not in made:
                there = weights if (weights * self._tokens[number]).sum() else np.ones_like(weights)
                scale = self.sample.pass_tokens / (there * self._tokens[number]).sum()
                used = np.flatnonzero(there * self._tokens[number])
                made[number] = np.rint(there[used].astype(float) @ self._sums[number, used] * scale)
            found[place] = made[number]
        return found

    def _timed(self, sums: Floats, shape: tuple[int, ...]) -> PassTimes:
        layers, slots, gpus = self._shape
        ends = np.cumsum([layers * slots, layers * gpus, 2 * layers * gpus])
        counts, rows, inside, across = np.split(sums.astype(np.int64), ends, axis=-1)
        load = PassLoad(
            counts=counts.reshape(-1, gpus, slots // gpus),
            rows=rows.reshape(-1, gpus),
            inside=inside.reshape(-1, gpus, 2),
            across=across.reshape(-1, gpus, 2),
            tokens=self.sample.pass_tokens,
        )
        even = replace(load, inside=_even(load.inside), across=_even(load.across))
        found, whole = self.time.layer_times(load), (*shape, layers)
        remote = load.across[:, :, 0].sum(axis=1) / self.sample.pass_tokens
        return PassTimes(
            dispatch=found.dispatch.reshape(whole),
            experts=found.experts.reshape(whole),
            combine=found.combine.reshape(whole),
            rest_ms=found.rest,
            dispatch_even=self.time.exchange_ms(even, "dispatch").reshape(whole),
            combine_even=self.time.exchange_ms(even, "combine").reshape(whole),
            remote=remote.reshape(whole),
        )


def _even(copies: Counts) -> Counts:
    """Return copies sent and received, (L, G, 2), of ranks that all move as much as the mean one."""
    found: Counts = np.rint(copies.mean(axis=1, keepdims=True)).astype(np.int64)
    return np.broadcast_to(found, copies.shape)
