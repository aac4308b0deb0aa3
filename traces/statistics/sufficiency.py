"""Whether there are enough tokens to trust the affinity counts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from traces.profile.profile import Profile
from traces.profile.sample import TokenSample
from traces.statistics.samples import check_successors, layer_pair_counts, require_sample
from traces.support.content import ByContent
from traces.support.errors import InputError
from traces.support.frames import frame
from traces.support.parallel import map_threads

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EnoughTokens", "enough_tokens"]

Floats = npt.NDArray[np.float64]
Verdict = Literal["enough", "borderline", "not enough"]

ENOUGH_RELIABILITY, BORDERLINE_RELIABILITY = 0.9, 0.7
ENOUGH_NOISE, BORDERLINE_NOISE = 0.01, 0.03
MIN_SEQUENCES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class EnoughTokens(ByContent):
    """Whether the affinity counts suffice, and why.

    Attributes
    ----------
    verdict : {"enough", "borderline", "not enough"}
        ``enough``: `reliability` >= 0.9 or `noise_share` <= 0.01; ``borderline``: >= 0.7 or <= 0.03.
    tokens : int
        Tokens that were counted.
    tokens_needed : int
        Estimate of the tokens, in sequences like these, with which the verdict would be ``enough``.
    reliability : float
        Share of the variance of the excess pair counts that another recording of this size would show again, 0 to 1.
    noise_share : float
        Share of the pairs that noise alone seems to keep together, if each expert may choose its C strongest
        successors.
    split_by : {"sequences", "tokens"}
        What the two halves were made of. Tokens of one sequence resemble each other: only halves made of whole
        sequences show how far the counts carry over to other requests.
    reliability_per_pair : (L-1,) float64
    counts_per_cell : (L-1,) float64
        Pairs per cell (i, j) that occurs at all.
    standard_error : (L-1,) float64
        Standard error of ``P(j|i)``, averaged over pairs; compare with 1/E.
    """

    verdict: Verdict
    tokens: int
    tokens_needed: int
    reliability: float
    noise_share: float
    split_by: Literal["sequences", "tokens"]
    reliability_per_pair: Floats
    counts_per_cell: Floats
    standard_error: Floats

    def to_frame(self) -> pd.DataFrame:
        """Return the figures of each layer pair as a table; needs pandas (the extra ``frame``).

        Returns
        -------
        DataFrame
            A row per pair, indexed by the number l of its first MoE layer: ``reliability``, ``counts_per_cell``,
            ``standard_error``.
        """
        columns = {"reliability": self.reliability_per_pair}
        columns |= {"counts_per_cell": self.counts_per_cell, "standard_error": self.standard_error}
        return frame(columns, index="layer_pair")

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()
        }


def enough_tokens(profile: Profile, *, successors: int | None = None) -> EnoughTokens:
    """Split the token sample into halves, and see how far their excess pair counts agree.

    The excess of a half is ``D[i,j] = p(i,j) - p(i) p(j)``. Over both halves ``S = sum D1 D2`` estimates the signal
    without bias, and ``V = (sum D1^2 + sum D2^2)/2 - S`` the noise of one half. Noise falls as one over the tokens.

    Parameters
    ----------
    profile : Profile
        With a token sample.
    successors : int, optional
        C of `EnoughTokens.noise_share`; E/8, rounded up, by default.

    Returns
    -------
    EnoughTokens

    Raises
    ------
    InputError
        If the profile holds counts only, one layer, or too small a sample.

    References
    ----------
    .. [1] C. Spearman, Br. J. Psychol. 3 (1910), W. Brown, ibid.: the reliability of a measurement n times as long.
    """
    sample = require_sample(profile, "The check for enough tokens")
    columns = check_successors(successors, profile.num_experts)
    in_first, split_by = _split(sample)
    half_tokens = len(sample) / 2

    def measure(layer: int) -> tuple[float, float]:
        parts = [
            _excess(
                layer_pair_counts(sample.topk_ids[mask, layer], sample.topk_ids[mask, layer + 1], profile.num_experts)
            )
            for mask in (in_first, ~in_first)
        ]
        signal = float((parts[0] * parts[1]).sum())
        return signal, max(0.0, float((parts[0] ** 2 + parts[1] ** 2).sum()) / 2 - signal)

    signal, noise = np.array(map_threads(measure, range(profile.num_layers - 1))).T
    signal = np.maximum(signal, 0.0)
    noise_now = noise * half_tokens / profile.tokens
    per_pair = np.divide(signal, signal + noise_now, out=np.zeros_like(signal), where=signal + noise_now > 0)
    reliability = float(signal.sum() / total) if (total := (signal + noise_now).sum()) else 0.0
    # The mean of the upper C/E of a normal distribution is pdf(q) / (C/E), q being its upper quantile.
    quantile = ndtri(1 - columns / profile.num_experts)
    per_noise = profile.num_experts * math.exp(-(quantile**2) / 2) / math.sqrt(2 * math.pi)
    noise_share = float(per_noise * np.sqrt(noise_now).mean())
    needed = [profile.tokens * (noise_share / ENOUGH_NOISE) ** 2]
    if signal.sum():
        odds = ENOUGH_RELIABILITY / (1 - ENOUGH_RELIABILITY)
        needed.append(profile.tokens * odds * float(noise_now.sum() / signal.sum()))
    verdict: Verdict = "not enough"
    if reliability >= BORDERLINE_RELIABILITY or noise_share <= BORDERLINE_NOISE:
        verdict = "borderline"
    if reliability >= ENOUGH_RELIABILITY or noise_share <= ENOUGH_NOISE:
        verdict = "enough"
    counts_per_cell, standard_error = _count_errors(profile)
    return EnoughTokens(
        verdict=verdict,
        tokens=profile.tokens,
        tokens_needed=max(1, math.ceil(min(needed))),
        reliability=reliability,
        noise_share=noise_share,
        split_by=split_by,
        reliability_per_pair=per_pair,
        counts_per_cell=counts_per_cell,
        standard_error=standard_error,
    )


def _split(sample: TokenSample) -> tuple[npt.NDArray[np.bool_], Literal["sequences", "tokens"]]:
    """Return a mask of one half of the sample, made of whole sequences if there are enough of them."""
    sequences, inverse, size = np.unique(sample.seq_id, return_inverse=True, return_counts=True)
    # Half of the tokens in one sequence would leave nothing to pair it with.
    if sequences[0] < 0 or len(sequences) < MIN_SEQUENCES or 2 * size.max() > len(sample):
        return np.arange(len(sample)) % 2 == 0, "tokens"
    chosen = np.zeros(len(sequences), dtype=bool)
    lead = 0
    for number in np.argsort(-size, kind="stable"):  # longest first, to the half that is behind
        chosen[number] = lead <= 0
        lead += size[number] if chosen[number] else -size[number]
    return chosen[inverse.ravel()], "sequences"


def _excess(counts: npt.NDArray[np.int64]) -> Floats:
    """Return ``p(i,j) - p(i) p(j)``."""
    total = counts.sum()
    if not total:
        raise InputError.of(
            "zero_tokens",
            "/profile/sample",
            "A layer pair has no tokens in the sample.",
            "Record tokens in every layer.",
        )
    excess: Floats = counts / total - np.outer(counts.sum(axis=1), counts.sum(axis=0)) / float(total) ** 2
    return excess


def _count_errors(profile: Profile) -> tuple[Floats, Floats]:
    """Return the pairs per occurring cell, and the mean standard error of P(j|i), of each layer pair."""
    assert profile.affinity is not None
    per_cell, errors = np.zeros((2, profile.num_layers - 1))
    for layer, pairs in enumerate(profile.affinity):
        tokens = np.maximum(profile.load[layer], 1.0)[:, None]
        chance = np.minimum(
            pairs / tokens, 1.0
        )  # that a token with i has j next: a binomial share of the tokens with i
        per_token = np.maximum(
            pairs.sum(axis=1, keepdims=True) / tokens, 1e-300
        )  # next experts per token: K, if complete
        error = np.sqrt(chance * (1 - chance) / tokens) / per_token
        per_cell[layer] = pairs.sum() / max(1, np.count_nonzero(pairs))
        errors[layer] = (pairs * error).sum() / max(1, pairs.sum())
    return per_cell, errors
