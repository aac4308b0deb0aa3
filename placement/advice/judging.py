"""Whether a change is worth it: the time before and after on the same passes, with an interval, and a rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from placement.advice.sample import PassSample
from placement.advice.timing import PassTimes, PlanOnPasses, mean_step_ms
from placement.time.model import TimeModel
from placement.time.passes import LayerTimes
from placement.time.rest import REST_ERROR

__all__ = ["LEAST_PER_EXPERT", "LEAST_SEQUENCES", "WORTH", "Gain", "Verdict", "judge_gain", "verdict_of"]

Floats = npt.NDArray[np.float64]
Verdict = Literal["worth_it", "not_worth_it", "not_enough_data"]
Interval = tuple[float, float]

# The least gain that pays: a rearrangement stalls 32 GPUs for .91 s (vllm-project/vllm#43219), which a gain of .5 %
# earns back in three minutes. Below it, a plan is out of date before it has paid.
WORTH: Final = 0.005
LEAST_SEQUENCES: Final = 8  # fewer show nothing about others
LEAST_PER_EXPERT: Final = 16  # mean tokens of an expert in a layer: below, its load is known to +- 25 % at best
TELLING: Final = 0.025  # half an interval over sequences beyond which a gain of some per cent may go unseen
CONFIDENCE: Final = 0.9
MOST_DRAWS, LEAST_DRAWS = 120, 60
MOST_TIMED: Final = 10_000_000  # slots x layers x passes that all draws of one plan time
SD_OF_MEDIAN: Final = 0.6745  # the median of the size of a normal error, in standard deviations
# Errors that before and after share cancel; what is left is that of their difference. The ratio of skewed to uniform
# kernel times is right within 15 % in nine of ten measurements that differ by a third to a half: a quarter of it.
OF_EXPERTS: Final = 0.25
OF_EXCHANGE: Final = 0.1  # of what follows from more or fewer messages: straight lines, measured
# Of what follows from ranks that move more than others. All-to-alls were measured with even routing only; time was flat
# in skew where that was tried (deepspeedai/DeepSpeed#8213), so that the lower end counts nothing of it.
OF_SKEW: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a plan gains over another, on tokens that neither has seen.

    Attributes
    ----------
    before, after : LayerTimes
        Means over passes.
    remote_before, remote_after : (L,) float64
        Copies of a token that travel between nodes.
    step_ms_before, step_ms_after : float
    fraction : float
        Of the step before.
    interval : (float, float)
        90 %, over sequences and the model's own error.
    over_sequences, over_model : (float, float)
        The same over one of the two alone.
    moe_share : float
        Of the step before: dispatch, experts and combine.
    draws : int
        Of the bootstrap.
    """

    before: LayerTimes
    after: LayerTimes
    remote_before: Floats
    remote_after: Floats
    step_ms_before: float
    step_ms_after: float
    fraction: float
    interval: Interval
    over_sequences: Interval
    over_model: Interval
    moe_share: float
    draws: int


