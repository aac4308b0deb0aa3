"""What slots allow at best: whether every expert can survive, and how few can be lost to one failure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["all_survive", "least_lost", "slots_needed"]

Ints = npt.NDArray[np.integer[Any]]


def all_survive(room: Ints, num_experts: int, failures: int) -> bool:
    """Whether all experts of a layer can be in `failures` + 1 domains each.

    Exact: an expert survives any k failures if and only if it has copies in k + 1 domains, and demands of k + 1
    different domains each can be met within the domains' rooms c if and only if ``sum(min(c, E)) >= (k + 1) E``
    (Gale and Ryser: for any m of the experts, ``sum(min(c, m)) >= (k + 1) m`` follows, as the left side is concave).

    Parameters
    ----------
    room : (D,) integers
        Slots of each failure domain, c.
    num_experts : int
        E.
    failures : int
        k.
    """
    return int(np.minimum(room, num_experts).sum()) >= (failures + 1) * num_experts


def least_lost(room: Ints, num_experts: int) -> int:
    """Return the least number m such that some plan of a layer loses at most m experts, whatever one domain fails.

    Exact: with at most m experts that are in a single domain d each, as many as there can be (``min(c_d, m)``, all E at
    most), the others have to be in two domains, which is possible by the rule of `all_survive` for what is left. More
    of the first kind leave fewer of the second, so the largest numbers decide.

    Parameters
    ----------
    room : (D,) integers
        Slots of each failure domain, c; together at least E.
    num_experts : int
        E.
    """
    low, high = 0, int(room.max())
    while low < high:
        middle = (low + high) // 2
        alone = np.minimum(room, middle)
        others = num_experts - int(alone.sum())
        if others <= 0 or int(np.minimum(room - alone, others).sum()) >= 2 * others:
            high = middle
        else:
            low = middle + 1
    return low


def slots_needed(domain: Ints, num_experts: int, failures: int) -> int | None:
    """Return the slots per GPU, all alike, from which on all experts of a layer can survive; None if never.

    Parameters
    ----------
    domain : (G,) integers
        Failure domain of each GPU.
    num_experts, failures : int
    """
    sizes = np.bincount(domain)
    if len(sizes) <= failures:
        return None
    slots = 1
    while not all_survive(slots * sizes, num_experts, failures):
        slots += 1
    return slots
