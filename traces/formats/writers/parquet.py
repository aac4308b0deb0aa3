"""Writes Parquet: fixed-size lists [L*K] without nulls, and the axes in the schema's metadata."""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from traces.batch import COLUMNS
from traces.formats.parquet import import_pyarrow
from traces.formats.writers.base import Survey
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["write"]


def write(trace: Trace, survey: Survey, file: IO[bytes], compress: bool) -> None:
    """Write one row group per batch."""
    parquet = import_pyarrow()
    import pyarrow as pa

    width = trace.num_layers * trace.top_k

    def kind_of(name: str) -> Any:
        dtype = survey.id_dtype if name == "topk_ids" else np.dtype(COLUMNS[name])
        scalar = pa.from_numpy_dtype(dtype)
        if name not in ("topk_ids", "gate_weights"):
            return scalar
        # Non-nullable entries need no definition levels, which makes reading a third faster.
        return pa.list_(pa.field("element", scalar, nullable=False), width)

    names = ("topk_ids", *survey.columns)
    metadata = {"num_experts": trace.num_experts, "top_k": trace.top_k, "layer_ids": trace.layer_ids.tolist()}
    schema = pa.schema(
        [pa.field(name, kind_of(name), nullable=False) for name in names],
        metadata={key: json.dumps(value) for key, value in metadata.items()},
    )
    options = {
        "compression": "zstd" if compress else "none",
        # A dictionary packs ids into as many bits as they need; plain Parquet integers take four bytes.
        "use_dictionary": ["topk_ids.list.element"],
        "write_page_checksum": True,
        "write_statistics": False,
    }
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for batch in trace.read(BATCH_TOKENS):
            arrays = []
            for field in schema:
                values = np.asarray(getattr(batch, field.name))
                if field.name in ("topk_ids", "gate_weights"):
                    flat = np.ascontiguousarray(values, dtype=field.type.value_type.to_pandas_dtype()).reshape(-1)
                    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type))
                else:
                    arrays.append(pa.array(values, type=field.type))
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
