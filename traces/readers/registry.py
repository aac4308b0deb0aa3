"""The trace formats. To add one: write a module with a `Reader` named READER, and list it here."""

from traces.readers import (
    ascend,
    eplb,
    eplb_stats,
    exflow,
    flame,
    jsonl,
    llama_csv,
    megatron,
    moetuner,
    npz,
    parquet,
    policylang,
    tensorrt,
    transformers,
)
from traces.readers.base import Reader

__all__ = ["READERS"]

READERS: tuple[Reader, ...] = (
    npz.READER,
    parquet.READER,
    jsonl.READER,
    exflow.READER,
    eplb.READER,
    eplb_stats.READER,
    megatron.READER,
    tensorrt.READER,
    moetuner.READER,
    flame.READER,
    llama_csv.READER,
    policylang.READER,
    transformers.READER,
    ascend.READER,
)
