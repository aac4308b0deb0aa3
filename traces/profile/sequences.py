"""Sequences by bucket: loads of disjoint groups of whole sequences, in memory that does not grow with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from traces.profile.sample import row_priority

__all__ = ["SEQUENCE_BUCKETS", "bucket_of"]

SEQUENCE_BUCKETS = 64  # enough groups for a standard error of a load, and as many matrices (L, E) to keep


def bucket_of(seq_id: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Hash sequences to buckets, the same in every trace: parts of one sequence meet again when profiles merge."""
    hashed = row_priority(seq_id.astype(np.int64), 0)
    return (hashed % np.uint64(SEQUENCE_BUCKETS)).astype(np.int32)
