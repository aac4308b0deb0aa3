"""Which sequence, position and phase every token of a call has, and which tokens are padding. NumPy only."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.support.errors import InputError

__all__ = ["Call", "Generation", "Placed", "Sequences"]

PREFILL, DECODE = 0, 1


@dataclass(eq=False, kw_only=True)
class Group:
    """The sequences of one batch, row by row, while they grow.

    Attributes
    ----------
    ids : (B,) int64
        `seq_id` of each row.
    filled : (B,) int64
        Tokens of each row so far, without padding.
    finished : (B,) bool
        Rows that ended while others of the batch go on.
    width : int
        Positions of the batch so far, with padding.
    idle : int
        How many of the last positions hold no token in any row.
    """

    ids: npt.NDArray[np.int64]
    filled: npt.NDArray[np.int64]
    finished: npt.NDArray[np.bool_]
    width: int
    idle: int = 0


@dataclass(eq=False, kw_only=True)
class Generation:
    """One run of ``generate()``.

    Attributes
    ----------
    ends : frozenset of int
        Sampled tokens after which a row is finished; what the model still gets for the row then is filler.
    group : Group or None
        Its sequences, where they grow without a cache.
    """

    ends: frozenset[int] = frozenset()
    group: Group | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the arguments of one call of the model say.

    Attributes
    ----------
    shape : (int, int)
        Rows B and positions S of the call.
    mask : (B, past + S) bool, optional
        False where there is padding; None if no token is.
    past : int
        Positions in the cache before the call.
    cache : object, optional
        The cache; the same object means the same sequences.
    tokens : (B, S) integers, optional
        Token ids.
    generation : Generation, optional
        The run of ``generate()`` that the call belongs to.
    """

    shape: tuple[int, int]
    mask: npt.NDArray[np.bool_] | None = None
    past: int = 0
    cache: Any = None
    tokens: npt.NDArray[Any] | None = None
    generation: Generation | None = None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Sequence, position and phase of the tokens of a call that are recorded.

    Attributes
    ----------
    keep : (B S,) bool
        Tokens to record, out of all of the call, row after row.
    seq_id, token_pos : (T,) int64
        Of the T kept tokens.
    phase : (T,) uint8
        0 prefill, 1 decode.
    """

    keep: npt.NDArray[np.bool_]
    seq_id: npt.NDArray[np.int64]
    token_pos: npt.NDArray[np.int64]
    phase: npt.NDArray[np.uint8]


class ByIdentity:
    """Groups by cache object; a cache that is gone is forgotten."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Any, Group]] = {}

    def get(self, key: Any) -> Group | None:
        """Return the group of this very object."""
        reference, group = self._entries.get(id(key), (None, None))
        return group if reference is not None and reference() is key else None

    def set(self, key: Any, group: Group) -> None:
        """Remember the group, as long as the object lives."""
        number = id(key)
        self._entries[number] = (weakref.ref(key, lambda _: self._entries.pop(number, None)), group)

    def keys(self) -> list[Any]:
        """Return the objects that are still there."""
        return [key for reference, _ in list(self._entries.values()) if (key := reference()) is not None]


