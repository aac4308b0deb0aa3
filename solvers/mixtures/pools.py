"""Pools of GPUs for domains, or groups of them, against one plan for all: milliseconds of held-out tokens.

A pool of g of G GPUs has passes of ``g / G`` of the tokens, and the pools work side by side: in the time that a pass of
the one plan takes, they have to serve as many tokens of each domain. So a pool whose domains have a share w of the
tokens takes ``w G / g`` of its passes, and the slowest pool counts. Which domains share a pool is chosen on the tokens
to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem
from solvers.mixtures.dividing import partitions, shared_out
from solvers.mixtures.domains import Domain
from solvers.mixtures.pooling import MadePool, PoolSearch
from solvers.mixtures.request import MixtureRequest

__all__ = ["Pool", "Pools", "judge_pools"]

Floats = npt.NDArray[np.float64]
LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """GPUs for some of the domains.

    Attributes
    ----------
    domains : tuple of int
    gpus : tuple of int
        Ranks of the whole machine.
    plan : Plan
    step_ms : float
        A forward pass of the pool, held out.
    load_ms : float
        What the pool takes in the time of one pass of the whole machine.
    """

    domains: tuple[int, ...]
    gpus: tuple[int, ...]
    plan: Plan
    step_ms: float
    load_ms: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Pools:
    """The best pools that were found, beside one plan for all.

    Attributes
    ----------
    pools : tuple of Pool
        Empty where the GPUs can't hold the experts in pools.
    together_ms : float or None
        A pass of all domains, by their weights, under the mixture's plan.
    apart_ms : float or None
        The slowest pool, for as many tokens.
    saved : float or None
        Share of the time that pools save; negative where they lose.
    low, high : float or None
        95 % interval of it, by a bootstrap over groups of sequences; the time model's own error is not in it.
    reason : str
    """

    pools: tuple[Pool, ...]
    together_ms: float | None
    apart_ms: float | None
    saved: float | None
    low: float | None
    high: float | None
    reason: str

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return a JSON-ready dictionary; domains by their names."""
        own = {name: getattr(self, name) for name in ("together_ms", "apart_ms", "saved", "reason")}
        interval = None if self.low is None else [self.low, self.high]
        pools = [
            {
                "domains": [names[number] for number in pool.domains],
                "gpus": list(pool.gpus),
                "slots_per_gpu": pool.plan.slots_per_gpu,
                "step_ms": pool.step_ms,
                "load_ms": pool.load_ms,
            }
            for pool in self.pools
        ]
        return own | {"interval": interval, "pools": pools}


def judge_pools(
    problem: Problem,
    plan: Plan,
    request: MixtureRequest,
    domains: Sequence[Domain],
    weights: Floats,
    *,
    workers: int | None = None,
    tell: Callable[[str], None],
) -> Pools:
    """Search for the plans of pools, choose which domains share one, and judge them on held-out tokens.

    Parameters
    ----------
    problem : Problem
        Of the one plan.
    plan : Plan
        For all domains.
    request : MixtureRequest
        With machine and model.
    domains : sequence of Domain
    weights : (D,) float64
        Shares of the tokens; they sum to 1.
    workers : int, optional
    tell : callable
    """
    time = request.time_model()
    assert time is not None
    search = PoolSearch(problem=problem, request=request, domains=domains, weights=weights, time=time, workers=workers)
    best: tuple[float, list[MadePool]] | None = None
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], MadePool | None] = {}
    for groups in partitions(len(domains)):
        shares = np.array([weights[list(group)].sum() for group in groups])
        gpus = shared_out(shares, time.machine.nodes)
        if gpus is None:
            continue
        found = []
        for group, own in zip(groups, gpus, strict=True):
            if (group, own) not in known:
                tell(f"searching: a pool of {len(own)} GPUs for {', '.join(domains[number].name for number in group)}")
                known[group, own] = search.pool(group, own)
            found.append(known[group, own])
        made = [each for each in found if each is not None]
        if len(made) == len(found):
            slowest = max(each.load_ms(time, each.fitted_ms) for each in made)
            if best is None or slowest < best[0]:
                best = slowest, made
    if best is None:
        reason = "No pools: the GPUs are too few, or the memory of a pool's GPUs does not hold its experts."
        none: dict[str, Any] = dict.fromkeys(("together_ms", "apart_ms", "saved", "low", "high"))
        return Pools(pools=(), reason=reason, **none)
    tell("replaying tokens: pools")
    everything = tuple(range(len(domains)))
    rng = np.random.default_rng([request.seed, 0x504F4F4C])
    whole, drawn = search.timed(time, plan, search.tokens(everything, held_out=True), rng)
    steps, loads, draws = [], [], []
    for each in best[1]:
        ms, own = search.timed(each.time, each.plan, search.tokens(each.domains, held_out=True), rng)
        steps.append(ms)
        loads.append(each.load_ms(time, ms))
        draws.append(each.load_ms(time, own))
    saved = 1 - max(loads) / whole
    spread = 1 - np.max(draws, axis=0) / drawn
    low, high = (saved + np.quantile(spread - spread.mean(), LEVEL)).tolist()
    if low > 0:
        reason = f"Pools save {saved:.1%} of the time."
    elif high < 0:
        reason = f"One plan for all is faster: pools take {-saved:.1%} longer."
    else:
        reason = "Pools and one plan for all differ by less than the noise of the held-out tokens."
    pools = tuple(
        Pool(domains=each.domains, gpus=each.gpus, plan=each.plan, step_ms=ms, load_ms=load)
        for each, ms, load in zip(best[1], steps, loads, strict=True)
    )
    return Pools(pools=pools, together_ms=whole, apart_ms=max(loads), saved=saved, low=low, high=high, reason=reason)
