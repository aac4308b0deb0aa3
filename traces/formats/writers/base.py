"""What every writer needs to know before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from traces.batch import COLUMNS
from traces.trace import Trace

__all__ = ["Survey", "Writer"]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one checked pass over a trace finds.

    Attributes
    ----------
    tokens : int
        T.
    id_dtype : dtype
        uint8 or uint16, or int16 where entries are missing (-1).
    columns : tuple of str
        Optional columns, in the order of `COLUMNS`.
    """

    tokens: int
    id_dtype: np.dtype[Any]
    columns: tuple[str, ...]

    @classmethod
    def of(cls, trace: Trace) -> Survey:
        """Read `trace` once, with all checks."""
        tokens, missing = 0, False
        for batch in trace.batches():
            tokens += len(batch)
            missing = missing or bool(len(batch) and batch.topk_ids.min() < 0)
        dtype = np.dtype(np.int16) if missing else np.min_scalar_type(trace.num_experts - 1)
        return cls(tokens=tokens, id_dtype=dtype, columns=tuple(name for name in COLUMNS if name in trace.columns))


Writer = Callable[[Trace, Survey, IO[bytes], bool], None]
