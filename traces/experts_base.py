"""Experts that are counted from 1, where ids count from 0: as a model with one more expert, the first without load."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from traces.support.errors import InputError

__all__ = ["counted_from_one", "from_one"]

LEAST_EXPERTS = 4
LEAST_LOAD = 8  # of an expert, on average: fewer choices may pass over any of them
USED = 0.5  # of the layers' other experts


def counted_from_one(load: npt.NDArray[Any]) -> bool:
    """Whether the ids behind loads are counted from 1, most likely: expert 0 has no load anywhere, all others have.

    Parameters
    ----------
    load : (L, E) numbers
        Of the experts up to the largest one in use.
    """
    if load.shape[1] < LEAST_EXPERTS or not load[:, -1].any() or load[:, 0].any():
        return False
    others = load[:, 1:] > 0
    whole = bool((load == np.rint(load)).all())
    return bool(others.any(axis=0).all() and others.mean() >= USED) and (
        not whole or float(load.sum()) >= LEAST_LOAD * load.shape[1] * len(load)
    )


def from_one(place: str, num_experts: int, *, columns: bool) -> InputError:
    """Return the refusal of ids 1 to `num_experts` - 1; `columns` where each expert is one, as in a matrix."""
    last = num_experts - 1
    detail = (
        f"Experts 1 to {last} are used, and expert 0 in no layer: ids that are counted from 1, most likely. As they"
    )
    detail += f" are, they would be planned as {num_experts} experts, one of them without load."
    fix = "Cut the first column off" if columns else "Subtract 1 from the ids"
    remedy = f"{fix}. If there is an expert 0 that no token chose, state `num_experts`: {num_experts}."
    return InputError.of("experts_from_one", place, detail, remedy)
