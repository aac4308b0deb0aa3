"""Is there anything to gain from a plan? The judgement that the statistics of a profile allow."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.profile.profile import Profile
from traces.statistics.affinity import AffinityStrength, affinity_strength
from traces.statistics.samples import check_successors, layer_pair_counts, top_columns
from traces.statistics.sufficiency import EnoughTokens, enough_tokens
from traces.support.errors import InputError

__all__ = ["Gain", "gain"]

Answer = Literal["yes", "no", "unknown"]
Floats = npt.NDArray[np.float64]

SMALLEST_Z = 5.0  # of the mean over layer pairs: as far above shuffled tokens, nothing is there by chance
SMALLEST_SHARE = 0.02  # of the pairs: a plan that keeps less together saves less than other tokens move its figures
EVEN = 1.05  # times the mean: the load cap that plans are usually given, so there is nothing to even out below it
GPUS = 8  # to add experts up on; as for the successors, a GPU's share is an eighth of the experts
FITTING_STEPS = 50  # margins are then met to a thousandth, where no expert has half of the load
SMALLEST_SAMPLE = 1_000  # tokens: below, noise in pairs of a layer, of which there are E^2 / 2, is not small


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Whether a plan can gain anything, and on what figures that rests.

    Attributes
    ----------
    between_layers : {"yes", "no", "unknown"}
        Whether affinity between layers is above chance by enough: traffic of tokens that go straight from layer to
        layer (ExFlow).
    within_layers : {"yes", "no", "unknown"}
        Whether experts of a layer fire together by enough: GPUs per token where tokens go home after every layer.
    balance : {"yes", "no", "unknown"}
        Whether loads are uneven beyond counting noise.
    affinity_z : float or None
        Standard deviations of the affinity above that of shuffled tokens.
    pairs_above_chance : float or None
        Share of the pairs of consecutive layers that go to the strongest successors, less that of shuffled tokens.
    teams_above_chance : float or None
        Share of the pairs within a layer that go to an expert's strongest partners, less what loads alone give.
    load : float
        Load of the busiest of eight GPUs that hold the experts in order, by the mean; mean over layers.
    load_noise : float
        What an even router shows above 1 with so few tokens.
    tokens, tokens_needed : int or None
        Counted, and estimated to trust the affinity.
    words : str
        The answer in one to three sentences.
    """

    between_layers: Answer
    within_layers: Answer
    balance: Answer
    affinity_z: float | None
    pairs_above_chance: float | None
    teams_above_chance: float | None
    load: float
    load_noise: float
    tokens: int | None
    tokens_needed: int | None
    words: str

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return asdict(self)


def gain(
    profile: Profile, *, affinity: AffinityStrength | None = None, enough: EnoughTokens | None = None, seed: int = 0
) -> Gain:
    """Judge whether a plan can gain anything on this profile.

    Parameters
    ----------
    profile : Profile
    affinity : AffinityStrength, optional
        Of the profile; measured if it is not given.
    enough : EnoughTokens, optional
        Of the profile; likewise.
    seed : int
        Of the permutations.

    Returns
    -------
    Gain
        Traffic is ``unknown`` where the profile holds counts only, one layer, or too few tokens.
    """
    try:
        affinity = affinity_strength(profile, seed=seed) if affinity is None else affinity
        enough = enough_tokens(profile) if enough is None else enough
    except InputError:
        affinity = enough = None
    teams = _teams(profile)
    load, noise = _load(profile)
    between = _between(affinity, enough)
    within: Answer = "unknown" if teams is None else ("yes" if teams >= SMALLEST_SHARE else "no")
    balance: Answer = "yes" if load > EVEN + noise else ("no" if noise < EVEN - 1 else "unknown")
    pairs = None if affinity is None else float((affinity.top_share - affinity.top_share_null).mean())
    found = Gain(
        between_layers=between,
        within_layers=within,
        balance=balance,
        affinity_z=None if affinity is None else affinity.overall_z,
        pairs_above_chance=pairs,
        teams_above_chance=teams,
        load=load,
        load_noise=noise,
        tokens=None if enough is None else enough.tokens,
        tokens_needed=None if enough is None else enough.tokens_needed,
        words="",
    )
    return replace(found, words=_words(found, enough, min(GPUS, profile.num_experts)))


def _between(affinity: AffinityStrength | None, enough: EnoughTokens | None) -> Answer:
    if affinity is None or enough is None or enough.verdict == "not enough":
        return "unknown"
    above = float((affinity.top_share - affinity.top_share_null).mean())
    return "yes" if affinity.overall_z >= SMALLEST_Z and above >= SMALLEST_SHARE else "no"


