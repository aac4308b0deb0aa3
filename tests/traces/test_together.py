"""Parts of a trace that are read in one pass."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.builders.traces import random_trace
from traces import Batch, InputError, Trace
from traces.together import batches_together


def rows_of(batches: list[np.ndarray]) -> list[int]:
    """Rows of batches, one after the other."""
    rows: list[int] = np.concatenate([*batches, np.zeros(0, np.int64)]).tolist()
    return rows


def test_parts_of_one_trace_are_read_in_one_pass() -> None:
    """Each part has its tokens in order, and their source is read once; another trace is read for itself."""
    trace, other, read = random_trace(7, 300, 2, 8), random_trace(8, 50, 2, 8), list[int]()

    def reading(max_tokens: int) -> Iterator[Batch]:
        read.append(max_tokens)
        return trace.read(max_tokens)

    parts = [*replace(trace, read=reading).split(0.5), other]
    found: list[list[np.ndarray]] = [[], [], []]
    for number, batch in batches_together(parts, 40):
        found[number].append(batch.rows)
    assert read == [40]
    for part, rows in zip(parts, found, strict=True):
        assert rows_of(rows) == rows_of([batch.rows for batch in part.batches(40)])


def test_parts_are_checked() -> None:
    """A fault in a part is told as when it is read alone."""
    ids = np.zeros((200, 1, 2), np.int16)
    ids[:, :, 1] = 1
    ids[100] = 9
    fit, held_out = Trace.of(ids, num_experts=4).split(0.5)
    with pytest.raises(InputError, match="id_out_of_range"):
        list(batches_together([fit, held_out]))
