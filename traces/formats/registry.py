"""The trace formats. To add one: write a module with a `Reader` named READER, and list it here."""

from traces.formats import (
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
    sglang_per_pass,
    sglang_per_token,
    sglang_routed,
    sglang_stat,
    tensorrt,
    transformers,
    vllm_routed,
)
from traces.formats.reader import Reader

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
    vllm_routed.READER,
    sglang_routed.READER,
    sglang_stat.READER,
    sglang_per_pass.READER,
    sglang_per_token.READER,
)
