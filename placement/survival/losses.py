"""What a map loses when failure domains fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.survival.rule import SurvivalRule

__all__ = ["in_domains", "lost_by_layer"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]


def in_domains(replicas: Ints, domain: Ints) -> Bools:
    """Return whether each expert has a copy in each failure domain, (L, E, D).

    Parameters
    ----------
    replicas : (L, E, G) integers
        Replicas of each expert on each GPU.
    domain : (G,) integers
        Failure domain of each GPU.
    """
    parts = [replicas[:, :, domain == d].any(axis=2) for d in range(int(domain.max()) + 1)]  # of ranks in any order
    return np.stack(parts, axis=2)


def lost_by_layer(replicas: Ints, rule: SurvivalRule) -> npt.NDArray[np.int64]:
    """Return how many experts of each layer the worst failures may take, (L,): see `SurvivalRule`.

    With a single failure the number is exact. With several, an expert that has copies in no more domains than fail
    counts as lost, whichever domains these are.

    Parameters
    ----------
    replicas : (L, E, G) integers
    rule : SurvivalRule
    """
    held = in_domains(replicas, rule.domain)
    short = held.sum(axis=2) <= rule.failures
    if rule.failures > 1:
        together: npt.NDArray[np.int64] = short.sum(axis=1)
        return together
    alone: npt.NDArray[np.int64] = (held & short[:, :, None]).sum(axis=1).max(axis=1)
    return alone
