"""What the search of a layer knows and changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from solvers.survival.rule import Alive

__all__ = [
    "Draws",
    "Floats",
    "Ints",
    "LayerModel",
    "LayerState",
    "Level",
    "Loads",
    "Prices",
    "Split",
    "Words",
    "edit_replicas",
]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


class Prices(NamedTuple):
    """What a layer's loads cost."""

    cap: float  # infinite for none
    excess: float  # per unit of load above the cap
    largest: float  # per unit of the largest load
    margin: float  # standard errors that are added to a load before the cap is held against it
    spread: float  # per unit of the root mean square over GPUs of the loads' standard errors
    spread_free: float  # that costs nothing; the objective frees the mean over layers, a layer its own part


class Loads(NamedTuple):
    """The loads of a layer, as `load_cost` takes them: parts of the model, then of the state."""

    load: Floats  # (E,) of the experts
    covariance: Floats  # (E, E) of the experts' loads; (0, 0) where it doesn't count
    own: Floats  # (E,) its diagonal, or (0,): in one place, where a trial finds it sooner
    varies: bool  # whether variances count at all
    gpu_load: Floats  # (G,)
    overlap: Floats  # (G, E)
    variance: Floats  # (G,)


class Split(NamedTuple):
    """How an expert's tokens are split over its replicas."""

    policy: int
    homes: Floats  # (E or 1, G) share of the expert's tokens by home rank
    alike: bool  # every home calls as much as any other
    node_of_gpu: Ints  # (G,)
    node_size: Ints  # (N,) GPUs of each node
    fair: Floats  # (G,)
    share: Floats  # (G + 1,) room for an expert's shares


class Level(NamedTuple):
    """Places that a message goes to, GPUs or nodes, and what it costs; sets of tokens as bits (`kernels.bits`)."""

    planes: Words  # (B, b, W) bits of the counts of each token's assignments on each place
    zero: Words  # (B, n, W) tokens that pay price c, by price, and have no assignment there
    one: Words  # (B, n, W) and that have a single one
    mask: Words  # (B, n, W) tokens that pay price c
    value: Floats  # (n,) prices


class Draws(NamedTuple):
    """Which exchanges are tried: most of two experts of different loads are refused for their loads alone."""

    local: int  # of 16, those that stay within a node
    alike: int  # of 16 others, those of two experts of about the same load
    reach: int  # how far these may be apart in the order of loads


class LayerState(NamedTuple):
    """What the search changes in place. An *item* is what a slot holds: a replica of an expert, or nothing."""

    expert_of: Ints  # (S,) expert of each item, -1 none
    gpu_of: Ints  # (S,) where the item is
    item_on: Ints  # (G, C) and back
    replicas: Ints  # (E, M) GPUs of each expert's replicas, ascending
    counts: Ints  # (E,) replicas of each expert
    item_at: Ints  # (E, G) the expert's item on the GPU, -1 none
    bits: Words  # (S+1, W) tokens that each item serves; the last row is empty
    gpus: Level
    nodes: Level  # without places where a node costs nothing of its own
    part: Floats  # (S,) share of its expert's tokens that an item is expected to serve
    gpu_load: Floats  # (G,) relative to the fair share
    overlap: Floats  # (G, E) expert's load deviations times the GPU's, over windows; by GPU, as trials change it
    variance: Floats  # (G,) of the GPU's load; 0 where deviations don't count
    active: Words  # (S+1, b) whether the item serves any token of each batch; no batches where that doesn't count
    active_on: Ints  # (b, G) experts with tokens on each GPU
    home_overlap: Floats  # (E, G, G) [e, g, h] moment of the expert's load and what home h adds to the GPU's; or empty
    share: Floats  # (2, G) room: changes of x's and y's relative loads
    by_home: Floats  # (2, G, G) room: changes of what each home adds to x's and y's relative loads, [g, h]
    served: Words  # (2, M, W) room: tokens of x's and y's replicas after a trial
    served_active: Words  # (2, M, b)
    room: Words  # (2, W)
    choice: Ints  # (2, G) room: of an expert's replicas, the one on each GPU; the first one on each node
    near: Ints  # (N,) room: and how many are on each node
    sums: Floats  # (2,) load above the cap; sum of the variances
    highest: Ints  # (3,) GPUs with the largest loads, falling
    value: Floats  # (2,) cost of the loads as they are; sum over batches of the largest active_on
    alive: Alive  # what has to survive


class LayerModel(NamedTuple):
    """What stays: the layer's tokens, its loads, the topology, the constraints and the weights."""

    order: Ints  # (E,) experts by load
    rank: Ints  # (E,) and back
    start: Ints  # (E+1,) where each expert's assignments start in token and residue
    middle: Ints  # (E,) where they leave the first words of tokens, which a trial is priced on first
    token: Ints  # ascending
    member: Words  # (E+1, W) tokens that use each expert; the last row is empty
    most_saved: float  # by a change of one assignment of a token, in message cost
    residue: Ints  # hash of the assignment, modulo RESIDUES
    rows: Ints  # (n,)
    home: Ints  # (n,) home rank
    load: Floats  # (E,)
    covariance: Floats  # (E, E) of the experts' loads, symmetric; (0, 0) where it doesn't count
    own: Floats  # (E,) its diagonal, or (0,)
    moments: Floats  # (E, E) of the experts' loads within sequences; (0, 0) where homes don't count
    split: Split
    distinct: bool  # one message per GPU or node, not per assignment
    layer: int
    lock: Ints  # (E,) 1 stays on its node, 2 stays where it is
    allowed: Bools  # (E, G)
    usable: Bools  # (S,) items that may hold a replica
    most: int  # used slots at most
    batch: int  # tokens per batch; 0 where activated experts don't count
    scale: float  # objective per unit of message cost
    activated_weight: float  # objective per activated expert of one batch
    prices: Prices


@numba.njit(nogil=True, cache=True)
def edit_replicas(e: int, item: int, remove: int, add: int, replicas: Ints, counts: Ints, item_at: Ints) -> None:
    """Take the item of e off GPU `remove` and put it on `add` (-1: none); replicas stay in the order of the GPUs."""
    n = counts[e]
    if remove >= 0:
        item_at[e, remove] = -1
        c = 0
        while replicas[e, c] != remove:
            c += 1
        for d in range(c, n - 1):
            replicas[e, d] = replicas[e, d + 1]
        n -= 1
    if add >= 0:
        item_at[e, add] = item
        c = n
        while c > 0 and replicas[e, c - 1] > add:
            replicas[e, c] = replicas[e, c - 1]
            c -= 1
        replicas[e, c] = add
        n += 1
    counts[e] = n
