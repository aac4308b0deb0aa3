"""What a generated trace looks like: sizes, popularity, planted topics, groups, drift, sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from traces.rules import MAX_EXPERTS
from traces.support.errors import Violations

__all__ = ["Synthetic"]

# Larger exponents and strengths would only make the weights of the model underflow.
MAX_LOGIT_SCALE = 20.0


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Parameters of a generated trace.

    Attributes
    ----------
    num_layers, num_experts, top_k : int
        L, E and K.
    num_tokens : int
        Tokens, T.
    seed : int
        0 <= seed < 2^63. Same parameters, same trace, whatever the batch size and the number of threads.
    topics : int
        Planted latent topics. Every token has one; it decides which experts the token prefers in every layer.
    dimensions : int
        Topics are random points, and experts random directions, in a space of so many dimensions; the preference of a
        topic for an expert is their dot product. In few dimensions topics resemble each other, and experts fall into
        teams that a plan can keep together; in many, every topic goes its own way.
    topics_per_sequence : int
        A sequence draws this many topics (with repetition), and each of its tokens draws one of them.
    affinity : float
        Standard deviation, in logits, of the preference of a topic for an expert. 0 plants nothing: the layers are
        independent.
    skew : float
        Exponent of the experts' popularity: the expert of popularity rank r has the weight ``r ** -skew``, times what
        the topics add. 0 is uniform.
    balance : float
        0 to 1: how far the router was trained to balance loads. At 1, each expert's weight is corrected so that over
        all topics it is drawn first exactly in proportion to ``r ** -skew``; at 0, experts that popular topics prefer
        stay hot.
    groups : int
        Equal groups of consecutive experts (DeepSeek-V3: 8); 1 for none.
    group_limit : int or None
        Groups that a token may use in a layer (DeepSeek-V3: 4); None for all.
    drift : float
        0 to 1: how far the mix of topics changes from the first to the last token. At 1 the trace begins with the first
        half of the topics only and ends with the second half only.
    tokens_per_sequence : int
        Length of every sequence but the last.
    decode_share : float
        Share of the tokens at the end of every sequence whose phase is decode (1); the others are prefill (0).
    source_ranks : int
        Data-parallel ranks that own the sequences, drawn at random; 0 leaves the column out.

    Raises
    ------
    InputError
        Naming every parameter that is out of range.
    """

    num_layers: int
    num_experts: int
    top_k: int
    num_tokens: int
    seed: int = 0
    topics: int = 64
    dimensions: int = 4
    topics_per_sequence: int = 8
    affinity: float = 3.0
    skew: float = 0.5
    balance: float = 0.5
    groups: int = 1
    group_limit: int | None = None
    drift: float = 0.0
    tokens_per_sequence: int = 256
    decode_share: float = 0.0
    source_ranks: int = 0

    def __post_init__(self) -> None:
        found = Violations()
        self._check_integers(found)
        self._check_floats(found)
        if not found.found:
            self._check_together(found)
        found.raise_if_any()

    @property
    def limit(self) -> int:
        """Groups that a token may use in a layer."""
        return self.groups if self.group_limit is None else self.group_limit

    def _check_integers(self, found: Violations) -> None:
        bounds = {
            "num_layers": (1, 4096),
            "num_experts": (1, MAX_EXPERTS),
            "top_k": (1, MAX_EXPERTS),
            "num_tokens": (1, 2**48),
            "seed": (0, 2**63 - 1),
            "topics": (1, 4096),
            "dimensions": (1, 4096),
            "topics_per_sequence": (1, 4096),
            "groups": (1, MAX_EXPERTS),
            "tokens_per_sequence": (1, 2**48),
            "source_ranks": (0, 65_536),
        }
        if self.group_limit is not None:
            bounds["group_limit"] = (1, MAX_EXPERTS)
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                found.add("not_an_integer", f"/{name}", f"{value!r} is not an integer.", "Give an integer.")
            elif not low <= value <= high:
                found.add(f"{name}_range", f"/{name}", f"{name} is {value}.", f"Give {low} to {high}.")

    def _check_floats(self, found: Violations) -> None:
        bounds = {"affinity": MAX_LOGIT_SCALE, "skew": MAX_LOGIT_SCALE}
        bounds |= dict.fromkeys(("balance", "drift", "decode_share"), 1.0)
        for name, high in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                found.add("not_a_number", f"/{name}", f"{value!r} is not a finite number.", "Give a number.")
            elif not 0 <= value <= high:
                found.add(f"{name}_range", f"/{name}", f"{name} is {value}.", f"Give 0 to {high:g}.")

    def _check_together(self, found: Violations) -> None:
        """Check the rules between parameters that are each in range."""
        if self.top_k > self.num_experts:
            found.add(
                "top_k_range",
                "/top_k",
                f"A token can't choose {self.top_k} different experts out of {self.num_experts}.",
                "Lower `top_k` or raise `num_experts`.",
            )
        if self.num_experts % self.groups:
            found.add(
                "groups_divide",
                "/groups",
                f"{self.num_experts} experts don't split into {self.groups} equal groups.",
                "Choose a divisor of `num_experts`.",
            )
        if self.limit > self.groups:
            found.add(
                "group_limit_range",
                "/group_limit",
                f"A token can't use {self.limit} of {self.groups} groups.",
                "Give at most as many as there are groups.",
            )
        elif self.top_k <= self.num_experts < self.top_k * self.groups / self.limit:
            found.add(
                "group_limit_range",
                "/group_limit",
                f"{self.limit} groups hold {self.num_experts // self.groups * self.limit} experts, fewer than top_k.",
                "Raise `group_limit` or lower `top_k`.",
            )
        if self.drift and self.topics < 2:
            found.add(
                "drift_topics", "/drift", "One topic can't drift.", "Plant 2 topics or more, or set `drift` to 0."
            )
        if self.num_layers * self.topics * self.num_experts > 2**27:
            found.add(
                "tables_too_large",
                "/topics",
                f"{self.num_layers} layers x {self.topics} topics x {self.num_experts} experts is over 2^27 weights.",
                "Plant fewer topics.",
            )
