"""The placement formats. To add one: write a module with an `Export`, and list it here."""

from placement.exports import ascend, deepspeed, eplb, exflow, hygon, megatron, own, sglang, trtllm, vllm, vllm_dsv4
from placement.exports.export import Export

__all__ = ["EXPORTS"]

# In the order in which content is tried: those with an unmistakable mark first.
EXPORTS: tuple[Export, ...] = (
    own.PLAN,
    vllm.MAPPING,
    sglang.EXPORT,
    hygon.EXPORT,
    ascend.EXPORT,
    vllm.RANKS,
    deepspeed.EXPORT,
    megatron.EXPORT,
    trtllm.EXPORT,
    vllm.LIST,
    vllm_dsv4.EXPORT,
    eplb.EXPORT,
    own.NPZ,
    exflow.EXPORT,
    own.CSV,
)
