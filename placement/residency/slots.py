"""Slots of a GPU's memory: one cache for all layers, or one per layer; and the experts that fill them best for good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces import InputError
from traces.support.content import ByContent

__all__ = ["Slots", "hottest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots(ByContent):
    """Caches, each for one layer or for all.

    Attributes
    ----------
    group : (L,) int64
        The cache of each layer.
    room : (C,) int64
        Experts that each cache holds.
    """

    group: npt.NDArray[np.int64]
    room: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        self.group.flags.writeable = False
        self.room.flags.writeable = False

    @classmethod
    def shared(cls, total: int, num_layers: int) -> Slots:
        """Return one cache for the experts of all layers."""
        return cls(group=np.zeros(num_layers, np.int64), room=np.array([total], np.int64))

    @classmethod
    def per_layer(cls, room: npt.ArrayLike) -> Slots:
        """Return a cache for each layer, with (L,) slots."""
        rooms = np.array(room, np.int64)
        return cls(group=np.arange(len(rooms)), room=rooms)

    @classmethod
    def equal(cls, total: int, num_layers: int) -> Slots:
        """Return a cache for each layer, all with as many slots but for the first ones, which have what is left."""
        each, left = divmod(total, num_layers)
        return cls.per_layer(each + (np.arange(num_layers) < left))

    @property
    def total(self) -> int:
        """Slots of all caches."""
        return int(self.room.sum())

    def hottest(self, rate: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """Return the experts with the highest rates that each cache has room for, (L, E) bool; see `hottest`.

        Parameters
        ----------
        rate : (L, E) floats
        """
        kept = np.zeros(rate.shape, np.bool_)
        for cache, room in enumerate(self.room.tolist()):
            own = np.flatnonzero(self.group == cache)
            kept[own] = hottest(rate[own], room)
        return kept

    def without(self, count: int) -> Slots:
        """Return caches with so many slots less, always one of the largest that is left.

        Raises
        ------
        InputError
            If there are not so many.
        """
        if count > self.total:
            detail = f"A buffer of {count} experts is larger than all {self.total} slots."
            remedy = "Prefetch fewer experts, fewer layers ahead, or keep more resident."
            raise InputError.of("buffer_too_large", "/prefetch_experts", detail, remedy)
        room = self.room.copy()
        for _ in range(count):
            room[np.argmax(room)] -= 1
        return Slots(group=self.group, room=room)


def hottest(rate: npt.NDArray[np.floating], total: int, per_layer: int | None = None) -> npt.NDArray[np.bool_]:
    """Return the experts with the highest rates within two budgets, (L, E) bool.

    With experts of one size, budgets of memory (`total`) and of bandwidth per layer (`per_layer`) make a laminar
    matroid, so that taking the highest rate that still fits, again and again, is optimal. Ties go to the earlier layer
    and the smaller id.

    Parameters
    ----------
    rate : (L, E) floats
    total : int
        Experts of all layers together.
    per_layer : int, optional
        Experts of a layer at most: as many as the link moves while the layer before is computed, say.

    References
    ----------
    Hecate, arXiv 2502.02581: sets that are materialised per layer. KTransformers' placement ``frequency`` is the same
    without a budget per layer.
    """
    layers, experts = rate.shape
    each = np.argsort(-rate, axis=1, kind="stable")[:, : experts if per_layer is None else per_layer]
    layer = np.repeat(np.arange(layers), each.shape[1])
    expert = each.ravel()
    best = np.lexsort((expert, layer, -rate[layer, expert]))[:total]
    kept = np.zeros((layers, experts), bool)
    kept[layer[best], expert[best]] = True
    return kept
