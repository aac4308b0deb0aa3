"""ExFlow's trace: a `.npy` of integers (tokens, layers), the one expert of each token and layer (top-1).

References
----------
Yao et al., "Exploiting Inter-Layer Expert Affinity for Accelerating Mixture-of-Experts Model Inference", IPDPS 2024.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from traces import rules as checks
from traces.batch import Batch
from traces.decoding.files import TraceFile, tokens_per_batch
from traces.decoding.npy import open_npy
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.matrices import npy_kind
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["READER"]

SCAN_TOKENS = 65_536


def open_exflow(file: TraceFile, hints: Hints) -> Trace:
    """Open a top-1 trace."""
    with file.open() as stream:
        header = open_npy(file, stream).header
    if header.ndim != 2:
        raise InputError.of("npy_axes", file.name, f"Shape {header.shape} is not (tokens, layers).", "Save it as npz.")
    num_tokens, num_layers = header.shape
    checks.check_ids_shape((num_tokens, num_layers, 1), header.dtype, f"{file.name}#")
    tokens_per_batch(1, header.row_bytes, file.name)

    def read(max_tokens: int) -> Iterator[Batch]:
        with file.open() as stream:
            start = 0
            for ids in open_npy(file, stream).batches(tokens_per_batch(max_tokens, header.row_bytes, file.name)):
                yield Batch(topk_ids=ids[:, :, np.newaxis], rows=np.arange(start, start + len(ids)))
                start += len(ids)

    def largest_id() -> int:
        return max((int(batch.topk_ids.max()) for batch in read(SCAN_TOKENS)), default=-1)

    axes = Axes.settle(file, hints, num_layers, largest_id)
    return axes.trace(file, "exflow", top_k=1, num_tokens=num_tokens, read=read)


READER = Reader(
    name="exflow",
    engine="exflow",
    content=".npy of integers (tokens, layers), top-1",
    sniff=lambda file: npy_kind(file) == "exflow",
    open=open_exflow,
)
