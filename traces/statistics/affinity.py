"""Affinity between consecutive layers, measured against what shuffled tokens show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.profile.profile import Profile
from traces.statistics.samples import check_successors, information, layer_pair_counts, require_sample, top_columns
from traces.support.content import ByContent
from traces.support.errors import InputError
from traces.support.frames import frame
from traces.support.parallel import map_threads

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AffinityStrength", "affinity_strength"]

Floats = npt.NDArray[np.float64]
PER_PAIR = ("observed", "null_mean", "null_std", "strength", "normalised", "z", "top_share", "top_share_null")


@dataclass(frozen=True, kw_only=True, eq=False)
class AffinityStrength(ByContent):
    """Mutual information between the experts of consecutive layers, above its permutation null.

    All arrays are (L-1,) float64: entry l is about layers l and l+1.

    Attributes
    ----------
    tokens : int
        Sampled tokens behind all figures.
    permutations : int
        Permutations per layer pair.
    successors : int
        C, the number of successors in `top_share`.
    observed : array
        Plug-in mutual information of the pair counts, in bits; too high by the sampling noise.
    null_mean, null_std : array
        The same over permuted tokens, in bits: mean and standard deviation.
    entropy : array
        Entropy of the experts of layer l+1, in bits.
    top_share : array
        Share of the pairs that go to the C strongest successors of their first expert. Successors are chosen on one
        half of the tokens and scored on the other, so that noise does not raise the share.
    top_share_null : array
        The same over permuted tokens, mean.
    overall_z : float
        z-score of the mean of `observed` over layer pairs.
    """

    tokens: int
    permutations: int
    successors: int
    observed: Floats
    null_mean: Floats
    null_std: Floats
    entropy: Floats
    top_share: Floats
    top_share_null: Floats
    overall_z: float

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @property
    def strength(self) -> Floats:
        """Debiased mutual information, ``observed - null_mean``, in bits; without affinity about 0, of either sign."""
        return self.observed - self.null_mean

    @property
    def normalised(self) -> Floats:
        """`strength` as a share of `entropy`: how much of the next expert one expert tells; 0 where there is none."""
        return np.divide(self.strength, self.entropy, out=np.zeros_like(self.entropy), where=self.entropy > 0)

    @property
    def z(self) -> Floats:
        """`strength` in standard deviations of the null; 0 where both are 0."""
        return _z(self.strength, self.null_std)

    @property
    def overall(self) -> float:
        """Mean of `strength` over layer pairs, in bits."""
        return float(self.strength.mean())

    def to_frame(self) -> pd.DataFrame:
        """Return the figures of each layer pair as a table; needs pandas (the extra ``frame``).

        Returns
        -------
        DataFrame
            A row per pair, indexed by the number l of its first MoE layer; the columns are the arrays and properties.
        """
        return frame({name: getattr(self, name) for name in PER_PAIR}, index="layer_pair")

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "tokens": self.tokens,
            "permutations": self.permutations,
            "successors": self.successors,
            "overall": {
                "strength_bits": self.overall,
                "normalised": float(self.normalised.mean()),
                "z": self.overall_z,
                "top_share": float(self.top_share.mean()),
                "top_share_null": float(self.top_share_null.mean()),
            },
            "layer_pairs": {name: getattr(self, name).tolist() for name in PER_PAIR},
        }


def affinity_strength(
    profile: Profile, *, permutations: int = 20, seed: int = 0, successors: int | None = None
) -> AffinityStrength:
    """Measure the affinity between consecutive layers on the token sample of `profile`.

    The plug-in mutual information ``I = sum p(i,j) log2(p(i,j) / (p(i) p(j)))`` of the pair counts exceeds the true
    value by about ``(number of cells) / (2 ln 2 (number of pairs))``. Permuting the tokens of layer l+1 against those
    of layer l keeps what each layer does by itself, loads and co-activation included, and destroys what joins them:
    the mean over permutations is the excess, and is subtracted.

    Parameters
    ----------
    profile : Profile
        With a token sample.
    permutations : int
        At least 2.
    seed : int
        Of the permutations.
    successors : int, optional
        C of `AffinityStrength.top_share`; E/8, rounded up, by default.

    Returns
    -------
    AffinityStrength

    Raises
    ------
    InputError
        If the profile holds counts only, one layer, or too small a sample, or a parameter is out of range.

    References
    ----------
    .. [1] G. Miller, Note on the bias of information estimates, 1955: the size of the bias.
    .. [2] S. Panzeri, A. Treves, Network 7 (1996), doi:10.1080/0954-898X/7/1/006: the bias of mutual information, and
       shuffling.
    """
    sample = require_sample(profile, "Affinity strength")
    if permutations < 2:
        raise InputError.of(
            "permutations_range", "/permutations", f"{permutations} permutations.", "Give `permutations` of at least 2."
        )
    columns = check_successors(successors, profile.num_experts)
    ids, experts = sample.topk_ids, profile.num_experts
    halves = slice(0, None, 2), slice(1, None, 2)  # the sample is in random order

    def measure(layer: int) -> tuple[Floats, float]:
        """Return (1 + permutations, 2) information and top share, the observed ones first; and the entropy."""
        rng = np.random.default_rng([seed, layer])
        first, second = ids[:, layer], ids[:, layer + 1]
        rows = []
        entropy = 0.0
        for number in range(permutations + 1):
            other = second if number == 0 else second[rng.permutation(len(second))]
            parts = [layer_pair_counts(first[half], other[half], experts) for half in halves]
            bits, column_entropy = information(parts[0] + parts[1])
            rows.append((bits, _cross_share(parts, columns)))
            entropy = column_entropy if number == 0 else entropy
        return np.array(rows), entropy

    results = map_threads(measure, range(profile.num_layers - 1))
    values = np.array([rows for rows, _ in results])  # (L-1, 1 + permutations, 2)
    means = values[:, :, 0].mean(axis=0)  # over layer pairs: the overall statistic, observed and permuted
    return AffinityStrength(
        tokens=len(sample),
        permutations=permutations,
        successors=columns,
        observed=values[:, 0, 0],
        null_mean=values[:, 1:, 0].mean(axis=1),
        null_std=values[:, 1:, 0].std(axis=1, ddof=1),
        entropy=np.array([entropy for _, entropy in results]),
        top_share=values[:, 0, 1],
        top_share_null=values[:, 1:, 1].mean(axis=1),
        overall_z=float(_z(means[:1] - means[1:].mean(), means[1:].std(ddof=1, keepdims=True))[0]),
    )


def _cross_share(parts: list[npt.NDArray[np.int64]], columns: int) -> float:
    """Choose each row's largest columns in one part, add up their share of the other; mean of both directions."""
    shares = [
        np.take_along_axis(scored, top_columns(chosen, columns), axis=1).sum() / max(1, scored.sum())
        for chosen, scored in (parts, parts[::-1])
    ]
    return float(np.mean(shares))


def _z(excess: Floats, std: Floats) -> Floats:
    """Return ``excess / std``, taking rounding errors for 0."""
    noise = 1e-12
    return np.where(np.abs(excess) < noise, 0.0, excess / np.maximum(std, noise))
