"""A policy run over a trace: which accesses find their expert, and what is moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from placement.residency.accesses import Accesses
from placement.residency.fitted import Fitted
from placement.residency.kernels import caches, prefetch
from placement.residency.policies import POLICIES, PolicyName, Rule
from placement.residency.slots import Slots
from traces import Violations
from traces.support.content import ByContent
from traces.support.kinds import checked

__all__ = ["HALF_LIFE", "Simulated", "simulate"]

RULES: Final = {
    "fixed": caches.FIXED,
    "recency": caches.RECENCY,
    "frequency": caches.FREQUENCY,
    "aged": caches.AGED,
    "belady": caches.BELADY,
}
TOLD_BY: Final = {"transitions": prefetch.BY_TRANSITIONS, "load": prefetch.BY_LOAD, "known": prefetch.KNOWN}
HALF_LIFE: Final = 64.0
LEAST_RATE: Final = 1e-12  # of an expert that the past never used
NEVER: Final = np.zeros(0, np.int32)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Simulated(ByContent):
    """What a policy did.

    Attributes
    ----------
    policy : str
    kind : (A,) uint8
        Where each access found its expert: 0 in the cache, 1 in the buffer, 2 nowhere, so that it was fetched.
    issued : (P * L + 1,) int64
        Where the prefetches begin that were issued when each set's experts were known.
    item_of, access_of : (M,) int32
        Expert (``layer * E + expert``) of each prefetch, and the access that it served, -1 if none.
    """

    policy: PolicyName
    kind: npt.NDArray[np.uint8]
    issued: npt.NDArray[np.int64]
    item_of: npt.NDArray[np.int32]
    access_of: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        for array in (self.kind, self.issued, self.item_of, self.access_of):
            array.flags.writeable = False

    def __repr__(self) -> str:
        return f"{self.policy}: {self.hit_rate:.1%} of {len(self.kind):,} accesses hit, {self.transfers:,} transfers"

    @property
    def cache_hit_rate(self) -> float:
        """Share of the accesses whose expert was in the cache."""
        return _share(self.kind == prefetch.CACHED)

    @property
    def prefetch_hit_rate(self) -> float:
        """Share of the accesses whose expert was in the buffer, or on its way there."""
        return _share(self.kind == prefetch.PREFETCHED)

    @property
    def hit_rate(self) -> float:
        """Share of the accesses whose expert was in the cache or in the buffer."""
        return _share(self.kind != prefetch.FETCHED)

    @property
    def transfers(self) -> int:
        """Experts that were moved, on demand and ahead of it, used or not."""
        return int((self.kind == prefetch.FETCHED).sum()) + len(self.item_of)

    @property
    def wasted(self) -> int:
        """Prefetches that served no access."""
        return int((self.access_of < 0).sum())

    def moved(self, accesses: Accesses) -> npt.NDArray[np.int64]:
        """Return how often each expert was moved, (L * E,)."""
        moved = np.concatenate([accesses.item[self.kind == prefetch.FETCHED], self.item_of])
        return np.bincount(moved, minlength=accesses.num_layers * accesses.num_experts)


@checked
def simulate(
    accesses: Accesses,
    policy: PolicyName,
    slots: Slots,
    fitted: Fitted,
    *,
    half_life: float = HALF_LIFE,
    prefetch_experts: int = 2,
    confidence: float = 0.25,
    cost: npt.NDArray[np.float64] | None = None,
) -> Simulated:
    """Run a policy over the steps of a trace.

    All experts that a layer of a step needs are looked up first; those that are missing pass through a staging buffer,
    which all policies have and which is not counted. Then, of what is in the cache and what was used, the highest ranks
    stay. So no policy has to keep what it fetches, and each one starts with the cache that it ranks highest by what was
    fitted, or, for Belady, by what comes. Experts are of one size. Under these rules Belady's choice moves the least:
    to keep an expert from one use to the next saves one transfer and takes a slot from all sets between, which is the
    problem of choosing most intervals of which no more than the slots overlap, and dropping the one that ends last
    solves it (Carlisle & Lloyd 1995). Prefetches take slots of the cache, so the bound holds for what they move, too.

    Parameters
    ----------
    accesses : Accesses
    policy : str
        A key of `POLICIES`.
    slots : Slots
        Policies with a buffer take it from these.
    fitted : Fitted
    half_life : float
        In steps, of uses.
    prefetch_experts : int
        Of a layer at most, of policies with a buffer.
    confidence : float
        What is less likely than this is not prefetched.
    cost : (L * E,) float64, optional
        Above 0: what it takes to fetch each expert, which ``static`` and all policies that age weigh uses by. Equal by
        default.

    Raises
    ------
    InputError
        If something is out of range, or does not fit.

    References
    ----------
    L. Belady, A study of replacement algorithms for a virtual-storage computer, 1966. M. Carlisle and E. Lloyd, On the
    k-coloring of intervals, 1995.
    """
    dear = np.ones(fitted.rate.size) if cost is None else cost
    _check(accesses, policy, slots, fitted, half_life, prefetch_experts, confidence, dear)
    chosen = POLICIES[policy]
    dear = dear / dear.min()
    price = np.log2(dear) if chosen.rule == "aged" else np.zeros(fitted.rate.size)
    value = _values(chosen.rule, accesses, fitted, half_life) + price
    if chosen.rule == "fixed":
        value *= dear
    common = (accesses.start, accesses.expert)
    if chosen.ahead is None:
        following = accesses.uses[0] if chosen.rule == "belady" else NEVER
        hit = np.zeros(len(accesses), np.bool_)
        caches.run_cache(*common, following, slots.group, slots.room, RULES[chosen.rule], half_life, value, price, hit)
        kind = np.where(hit, prefetch.CACHED, prefetch.FETCHED).astype(np.uint8)
        return Simulated(
            policy=policy, kind=kind, issued=np.zeros_like(accesses.start), item_of=NEVER.copy(), access_of=NEVER.copy()
        )
    lookahead = fitted.lookahead
    left = slots.without(prefetch_experts * min(lookahead, accesses.num_layers))
    kind = np.empty(len(accesses), np.uint8)
    issued = np.zeros_like(accesses.start)
    item_of, access_of = prefetch.run_prefetch(
        *common,
        accesses.tokens,
        accesses.step_tokens,
        left.group,
        left.room,
        half_life,
        value,
        price,
        TOLD_BY[chosen.ahead],
        fitted.transitions,
        lookahead,
        prefetch_experts,
        confidence,
        kind,
        issued,
    )
    return Simulated(policy=policy, kind=kind, issued=issued, item_of=item_of, access_of=access_of)


def _check(
    accesses: Accesses,
    policy: str,
    slots: Slots,
    fitted: Fitted,
    half_life: float,
    prefetch_experts: int,
    confidence: float,
    cost: npt.NDArray[np.float64],
) -> None:
    found = Violations()
    if policy not in POLICIES:
        found.add("unknown_choice", "/policy", f"{policy!r:.60} is not one of {list(POLICIES)}.", "Choose one of them.")
    shape = (accesses.num_layers, accesses.num_experts)
    if fitted.rate.shape != shape:
        detail = f"What was fitted has {fitted.rate.shape} layers and experts, the trace {shape}."
        found.add("fitted_differs", "/fitted", detail, "Fit and judge parts of one trace.")
    if len(slots.group) != accesses.num_layers or (slots.room < 0).any() or slots.group.max() >= len(slots.room):
        detail = (
            f"The slots are of {len(slots.group)} layers, the trace has {accesses.num_layers}; or some are missing."
        )
        found.add("slots_differ", "/slots", detail, "Make them with Slots.shared, Slots.equal or Slots.per_layer.")
    if not 0 < half_life < np.inf:
        found.add("half_life_range", "/half_life", f"{half_life} steps.", "Give a number above 0.")
    if prefetch_experts < 1:
        detail = f"{prefetch_experts} experts are no buffer."
        found.add("prefetch_experts_range", "/prefetch_experts", detail, "Give at least 1.")
    if not 0 <= confidence <= 1:
        found.add("confidence_range", "/confidence", f"{confidence} is no probability.", "Give 0 to 1.")
    if cost.shape != (fitted.rate.size,) or not ((cost > 0) & (cost < np.inf)).all():
        detail = f"Costs of shape {cost.shape} are not one number above 0 for each of {fitted.rate.size} experts."
        found.add("cost_range", "/cost", detail, "Give the time that it takes to fetch each one, layer after layer.")
    found.raise_if_any()


def _values(rule: Rule, accesses: Accesses, fitted: Fitted, half_life: float) -> npt.NDArray[np.float64]:
    """Return the rank of each expert before the first step, (L * E,)."""
    rate = fitted.rate.ravel()
    if rule == "belady":
        return -accesses.uses[1].astype(np.float64)
    if rule == "recency":
        return rate - 2.0  # below every set's number; the hottest count as used last
    if rule == "frequency":
        return np.round(rate * fitted.steps)
    if rule == "aged":  # what uses at this rate add up to
        return np.asarray(np.log2(np.maximum(rate, LEAST_RATE) * half_life / np.log(2.0)))
    return rate.copy()


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0