def _load(profile: Profile) -> tuple[float, float]:
    """Return the load of the busiest GPU, if experts lie in order, by the mean, and what noise adds to it.

    GPUs that hold fewer experts, as eight do not divide them, are compared with what that many would have.
    """
    experts = profile.num_experts
    cuts = np.linspace(0, experts, min(GPUS, experts) + 1).astype(int)
    sums = np.add.reduceat(profile.load.astype(np.float64), cuts[:-1], axis=1)  # (L, GPUs)
    per_expert = sums / np.diff(cuts)
    mean = profile.load.sum(axis=1) / experts  # (L,)
    load = float((per_expert.max(axis=1) / mean).mean())
    counts = float(sums.mean())  # assignments of a GPU: Poisson, of standard deviation 1 / sqrt(counts)
    return load, math.sqrt(2 * math.log(len(cuts) - 1) / counts) if len(cuts) > 2 else 0.0  # of the largest of them


def _teams(profile: Profile) -> float | None:
    """Return the share of the pairs within layers that go to the strongest partners, above what loads alone give.

    Partners are chosen on one half of the sample and scored on the other, so that noise does not raise the share.
    None where the profile holds counts only, tokens use one expert, or there are too few of them.
    """
    sample = profile.sample
    if sample is None or profile.top_k < 2 or len(sample) < SMALLEST_SAMPLE:
        return None
    columns = check_successors(None, profile.num_experts)
    above = []
    for layer in range(profile.num_layers):
        ids = sample.topk_ids[:, layer]
        halves = []
        for half in (slice(0, None, 2), slice(1, None, 2)):  # the sample is in random order
            table = layer_pair_counts(ids[half], ids[half], profile.num_experts).astype(np.float64)
            np.fill_diagonal(table, 0.0)
            halves.append((table, _alone(table)))
        for (chosen, _), (scored, alone) in (halves, halves[::-1]):
            observed = _share(chosen, scored, columns)
            above.append(observed - _share(alone, alone, columns))
    return float(np.mean(above))


def _alone(table: Floats) -> Floats:
    """Return the table that experts show that only differ in their loads: w_i w_j off the diagonal, the same margins.

    A token uses an expert once, so that hot experts meet each other less than the product of their loads says.
    """
    margins = table.sum(axis=1)
    weights = margins / math.sqrt(max(1.0, margins.sum()))
    for _ in range(FITTING_STEPS):
        others = weights.sum() - weights
        fitted = np.divide(margins, others, out=np.zeros_like(margins), where=others > 0)
        weights = np.sqrt(weights * fitted)  # halfway: the plain step swings where one expert has most of the load
    alone: Floats = np.outer(weights, weights)
    np.fill_diagonal(alone, 0.0)
    return alone


def _share(chosen: Floats, scored: Floats, columns: int) -> float:
    """Choose each row's largest columns in one table, and return their share of the other."""
    total = scored.sum()
    return float(np.take_along_axis(scored, top_columns(chosen, columns), axis=1).sum() / total) if total else 0.0


def _words(found: Gain, enough: EnoughTokens | None, gpus: int) -> str:
    """Return the answer: what can be gained, then what can't."""
    uneven = f"experts in order on {gpus} GPUs give the busiest {found.load:.2f} times the mean load"
    loads = {
        "yes": f"{uneven}; a plan evens that out",
        "no": f"loads are even (busiest of {gpus} GPUs: {found.load:.2f} times the mean)",
        "unknown": "there are too few tokens to tell whether loads are even",
    }[found.balance]
    if enough is None:
        doubt = " Whether a plan saves traffic between layers can't be told without tokens in two layers or more."
    elif found.between_layers == "unknown":
        need = f"{enough.tokens:,} counted, about {enough.tokens_needed:,} needed"
        doubt = f"Too few tokens to tell whether a plan saves traffic between layers ({need})."
    else:
        doubt = "" if enough.verdict == "enough" else f" To be sure, record about {enough.tokens_needed:,} tokens."
    together = []
    if found.between_layers == "yes":
        together.append(f"{100 * (found.pairs_above_chance or 0):.0f} % of the pairs of experts in consecutive layers")
    if found.within_layers == "yes":
        together.append(f"{100 * (found.teams_above_chance or 0):.0f} % of the pairs of experts in the same layer")
    if together:
        text = f"Yes: {' and '.join(together)} are above chance, and a plan keeps such pairs together."
        return f"{text} {loads[0].upper()}{loads[1:]}. {doubt.strip()}".rstrip()
    if found.between_layers == "unknown" and enough is not None:
        return f"{doubt} Loads alone: {loads}." if found.balance == "yes" else doubt
    if enough is None:
        first = {"yes": "Yes, in the loads", "no": "Not in the loads", "unknown": "Can't tell"}[found.balance]
        return f"{first}: {loads}.{doubt}"
    weak = f"affinity is weak ({100 * (found.pairs_above_chance or 0):.1f} % of the pairs above chance)"
    if (found.affinity_z or 0.0) < SMALLEST_Z:
        weak = "affinity is within noise"
    if found.balance == "yes":
        return f"Loads alone: {loads}. {weak[0].upper()}{weak[1:]}.{doubt}"
    return f"No: {weak}, and {loads}.{doubt}"
