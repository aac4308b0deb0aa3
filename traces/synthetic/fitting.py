"""Parameters that make a generated trace resemble a profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from traces.profile.profile import Profile
from traces.statistics.affinity import affinity_strength
from traces.statistics.load import coactivation_share
from traces.statistics.samples import require_sample
from traces.synthetic.generator import generate
from traces.synthetic.likeness import likeness
from traces.synthetic.parameters import Synthetic
from traces.synthetic.teams import team_share

__all__ = ["like"]

DIMENSIONS, BALANCES, TOPICS = (2, 4, 8, 16), (0.0, 0.5, 1.0), (16, 256)
FIRST_TOPICS = 64
TRIAL_LAYERS, TRIAL_TOKENS, TRIAL_SEQUENCE = 6, 4096, 4
MAX_AFFINITY, MAX_SKEW = 12.0, 3.0
ROUNDS, STEPS = 2, 7
MAX_PER_SEQUENCE = 64


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Statistics that do not depend on the number of layers, and little on E and K."""

    variation: float  # squared coefficient of variation of the load, without its sampling noise
    strength: float  # normalised mutual information between consecutive layers
    successors: float  # top share above its null
    partners: float  # co-activation share above what the loads give
    teams: float  # share that four teams keep, above a quarter

    @classmethod
    def of(cls, profile: Profile) -> _Shape:
        affinity = affinity_strength(profile, permutations=2)
        observed, expected = coactivation_share(profile)
        return cls(
            variation=_variation(profile),
            strength=float(affinity.normalised.mean()),
            successors=float((affinity.top_share - affinity.top_share_null).mean()),
            partners=float((observed - expected).mean()),
            teams=team_share(profile) - 0.25,
        )


def like(
    profile: Profile,
    *,
    num_layers: int | None = None,
    num_experts: int | None = None,
    top_k: int | None = None,
    num_tokens: int = 100_000,
    seed: int = 0,
) -> Synthetic:
    """Return parameters whose traces resemble those behind `profile`, of the same or of other sizes.

    For each of several numbers of dimensions and degrees of balance, then of topics, `affinity` is bisected until the
    debiased, normalised affinity strength of a small generated trace is that of the profile, and `skew` until the
    variation of the load is. The candidate that then comes closest in load, strength, successor share, co-activation
    and `team_share` is taken. `topics_per_sequence` follows from how much more alike two tokens of one sequence are
    than two of different ones; `tokens_per_sequence` is the mean length. Groups, drift, phases and source ranks are
    not fitted.

    Parameters
    ----------
    profile : Profile
        With a token sample.
    num_layers, num_experts, top_k : int, optional
        Other sizes than the profile's; the statistics are matched at these sizes.
    num_tokens, seed : int
        Of the result.

    Returns
    -------
    Synthetic

    Raises
    ------
    InputError
        If the profile holds counts only, one layer or too small a sample, or if the sizes do not fit together.
    """
    sample = require_sample(profile, "Fitting a generator")
    sequences = np.unique(sample.seq_id[sample.seq_id >= 0]).size
    wanted = Synthetic(
        num_layers=profile.num_layers if num_layers is None else num_layers,
        num_experts=profile.num_experts if num_experts is None else num_experts,
        top_k=profile.top_k if top_k is None else top_k,
        num_tokens=num_tokens,
        seed=seed,
        tokens_per_sequence=max(1, round(profile.tokens / sequences)) if sequences else 256,
    )
    target = _Shape.of(profile)
    trial = replace(
        wanted,
        num_layers=min(TRIAL_LAYERS, max(2, wanted.num_layers)),
        num_tokens=TRIAL_TOKENS,
        tokens_per_sequence=TRIAL_SEQUENCE,  # many short sequences: an even mix of topics, as in a long trace
    )
    fits = [
        _fit(replace(trial, topics=FIRST_TOPICS, dimensions=dimensions, balance=balance), target)
        for dimensions, balance in product(DIMENSIONS, BALANCES)
    ]
    best = min(fits, key=lambda fit: fit[0])[1]
    fits += [_fit(replace(best, topics=topics), target) for topics in TOPICS]
    fitted = min(fits, key=lambda fit: fit[0])[1]
    return replace(
        wanted,
        topics=fitted.topics,
        dimensions=fitted.dimensions,
        balance=fitted.balance,
        affinity=fitted.affinity,
        skew=fitted.skew,
        topics_per_sequence=_topics_per_sequence(fitted, likeness(sample, profile.num_experts)),
    )


def _fit(trial: Synthetic, target: _Shape) -> tuple[float, Synthetic]:
    """Fit affinity and skew for the topics of `trial`; return the remaining mismatch, and the parameters."""
    params = trial

    def strength(affinity: float) -> float:
        profile = Profile.of(generate(replace(params, affinity=affinity)))
        return float(affinity_strength(profile, permutations=2).normalised.mean())

    def variation(skew: float) -> float:
        return _variation(Profile.of(generate(replace(params, skew=skew)), sample_tokens=0))

    for _ in range(ROUNDS):
        params = replace(params, affinity=_bisect(strength, target.strength, MAX_AFFINITY))
        params = replace(params, skew=_bisect(variation, target.variation, MAX_SKEW))
    reached = _Shape.of(Profile.of(generate(params)))
    pairs = [
        (np.sqrt(max(0.0, reached.variation)), np.sqrt(max(0.0, target.variation))),
        (reached.strength, target.strength),
        (reached.successors, target.successors),
        (reached.partners, target.partners),
        (reached.teams, target.teams),
    ]
    mismatch = sum(((got - wanted) / max(abs(wanted), 0.01)) ** 2 for got, wanted in pairs)
    return float(mismatch), params


def _bisect(function: Callable[[float], float], target: float, high: float) -> float:
    """Return where the rising `function` reaches `target` on [0, high]; an end, if it is out of reach."""
    low = 0.0
    if function(low) >= target:
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        if function(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _topics_per_sequence(fitted: Synthetic, alike: float | None) -> int:
    """Return the number of topics that makes two tokens of a generated sequence as much alike as `alike` says."""
    if alike is None or not fitted.affinity:
        return fitted.topics_per_sequence
    own = Profile.of(generate(replace(fitted, topics_per_sequence=1, tokens_per_sequence=16))).sample
    most = None if own is None else likeness(own, fitted.num_experts)
    if most is None or most <= 0:
        return fitted.topics_per_sequence
    # Two tokens of a sequence that drew n topics share the draw with probability 1/n, and with it this much likeness.
    return int(np.clip(round(most / max(alike, most / MAX_PER_SEQUENCE)), 1, MAX_PER_SEQUENCE))


def _variation(profile: Profile) -> float:
    """Return the squared coefficient of variation of the load, mean over layers, less what Poisson counts add."""
    mean = profile.load.mean(axis=1)
    return float(np.mean(profile.load.var(axis=1) / mean**2 - 1 / mean))
