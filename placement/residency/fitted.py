"""What the past says of the experts: how often each one is needed, and which follow in later layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.residency.accesses import Accesses, Tokens
from placement.residency.kernels.unions import count_pairs
from traces.support.content import ByContent

__all__ = ["Fitted"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Fitted(ByContent):
    """Statistics of the part of a trace that is not judged.

    Attributes
    ----------
    steps : int
    rate : (L, E) float64
        Share of the steps that need each expert.
    transitions : (L - lookahead, E, E) float32
        ``[l, a, b]``: share of the tokens that use expert a of layer l which use b, `lookahead` layers further.
    lookahead : int
    """

    steps: int
    rate: npt.NDArray[np.float64]
    transitions: npt.NDArray[np.float32]
    lookahead: int

    def __post_init__(self) -> None:
        self.rate.flags.writeable = False
        self.transitions.flags.writeable = False

    def __repr__(self) -> str:
        return f"Fitted to {self.steps:,} steps, {self.lookahead} layers ahead"

    @classmethod
    def of(cls, tokens: Tokens, accesses: Accesses, lookahead: int = 1) -> Fitted:
        """Count the tokens of a fit part, and what their steps need.

        Parameters
        ----------
        tokens : Tokens
        accesses : Accesses
            Of these tokens.
        lookahead : int
        """
        layers, experts = accesses.num_layers, accesses.num_experts
        needed = np.bincount(accesses.item, minlength=layers * experts).reshape(layers, experts)
        load = np.bincount(accesses.item, weights=accesses.tokens, minlength=layers * experts).reshape(layers, experts)
        pairs = np.zeros((max(layers - lookahead, 0), experts, experts), np.int32)
        if len(pairs):
            count_pairs(tokens.ids, lookahead, pairs)
        transitions = np.divide(pairs, np.maximum(load[: len(pairs), :, None], 1), dtype=np.float32)
        return cls(
            steps=accesses.num_steps,
            rate=needed / accesses.num_steps,
            transitions=transitions,
            lookahead=lookahead,
        )
