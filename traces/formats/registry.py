"""The trace formats. To add one: write a module with a `Reader` named READER, and list it here."""

from traces.formats import (
    eplb,
    exflow,
    flame,
    jsonl,
    llama_csv,
    lmdeploy_routed,
    long_csv,
    moetuner,
    npz,
    parquet,
    policylang,
    vllm_ascend,
)
from traces.formats.megatron import router_trace, tokens_per_expert
from traces.formats.reader import Reader
from traces.formats.sglang import logical_count, per_pass, per_token, stat
from traces.formats.sglang import routed as sglang_routed
from traces.formats.tensorrt_llm import statistics
from traces.formats.transformers import archive
from traces.formats.vllm import eplb_stats
from traces.formats.vllm import routed as vllm_routed

__all__ = ["READERS"]

READERS: tuple[Reader, ...] = (
    npz.READER,
    parquet.READER,
    jsonl.READER,
    exflow.READER,
    eplb.READER,
    eplb_stats.READER,
    router_trace.READER,
    tokens_per_expert.READER,
    statistics.READER,
    moetuner.READER,
    flame.READER,
    llama_csv.READER,
    long_csv.READER,
    policylang.READER,
    archive.READER,
    vllm_ascend.READER,
    vllm_routed.READER,
    sglang_routed.READER,
    lmdeploy_routed.READER,
    stat.READER,
    logical_count.READER,
    per_pass.READER,
    per_token.READER,
)