def judge_gain(
    before: PlanOnPasses, after: PlanOnPasses, time: TimeModel, sample: PassSample, *, seed: int = 0
) -> Gain:
    """Judge one plan against another on the same passes.

    The bootstrap draws groups of sequences with replacement, and passes too where they share sequences; both plans are
    timed on each draw. Draws repeat sequences, which makes any load less even: their deviations are taken from their
    own mean, put around the figures of the sample, and widened for few groups by Student's t. To each is added what the
    gain is off by if the model is: each part by an error that both plans share, their differences by errors of their
    own.

    Parameters
    ----------
    before, after : PlanOnPasses
        Of `sample`, by group.
    time : TimeModel
    sample : PassSample
    seed : int
    """
    rng = np.random.default_rng([seed, 0x41445649])
    old, new = before.times(), after.times()
    olds, news = mean_step_ms(time, old), mean_step_ms(time, new)
    fraction = 1 - news / olds
    layers, slots = old.experts.shape[1], max(before.slots, after.slots)
    draws = int(np.clip(MOST_TIMED // (layers * slots * sample.passes), LEAST_DRAWS, MOST_DRAWS))
    weights = rng.multinomial(sample.groups, np.full(sample.groups, 1 / sample.groups), size=draws)
    passes = rng.integers(sample.passes, size=(draws, sample.passes))
    factors = _factors(time, rng, draws)
    drawn_old, drawn_new = before.drawn(weights, passes), after.drawn(weights, passes)
    resampled = np.array([_fraction(time, drawn_old, drawn_new, number) for number in range(draws)])
    flat_old, flat_new = _one(old), _one(new)
    model = np.array([_fraction(time, flat_old, flat_new, 0, factor) for factor in factors])
    over = (resampled - resampled.mean()) * _for_few(sample.groups)
    mean_old = old.mean()
    moe = float((mean_old.dispatch + mean_old.experts + mean_old.combine).sum())
    whole = moe + mean_old.rest * (layers + time.dense_layers)
    return Gain(
        before=mean_old,
        after=new.mean(),
        remote_before=old.remote.mean(axis=0),
        remote_after=new.remote.mean(axis=0),
        step_ms_before=olds,
        step_ms_after=news,
        fraction=fraction,
        interval=_around(fraction, over + model - fraction),
        over_sequences=_around(fraction, over),
        over_model=_around(fraction, model - fraction),
        moe_share=moe / whole if whole else 0.0,
        draws=draws,
    )


def verdict_of(gain: Gain, sequences: int, per_expert: float) -> Verdict:
    """Return the verdict by the rule that `docs/advise.md` states.

    Parameters
    ----------
    gain : Gain
    sequences : int
        Held out.
    per_expert : float
        Mean tokens of an expert in a layer, of those held out.
    """
    if sequences < LEAST_SEQUENCES:
        return "not_enough_data"
    if gain.interval[0] > WORTH:
        return "worth_it"
    low, high = gain.over_sequences
    if gain.interval[1] > WORTH and ((high - low) / 2 > TELLING or per_expert < LEAST_PER_EXPERT):
        return "not_enough_data"
    return "not_worth_it"


@dataclass(frozen=True, kw_only=True)
class _Factors:
    """Errors of the model in one draw: of each part in both plans, and of what the plans differ by."""

    experts: float
    exchange: float
    rest: float
    experts_apart: float
    exchange_apart: float
    skew_apart: float


def _factors(time: TimeModel, rng: np.random.Generator, draws: int) -> list[_Factors]:
    experts = max(kernel.error.median for kernel in time.kernels) / SD_OF_MEDIAN
    tiers = [time.inside, *([time.across] if time.machine.num_nodes > 1 else [])]
    exchange = max(float(np.median([curve.error.median for curve in tier.curves])) for tier in tiers) / SD_OF_MEDIAN
    shared = np.exp(rng.standard_normal((draws, 3)) * [experts, exchange, REST_ERROR / SD_OF_MEDIAN])
    apart = 1 + rng.standard_normal((draws, 3)) * [max(OF_EXPERTS, experts), max(OF_EXCHANGE, exchange), OF_SKEW]
    apart = np.maximum(apart, 0)
    return [
        _Factors(
            experts=float(shared[number, 0]),
            exchange=float(shared[number, 1]),
            rest=float(shared[number, 2]),
            experts_apart=float(apart[number, 0]),
            exchange_apart=float(apart[number, 1]),
            skew_apart=float(apart[number, 2]),
        )
        for number in range(draws)
    ]


def _fraction(time: TimeModel, old: PassTimes, new: PassTimes, number: int, factor: _Factors | None = None) -> float:
    """Return the gain in one draw, as a fraction of the step before."""
    before, after = _draw(old, number), _draw(new, number)
    if factor is not None:
        before, after = _wrong(before, after, factor), _wrong(after, before, factor)
    return 1 - mean_step_ms(time, after) / mean_step_ms(time, before)


def _draw(times: PassTimes, number: int) -> PassTimes:
    return times.mapped(lambda values: values[number])


def _one(times: PassTimes) -> PassTimes:
    """Return times as those of a single draw."""
    return times.mapped(lambda values: values[None])


def _wrong(mine: PassTimes, other: PassTimes, factor: _Factors) -> PassTimes:
    """Return times as they are if the model is off: about the mean of both plans, and in what they differ by."""

    def exchange(name: str) -> Floats:
        own, theirs = getattr(mine, name), getattr(other, name)
        even, even_there = getattr(mine, f"{name}_even"), getattr(other, f"{name}_even")
        volume = (even - even_there) / 2
        skew = (own - theirs) / 2 - volume
        found: Floats = factor.exchange * (
            (own + theirs) / 2 + factor.exchange_apart * volume + factor.skew_apart * skew
        )
        return np.maximum(found, 0)

    experts = (mine.experts + other.experts) / 2 + factor.experts_apart * (mine.experts - other.experts) / 2
    return replace(
        mine,
        dispatch=exchange("dispatch"),
        experts=factor.experts * experts,
        combine=exchange("combine"),
        rest_ms=mine.rest_ms * factor.rest,
    )


def _for_few(groups: int) -> float:
    """Return the factor by which a bootstrap of so many groups is too narrow."""
    if groups < 2:
        return 0.0
    from scipy.special import stdtrit  # takes longer to load than all else that a search needs

    level = (1 + CONFIDENCE) / 2
    return float(stdtrit(groups - 1, level) / stdtrit(1e9, level) * np.sqrt(groups / (groups - 1)))


def _around(centre: float, deviations: Floats) -> Interval:
    low, high = np.quantile(deviations, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(centre + low), float(centre + high)
