"""Writes the project's `.npz` member by member."""

from __future__ import annotations

import zipfile
from typing import IO, Any

import numpy as np

from traces.batch import COLUMNS
from traces.formats.writers.base import Survey
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["write"]


def write(trace: Trace, survey: Survey, file: IO[bytes], compress: bool) -> None:
    """Write one array per column, in one pass over the trace for each."""
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    ids_shape = (survey.tokens, trace.num_layers, trace.top_k)
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in (("num_experts", np.array(trace.num_experts)), ("layer_ids", trace.layer_ids)):
            with _member(archive, name, method) as member:
                np.lib.format.write_array(member, value, version=(1, 0), allow_pickle=False)
        for name in ("topk_ids", *survey.columns):
            dtype = survey.id_dtype if name == "topk_ids" else np.dtype(COLUMNS[name])
            shape = ids_shape if name in ("topk_ids", "gate_weights") else ids_shape[:1]
            with _member(archive, name, method) as member:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for batch in trace.read(BATCH_TOKENS):
                    values: Any = getattr(batch, name)
                    member.write(np.ascontiguousarray(values, dtype=dtype).data)


def _member(archive: zipfile.ZipFile, name: str, method: int) -> IO[bytes]:
    info = zipfile.ZipInfo(f"{name}.npy")  # its fixed date makes equal traces equal files
    info.compress_type = method
    return archive.open(info, "w", force_zip64=True)
