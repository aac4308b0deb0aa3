"""The rule of survival as moves of a search ask it: whether an exchange leaves every layer as safe as it has to be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from placement.survival.rule import SurvivalRule

__all__ = ["Alive", "alive_in", "alive_of", "of_layers", "shift", "try_exchange", "undo_exchange"]

Ints = npt.NDArray[np.integer[Any]]


class Alive(NamedTuple):
    """How safe a layer is, kept up to date by `shift`.

    Attributes
    ----------
    domain : (G,) int64
        Failure domain of each GPU.
    held : (E, D) int64
        Copies of each expert in each domain.
    spread : (E,) int64
        Domains with a copy.
    short : (D,) int64
        Experts with fewer than `least` domains, by the domain that takes them along; of several failures all at 0.
    over : (1,) int64
        Domains with more of them than `most`: 0 where the rule is kept.
    least : int
        Domains that an expert needs to survive; 0 where nothing is asked.
    most : int
        Experts that may be lost to a failure.
    """

    domain: Ints
    held: Ints
    spread: Ints
    short: Ints
    over: Ints
    least: int
    most: int


def alive_of(row: Ints, rule: SurvivalRule | None, num_experts: int, slots_per_gpu: int) -> Alive:
    """Return the state of a layer's row, (S,); experts below 0 are empty slots."""
    gpus = len(row) // slots_per_gpu
    # A copy: for arrays that are read-only, all that takes an `Alive` would be compiled once more.
    domain = np.zeros(gpus, np.int64) if rule is None else np.array(rule.domain, np.int64)
    domains, experts = (0, 0) if rule is None else (len(rule.room), num_experts)
    alive = Alive(
        domain=domain,
        held=np.zeros((experts, domains), np.int64),
        spread=np.zeros(experts, np.int64),
        short=np.zeros(domains, np.int64),
        over=np.zeros(1, np.int64),
        least=0 if rule is None else rule.failures + 1,
        most=0 if rule is None else rule.lost,
    )
    if rule is not None:
        slot = np.flatnonzero(row >= 0)
        np.add.at(alive.held, (row[slot], domain[slot // slots_per_gpu]), 1)
        alive.spread[:] = (alive.held > 0).sum(axis=1)
        few = (alive.spread < alive.least) & (alive.spread > 0)
        if alive.least == 2:
            alive.short[:] = (alive.held[few] > 0).sum(axis=0)
        else:
            alive.short[0] = few.sum()
        alive.over[0] = (alive.short > alive.most).sum()
    return alive


def of_layers(table: Ints, rule: SurvivalRule | None, num_experts: int, slots_per_gpu: int) -> Alive:
    """Return the state of all layers of a map, (L, S): arrays with the layers as their first axis."""
    layers = [alive_of(row, rule, num_experts, slots_per_gpu) for row in table]
    stacked: dict[str, Any] = {
        name: np.stack([getattr(each, name) for each in layers]) for name in ("held", "spread", "short", "over")
    }
    return layers[0]._replace(**stacked)


@numba.njit(nogil=True, cache=True)
def alive_in(layers: Alive, layer: int) -> Alive:
    """Return the state of one layer out of those of all; it shares their arrays."""
    return Alive(
        layers.domain,
        layers.held[layer],
        layers.spread[layer],
        layers.short[layer],
        layers.over[layer],
        layers.least,
        layers.most,
    )


@numba.njit(nogil=True, cache=True)
def _place(x: int, alive: Alive) -> int:
    """Return where an expert with too few domains counts, -1 for one with enough."""
    if alive.spread[x] >= alive.least or alive.spread[x] == 0:
        return -1
    if alive.least > 2:
        return 0
    for d in range(alive.held.shape[1]):
        if alive.held[x, d]:
            return d
    return -1


@numba.njit(nogil=True, cache=True)
def shift(x: int, a: int, b: int, alive: Alive) -> None:
    """Take a copy of expert x off GPU a and put it on b (-1: none)."""
    domain, held, spread, short, over = alive.domain, alive.held, alive.spread, alive.short, alive.over
    if a >= 0 and b >= 0 and domain[a] == domain[b]:
        return
    before = _place(x, alive)
    if a >= 0:
        held[x, domain[a]] -= 1
        spread[x] -= held[x, domain[a]] == 0
    if b >= 0:
        held[x, domain[b]] += 1
        spread[x] += held[x, domain[b]] == 1
    after = _place(x, alive)
    if before == after:
        return
    if before >= 0:
        over[0] -= short[before] == alive.most + 1
        short[before] -= 1
    if after >= 0:
        short[after] += 1
        over[0] += short[after] == alive.most + 1


@numba.njit(nogil=True, cache=True)
def try_exchange(x: int, y: int, a: int, b: int, alive: Alive) -> bool:
    """Move x from GPU a to b and y back (-1: nothing, nowhere), unless that leaves the layer less safe than it may be.

    Returns
    -------
    bool
        Whether it was done.
    """
    before = alive.over[0]
    if x >= 0:
        shift(x, a, b, alive)
    if y >= 0:
        shift(y, b, a, alive)
    if alive.over[0] <= before:
        return True
    undo_exchange(x, y, a, b, alive)
    return False


@numba.njit(nogil=True, cache=True)
def undo_exchange(x: int, y: int, a: int, b: int, alive: Alive) -> None:
    """Take an exchange back."""
    if y >= 0:
        shift(y, a, b, alive)
    if x >= 0:
        shift(x, b, a, alive)
