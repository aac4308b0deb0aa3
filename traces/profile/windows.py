"""Load over time: tokens per expert in windows of consecutive tokens, in bounded memory, merging exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.support.content import ByContent
from traces.support.errors import InputError

__all__ = ["WindowedLoad"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WindowedLoad(ByContent):
    """Tokens per window, layer and expert.

    A window is `window_tokens` consecutive rows of one source. Above `limit` windows, neighbours of a source join
    and `window_tokens` doubles, until the limit holds or every source is a single window. As windows are aligned to
    their source's first row, merging is associative and commutative.

    Attributes
    ----------
    window_tokens : int
        Rows of a window.
    limit : int
        Windows to keep at most (or one per source, if there are more sources).
    source : (W,) uint64
        Key of the source of each window.
    index : (W,) int64
        Number of the window within its source.
    tokens : (W,) int64
        Tokens that were counted (fewer than `window_tokens` at the end, or in a selected part).
    load : (W, L, E) int64
    """

    window_tokens: int
    limit: int
    source: npt.NDArray[np.uint64]
    index: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    load: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        sources = len(np.unique(self.source))
        return f"WindowedLoad of {len(self)} windows of {self.window_tokens:,} tokens, from {sources} source(s)"

    @classmethod
    def union(cls, parts: Sequence[WindowedLoad]) -> WindowedLoad:
        """Return the windows of all `parts`, coarsened to a common width and to the limit."""
        width = max(part.window_tokens for part in parts)
        if not all(part.aligned_to(width) for part in parts):
            raise InputError.of(
                "windows_differ",
                "/window_tokens",
                "The windows don't nest.",
                "Profile both traces with the same `window_tokens`.",
            )
        limit = min(part.limit for part in parts)
        joined = cls(
            window_tokens=width,
            limit=limit,
            source=np.concatenate([part.source for part in parts]),
            index=np.concatenate([part.index // (width // part.window_tokens) for part in parts]),
            tokens=np.concatenate([part.tokens for part in parts]),
            load=np.concatenate([part.load for part in parts]),
        )._combined()
        while len(joined) > limit and joined.index.any():
            joined = cls(
                window_tokens=joined.window_tokens * 2,
                limit=limit,
                source=joined.source,
                index=joined.index // 2,
                tokens=joined.tokens,
                load=joined.load,
            )._combined()
        return joined

    def aligned_to(self, width: int) -> bool:
        """Tell whether these windows join to windows of `width` tokens: the ratio is a power of two."""
        ratio, rest = divmod(max(width, self.window_tokens), min(width, self.window_tokens))
        return rest == 0 and ratio & (ratio - 1) == 0

    def _combined(self) -> WindowedLoad:
        """Add up windows with the same source and index; order by source, then index."""
        keys = np.stack([self.source, self.index.astype(np.uint64)], axis=1)
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        count = len(unique)
        tokens = np.zeros(count, np.int64)
        load = np.zeros((count, *self.load.shape[1:]), np.int64)
        np.add.at(tokens, inverse.ravel(), self.tokens)
        np.add.at(load, inverse.ravel(), self.load)
        return WindowedLoad(
            window_tokens=self.window_tokens,
            limit=self.limit,
            source=unique[:, 0],
            index=unique[:, 1].astype(np.int64),
            tokens=tokens,
            load=load,
        )
