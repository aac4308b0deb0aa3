"""The least largest GPU load that any plan reaches, however replicas share: counts, pigeonholes, densities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["least_excess", "max_load_bound"]

Array = npt.NDArray[np.float64]
HALVINGS = 60
ROUNDING = 1e-12  # relative: what sums of shares may be off


def max_load_bound(load: Array, capacity: npt.NDArray[np.int64], fair: Array) -> Array:
    """Return a lower bound of the largest GPU load relative to its fair share, for each layer, (L,).

    The largest of four bounds, none of which cares how tokens are split over the replicas of an expert:

    - 1: loads add up to the sum of the fair shares;
    - *replicas*: where no GPU's load is above z, an expert with load r has at least ``r / (z max f)`` replicas, and
    there
      are no more replicas than slots, nor GPUs;
    - *pigeonhole*, without spare slots: of the ``m G + 1`` hottest experts, m + 1 share a GPU; and the GPU of the
      hottest expert is filled up with others, at best the coldest;
    - *density*: GPUs H with room for ``C(H)`` experts take no more than the load of the C(H) hottest, so the others
      have to take the rest: ``z >= (1 - hottest(C(H))) / (1 - f(H))``, for the GPUs with most fair share per slot.

    Parameters
    ----------
    load : (L, E) float64
        Shares of a layer's load; rows sum to 1.
    capacity : (G,) int64
        Slots of each GPU.
    fair : (G,) float64
        Fair share of each GPU; sums to 1.
    """
    order = np.sort(load, axis=1)[:, ::-1]
    best = np.maximum(1.0, _replicas(order, int(capacity.sum()), len(capacity)) / fair.max())
    best = np.maximum(best, _density(order, capacity, fair))
    if capacity.sum() == load.shape[1]:
        best = np.maximum(best, _pigeonhole(order, capacity) / fair.max())
    result: Array = np.maximum(1.0, best * (1 - ROUNDING))
    return result


def least_excess(load: Array, capacity: npt.NDArray[np.int64], fair: Array, caps: Array) -> Array:
    """Return a lower bound of the GPU loads above a cap, summed over GPUs, for each layer, (L,).

    The k hottest experts are on j GPUs, which take their load, and without spare slots at least that of the coldest
    experts that fill these GPUs up; j is unknown, but at most k and the spare slots. So the excess is at least the
    least, over j, of what these GPUs take minus j caps; the best k counts. And it is at least what the fullest GPU has
    above the cap.

    Parameters
    ----------
    load, capacity, fair :
        As in `max_load_bound`.
    caps : (L,) float64
        Relative to the fair share; infinite for a layer without one.
    """
    cap = np.minimum(caps, 1 / fair.min())  # the load of all experts on one GPU: nothing is above it
    order = np.sort(load, axis=1)[:, ::-1] / fair.max()
    experts, gpus, smallest = order.shape[1], len(capacity), int(capacity.min())
    spare = int(capacity.sum()) - experts
    best = np.maximum(0.0, max_load_bound(load, capacity, fair) - cap)
    hottest = np.cumsum(order, axis=1)
    coldest = np.concatenate([np.zeros((len(order), 1)), np.cumsum(order[:, ::-1], axis=1)], axis=1)
    for k in range(1, experts + 1):
        used = np.arange(-(-k // int(capacity.max())), min(gpus, k + spare) + 1)
        filled = np.clip(used * smallest - k, 0, experts - k) if spare == 0 else np.zeros(len(used), dtype=np.int64)
        over = hottest[:, k - 1 : k] + coldest[:, filled] - used * cap[:, None]
        best = np.maximum(best, over.min(axis=1))
    result: Array = np.maximum(0.0, best - ROUNDING * experts)
    return result


def _replicas(order: Array, slots: int, gpus: int) -> Array:
    """Return the least largest share of a replica, (L,), for loads in falling order."""
    low = order[:, 0] / gpus  # no expert is on more GPUs than there are
    if slots <= order.shape[1]:
        return order[:, 0].copy()
    high = order[:, 0].copy()
    fits = np.ceil(order / np.maximum(low, 1e-300)[:, None]).clip(1).sum(axis=1) <= slots
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = np.ceil(order / np.maximum(middle, 1e-300)[:, None]).clip(1).sum(axis=1) <= slots
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    result: Array = np.where(fits, order[:, 0] / gpus, low)
    return result


def _pigeonhole(order: Array, capacity: npt.NDArray[np.int64]) -> Array:
    """Return the least largest load of a GPU, (L,), where every expert has one replica and every slot is used."""
    experts, gpus = order.shape[1], len(capacity)
    total = np.concatenate([np.zeros((len(order), 1)), np.cumsum(order, axis=1)], axis=1)
    others = int(capacity.min()) - 1
    best: Array = order[:, 0] + (total[:, -1] - total[:, experts - others])
    for m in range(1, (experts - 1) // gpus + 1):
        last = m * gpus + 1
        best = np.maximum(best, total[:, last] - total[:, last - m - 1])
    return best


def _density(order: Array, capacity: npt.NDArray[np.int64], fair: Array) -> Array:
    """Return what the GPUs with less fair share per slot have to take at least, (L,)."""
    best: Array = np.ones(len(order))
    total = np.concatenate([np.zeros((len(order), 1)), np.cumsum(order, axis=1)], axis=1)
    fast = np.argsort(-fair / capacity, kind="stable")
    room, share = 0, 0.0
    for gpu in fast[:-1]:
        room, share = room + int(capacity[gpu]), share + float(fair[gpu])
        if room >= order.shape[1] or share >= 1 - ROUNDING:
            break
        best = np.maximum(best, (1 - total[:, room]) / (1 - share))
    return best
