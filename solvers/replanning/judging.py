"""How plans are judged in a re-plan: in milliseconds of passes, or by the objective's score, on what was held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, score
from placement.advice.judging import CONFIDENCE, LEAST_SEQUENCES, judge_gain
from placement.advice.sample import PassSample, sample_passes
from placement.advice.timing import PlanOnPasses
from placement.problem.objective import SettledObjective
from placement.time import TimeModel
from solvers.judging.judge import Judge
from traces import LoadCounts, Profile, Trace

__all__ = ["Judged", "Measure", "ScoreMeasure", "TimeMeasure", "groups_of_counts", "groups_of_trace", "thinned"]

GROUPS = 12  # of whole sequences, for the interval of a score
PARTS = 8  # of counts of one time, into which they are thinned


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One plan against another on what neither has seen.

    Attributes
    ----------
    before, after : float
        In the measure's unit.
    fraction : float
        Gain, of `before`.
    interval : (float, float)
        90 %.
    half : float
        Half of the interval's width over sequences alone: what more tokens would narrow.
    groups : int
        Sequences, or groups and dumps, that it was taken over.
    per_expert : float
        Mean tokens of an expert in a layer.
    """

    before: float
    after: float
    fraction: float
    interval: tuple[float, float]
    half: float
    groups: int
    per_expert: float


class Measure(Protocol):
    """What plans are compared by."""

    @property
    def in_time(self) -> bool:
        """Whether values are in milliseconds, so that gains can be weighed against seconds."""

    @property
    def least_groups(self) -> int:
        """Sequences, groups or dumps that have to be held out to tell anything."""

    @property
    def unit(self) -> str:
        """Of the values."""

    def fitted(self, plan: Plan) -> float:
        """Return the value on the part that plans are fitted on."""

    def gain(self, before: float, after: float) -> float:
        """Return a gain as a fraction of what a step takes."""

    def judge(self, before: Plan, after: Plan) -> Judged:
        """Compare two plans on the part that is held out."""


@dataclass(frozen=True, kw_only=True)
class TimeMeasure:
    """Milliseconds of a forward pass.

    Attributes
    ----------
    time : TimeModel
    travel : SettledObjective
    fit, held : PassSample
    held_out : bool
        Whether `held` is of tokens that were held out.
    top_k, num_experts, seed : int
    """

    time: TimeModel
    travel: SettledObjective
    fit: PassSample
    held: PassSample
    held_out: bool
    top_k: int
    num_experts: int
    seed: int

    in_time = True
    least_groups = LEAST_SEQUENCES

    @property
    def unit(self) -> str:
        """Of the values."""
        return "ms per step"

    @property
    def judge_of_fit(self) -> Judge:
        """What times plans on the fitted part."""
        return Judge(time=self.time, sample=self.fit, travel=self.travel)

    def fitted(self, plan: Plan) -> float:
        """Return the mean step on the fitted part."""
        return self.judge_of_fit.step_ms(plan)

    def gain(self, before: float, after: float) -> float:
        """Return a gain as a fraction of the step."""
        return 1 - after / before

    def judge(self, before: Plan, after: Plan) -> Judged:
        """Compare two plans on the same passes, with the model's own error; see `judge_gain`."""
        old, new = (PlanOnPasses(plan, self.held, self.time, self.travel, by_group=True) for plan in (before, after))
        gain = judge_gain(old, new, self.time, self.held, seed=self.seed)
        low, high = gain.over_sequences
        return Judged(
            before=gain.step_ms_before,
            after=gain.step_ms_after,
            fraction=gain.fraction,
            interval=gain.interval,
            half=(high - low) / 2,
            groups=self.held.sequences if self.held_out else 0,
            per_expert=len(self.held.tokens) * self.top_k / self.num_experts,
        )


