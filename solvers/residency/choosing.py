"""What policies are set to: chosen on the part of the trace that is fitted, by time per step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from placement.residency import POLICIES, Accesses, Clock, Fitted, Simulated, Slots, StepTimes, simulate
from placement.residency.kernels.prefetch import CACHED
from placement.residency.policies import PolicyName
from placement.residency.simulation import HALF_LIFE
from solvers.residency.allocation import allocate
from solvers.residency.request import Budget

__all__ = ["Chosen", "Ground", "choose"]

HALF_LIVES: Final = (4.0, 16.0, 64.0, 256.0, 1024.0)  # steps
CONFIDENCES: Final = (0.1, 0.25, 0.5, 0.75)
SIZES: Final = 8  # sizes of a layer's cache that are tried, beside none
BUDGETS: Final[tuple[Budget, ...]] = ("shared", "equal", "by_gain")


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """Steps to run policies on, and a clock for them."""

    accesses: Accesses
    fitted: Fitted
    clock: Clock

    def run(self, policy: PolicyName, chosen: Chosen) -> tuple[Simulated, StepTimes]:
        """Run a policy with its settings, and time it."""
        done = simulate(
            self.accesses,
            policy,
            chosen.slots,
            self.fitted,
            half_life=chosen.half_life,
            prefetch_experts=chosen.prefetch_experts,
            confidence=0.0 if policy == "pregated" else chosen.confidence,
            cost=self.clock.transfer,
        )
        return done, self.clock.fetching(self.accesses, done)

    def mean(self, policy: PolicyName, chosen: Chosen) -> float:
        """Return the mean time of a step."""
        return self.run(policy, chosen)[1].mean

    def saved(self, policy: PolicyName, slots: Slots, half_life: float) -> npt.NDArray[np.float64]:
        """Return the transfers that the hits of each layer save, in time, (L,)."""
        cost = self.clock.transfer
        done = simulate(self.accesses, policy, slots, self.fitted, half_life=half_life, cost=cost)
        hit = done.kind == CACHED
        weights = cost[self.accesses.item[hit]]
        saved = np.bincount(self._layer_of[hit], weights=weights, minlength=self.accesses.num_layers)
        return saved.astype(np.float64)

    @cached_property
    def _layer_of(self) -> npt.NDArray[np.int64]:
        return self.accesses.layer_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """Settings of a policy.

    Attributes
    ----------
    budget : {"shared", "equal", "by_gain"}
    slots : Slots
    half_life : float
        In steps; of policies whose counts age.
    prefetch_experts : int
    confidence : float
        Of policies that predict.
    """

    budget: Budget
    slots: Slots
    half_life: float = HALF_LIFE
    prefetch_experts: int = 1
    confidence: float = 0.5


def choose(
    policy: PolicyName, ground: Ground, total: int, budget: Budget | None, prefetch_experts: int, like: Chosen | None
) -> Chosen:
    """Choose a policy's settings.

    Parameters
    ----------
    policy : str
    ground : Ground
        Of the part that is fitted.
    total : int
        Slots of the GPU.
    budget : {"shared", "equal", "by_gain"} or None
        None: each is tried.
    prefetch_experts : int
    like : Chosen or None
        Settings of the same cache without a buffer, which a policy with one takes over.
    """
    layers = ground.accesses.num_layers
    if policy == "belady":  # what is optimal needs one cache, whatever is asked for the others
        return Chosen(budget="shared", slots=Slots.shared(total, layers))
    ahead = POLICIES[policy].ahead
    if ahead is not None and like is not None:
        options = [
            Chosen(
                budget=like.budget,
                slots=like.slots,
                half_life=like.half_life,
                prefetch_experts=prefetch_experts,
                confidence=confidence,
            )
            for confidence in (CONFIDENCES if ahead != "known" else CONFIDENCES[:1])
        ]
        return _best(policy, ground, options)
    half_life = HALF_LIFE
    if POLICIES[policy].rule == "aged":
        slots = _slots(policy, ground, total, budget or "equal", HALF_LIFE)
        options = [Chosen(budget=budget or "equal", slots=slots, half_life=steps) for steps in HALF_LIVES]
        half_life = _best(policy, ground, options).half_life
    budgets = BUDGETS if budget is None else (budget,)
    options = [
        Chosen(budget=name, slots=_slots(policy, ground, total, name, half_life), half_life=half_life)
        for name in budgets
    ]
    return _best(policy, ground, options)


def _best(policy: PolicyName, ground: Ground, options: list[Chosen]) -> Chosen:
    """Return the first of the options that take the least time."""
    if len(options) == 1:
        return options[0]
    return min(options, key=lambda chosen: ground.mean(policy, chosen))


def _slots(policy: PolicyName, ground: Ground, total: int, budget: Budget, half_life: float) -> Slots:
    layers, experts = ground.accesses.num_layers, ground.accesses.num_experts
    if budget == "shared":
        return Slots.shared(total, layers)
    if budget == "equal":
        return Slots.equal(total, layers)
    unit = max(1, experts // SIZES)
    sizes = unit * np.arange(experts // unit + 1)
    gains = [np.zeros(layers)]
    gains += [ground.saved(policy, Slots.per_layer(np.full(layers, size)), half_life) for size in sizes[1:].tolist()]
    return Slots.per_layer(allocate(np.stack(gains, axis=1), unit, total, experts))
