"""The weights of every expert for every topic, and alias tables that draw from them in constant time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.synthetic.alias import fill_alias
from traces.synthetic.parameters import Synthetic

__all__ = ["Tables"]

Floats = npt.NDArray[np.float64]
SCALINGS = 30
TINY = 1e-290  # keeps every expert possible


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What the kernel reads.

    Attributes
    ----------
    weight : (L, Z, E) float64
        ``exp(affinity * preference + offset)``, the largest of a row being 1; Z topics. Each expert has one offset.
    threshold : (L, Z, E) uint32
        Alias tables: keep the drawn expert when 32 random bits fall below it.
    alias : (L, Z, E) int16
        The expert to take otherwise.
    group_weight : (L, Z, groups) float64
        Sum of the two largest weights of the group, as DeepSeek-V3 scores groups.
    """

    weight: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.uint32]
    alias: npt.NDArray[np.int16]
    group_weight: npt.NDArray[np.float64]

    @classmethod
    def of(cls, params: Synthetic) -> Tables:
        """Draw popularity ranks and preferences for `params`, from its seed."""
        layers, topics, experts = params.num_layers, params.topics, params.num_experts
        weight = np.empty((layers, topics, experts))
        threshold = np.empty(weight.shape, np.uint32)
        alias = np.empty(weight.shape, np.int16)
        position = np.random.default_rng(params.seed).standard_normal((topics, params.dimensions))
        for layer in range(layers):
            # One generator per layer and purpose: more layers or topics leave the earlier draws as they are.
            rank = np.random.default_rng([params.seed, layer, 0]).permutation(experts) + 1
            direction = np.random.default_rng([params.seed, layer, 1]).standard_normal((params.dimensions, experts))
            preference = position @ direction / np.sqrt(params.dimensions)
            weight[layer] = _weights(params, preference, rank)
            fill_alias(weight[layer], threshold[layer], alias[layer])
        grouped = np.sort(weight.reshape(layers, topics, params.groups, -1), axis=3)
        return cls(weight=weight, threshold=threshold, alias=alias, group_weight=grouped[..., -2:].sum(axis=3))


def _weights(params: Synthetic, preference: Floats, rank: npt.NDArray[np.int64]) -> Floats:
    """Return the (Z, E) weights of one layer, the largest of a row being 1."""
    logits = params.affinity * preference
    popularity = -params.skew * np.log(rank)
    offset = popularity
    if params.balance:
        # Sinkhorn's scaling (1964): rows are the topics' probabilities, columns are to follow the popularity.
        base = np.exp(logits - logits.max(axis=1, keepdims=True))
        wanted = popularity - np.log(np.exp(popularity).sum())
        scale = popularity
        for _ in range(SCALINGS):
            weight = np.maximum(base * np.exp(scale - scale.max()), TINY)
            scale = scale + wanted - np.log((weight / weight.sum(axis=1, keepdims=True)).mean(axis=0))
        offset = params.balance * scale + (1 - params.balance) * popularity
    logits = logits + offset
    weights: Floats = np.maximum(np.exp(logits - logits.max(axis=1, keepdims=True)), TINY)
    return weights