@dataclass(kw_only=True)
class Sequences:
    """Numbers sequences and follows them from call to call.

    A call with an empty cache, or without one, starts a sequence per row; one with a cache that was seen before goes on
    with the sequences of that cache. The last call's group is in `latest`.
    """

    count: int = 0
    began_earlier: int = 0
    latest: Group | None = None
    _groups: ByIdentity = field(default_factory=ByIdentity)

    def place(self, call: Call) -> Placed:
        """Return where the tokens of `call` belong, and remember it.

        Parameters
        ----------
        call : Call

        Returns
        -------
        Placed

        Raises
        ------
        InputError
            If the mask does not fit, or the cache was changed between calls (cropped, another number of rows).
        """
        rows, width = call.shape
        mask = _checked_mask(call)
        group, seen = self._group_of(call)
        fresh = width - seen  # without a cache, earlier positions are computed again
        real = np.ones((rows, fresh), dtype=bool) if mask is None else mask[:, mask.shape[1] - fresh :].copy()
        goes_on = group is not None
        if group is None:
            group = self._new_group(call, mask)
        elif call.generation is not None and fresh == 1 and call.tokens is not None:
            group.finished |= np.isin(call.tokens[:, -1], list(call.generation.ends))
            real[group.finished] = False
        if fresh > 1:
            group.finished[:] = False  # a new turn
        positions = group.filled[:, np.newaxis] + np.cumsum(real, axis=1) - 1
        group.filled = group.filled + real.sum(axis=1)
        group.width = call.past + width
        used = np.flatnonzero(real.any(axis=0))
        group.idle = fresh - 1 - int(used[-1]) if len(used) else group.idle + fresh
        if call.cache is not None:
            self._groups.set(call.cache, group)
        elif call.generation is not None:
            call.generation.group = group
        self.latest = group
        keep = np.zeros((rows, width), dtype=bool)
        keep[:, seen:] = real
        chosen = real.reshape(-1)
        phase = DECODE if (goes_on or call.past) and fresh == 1 else PREFILL
        return Placed(
            keep=keep.reshape(-1),
            seq_id=np.repeat(group.ids, fresh)[chosen],
            token_pos=positions.reshape(-1)[chosen],
            phase=np.full(int(chosen.sum()), phase, dtype=np.uint8),
        )

    def adopt(self, cache: Any) -> None:
        """Bind the sequences of the last call to the cache that the call returned."""
        if self.latest is not None and self._groups.get(cache) is not self.latest:
            self._groups.set(cache, self.latest)

    def caches(self) -> list[Any]:
        """Return the caches of all sequences that can still go on."""
        return self._groups.keys()

    def _group_of(self, call: Call) -> tuple[Group | None, int]:
        """Return the group that the call goes on with, and how many of its positions were recorded before."""
        rows, width = call.shape
        if call.cache is None:
            group = None if call.generation is None else call.generation.group
            if group is None:
                return None, 0
            if len(group.ids) != rows or width <= group.width:
                raise InputError.of(
                    "cache_hidden",
                    "/cache",
                    f"A step of generate() has {rows} rows and {width} positions and no cache that can be seen, after"
                    f" one with {len(group.ids)} rows and {group.width} positions.",
                    "Record with a cache of transformers, such as DynamicCache, or with use_cache=False.",
                )
            return group, group.width
        group = self._groups.get(call.cache)
        if group is None or call.past == 0:
            return None, 0
        # Where a step was computed after all rows had ended, the cache may be cropped by it.
        if len(group.ids) != rows or not group.width - group.idle <= call.past <= group.width:
            raise InputError.of(
                "cache_changed",
                "/cache",
                f"The cache holds {call.past} positions of {rows} rows; {group.width} of {len(group.ids)} were seen.",
                "Record without speculative (assisted) decoding, and don't crop or select from the cache meanwhile.",
            )
        return group, 0

    def _new_group(self, call: Call, mask: npt.NDArray[np.bool_] | None) -> Group:
        rows = call.shape[0]
        if call.past == 0:
            filled = np.zeros(rows, dtype=np.int64)
        else:  # the cache was filled before recording began
            self.began_earlier += rows
            filled = np.full(rows, call.past) if mask is None else mask[:, : call.past].sum(axis=1)
        ids = np.arange(self.count, self.count + rows, dtype=np.int64)
        self.count += rows
        return Group(ids=ids, filled=filled.astype(np.int64), finished=np.zeros(rows, dtype=bool), width=0)


def _checked_mask(call: Call) -> npt.NDArray[np.bool_] | None:
    rows, width = call.shape
    if call.mask is not None and call.mask.shape != (rows, call.past + width):
        raise InputError.of(
            "mask_shape",
            "/attention_mask",
            f"The attention mask has shape {call.mask.shape}; expected {(rows, call.past + width)}: rows, and positions"
            " of the cache and of this call. So padding can't be told from tokens.",
            "Pass a mask with one entry per position (with a static cache: use the dynamic one while recording).",
        )
    return call.mask