@dataclass(frozen=True, kw_only=True)
class ScoreMeasure:
    """The objective's score.

    Attributes
    ----------
    problem : Problem
        Of the fitted part.
    held : Profile or None
        Of the part that is held out; None where nothing is.
    groups : tuple of Profile
        Parts of it that vary as other traffic would.
    choices : float
        Tokens times top-k that are held out.
    """

    problem: Problem
    held: Profile | None
    groups: tuple[Profile, ...]
    choices: float

    in_time = False
    least_groups = 3  # fewer dumps show nothing about others

    @property
    def unit(self) -> str:
        """Of the values."""
        return "score"

    def fitted(self, plan: Plan) -> float:
        """Return the score on the fitted part."""
        return self._value(self.problem, plan)

    def gain(self, before: float, after: float) -> float:
        """Return a gain as a fraction of the score and of what even loads cost.

        The score counts what loads are above even ones: of two plans that are nearly even, one may have half of the
        other's score, and a step takes as long. Experts take max/mean load, so even loads count as the weight of the
        imbalance.
        """
        whole = abs(before) + self.problem.objective.imbalance_weight
        return (before - after) / whole if whole else 0.0

    def judge(self, before: Plan, after: Plan) -> Judged:
        """Compare the scores on the held-out part; the interval is Student's t over the groups' differences."""
        whole = self.problem if self.held is None else replace(self.problem, profile=self.held)
        old, new = (self._value(whole, plan) for plan in (before, after))
        apart = []
        for group in self.groups:
            problem = replace(self.problem, profile=group)
            apart.append(self.gain(*(self._value(problem, plan) for plan in (before, after))))
        fraction = self.gain(old, new)
        half = float("inf")
        if len(apart) > 1:
            from scipy.special import stdtrit  # takes long to load

            factor = stdtrit(len(apart) - 1, (1 + CONFIDENCE) / 2)
            half = float(factor * np.std(apart, ddof=1) / np.sqrt(len(apart)))
        return Judged(
            before=old,
            after=new,
            fraction=fraction,
            interval=(fraction - half, fraction + half),
            half=half,
            groups=len(self.groups),
            per_expert=self.choices / self.problem.num_experts,
        )

    @staticmethod
    def _value(problem: Problem, plan: Plan) -> float:
        """Return the score of a plan; that of a plan with other slots is under a problem of as many."""
        if plan.slots_per_gpu != problem.slots_per_gpu:
            problem = replace(problem, slots_per_gpu=plan.slots_per_gpu, redundant_experts=None)
        return score(problem, plan).total


def groups_of_trace(trace: Trace) -> tuple[Profile, ...]:
    """Return profiles of groups of whole sequences."""
    sample = sample_passes(trace, 2**62, "prefill", groups=GROUPS, max_passes=1)
    return tuple(_groups(trace, sample))


def _groups(trace: Trace, sample: PassSample) -> Iterator[Profile]:
    for group in range(sample.groups):
        tokens = sample.tokens.select(sample.cell == group)
        known: dict[str, Any] = {
            name: column for name in ("seq_id", "source_rank") if (column := getattr(tokens, name)) is not None
        }
        part = Trace.of(tokens.topk_ids, num_experts=trace.num_experts, layer_ids=trace.layer_ids, **known)
        yield Profile.of(part, workers=1)


def groups_of_counts(counts: LoadCounts, seed: int) -> tuple[Profile, ...]:
    """Return profiles of the dumps of counts; of counts of one time, of parts into which they are thinned."""
    if len(counts.dumps) > 1:
        return tuple(Profile.of(counts.of_dumps([dump], dump.name)) for dump in counts.dumps)
    left, found = counts, []
    for part in range(PARTS - 1):
        one, left = thinned(left, 1 / (PARTS - part), seed + part + 1)
        found.append(one)
    return tuple(Profile.of(part) for part in (*found, left))


def thinned(counts: LoadCounts, share: float, seed: int) -> tuple[LoadCounts, LoadCounts]:
    """Return counts in two parts, as if each choice had been recorded in one of them by chance.

    Parts of independent choices are independent of each other (Neufeld et al., arXiv 2301.07276, "Data thinning"):
    what a plan gains on the other part is no overfitting. Counts that are no whole numbers are rounded.

    Parameters
    ----------
    counts : LoadCounts
    share : float
        Of the first part.
    seed : int
    """
    rng = np.random.default_rng([seed, 0x7468696E])
    whole: npt.NDArray[np.int64] = np.rint(counts.load).astype(np.int64)
    first = rng.binomial(whole, share)
    parts = (first, whole - first)
    made = (LoadCounts.of(part, layer_ids=counts.layer_ids, provenance=counts.provenance) for part in parts)
    one, other = made
    return one, other
