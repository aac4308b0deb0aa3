"""vllm-ascend 0.23.0.post1, as its source distribution has it."""

from placement.engines.engine import Engine

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="vllm-ascend",
    title="vllm-ascend",
    version="0.23.0.post1",
    page="vllm_ascend",
    execution="dispatch",
    dedup="none",
    ownership="token",
    algorithms={"by_rank": "fair"},
    default_layout="overlapping",
    export="vllm_ascend",
    sources={
        "execution": "vllm_ascend/ops/fused_moe/token_dispatcher.py: TokenDispatcherWithAll2AllV",
        "dedup": "vllm_ascend/ops/fused_moe/token_dispatcher.py: TokenDispatcherWithAll2AllV._dispatch_preprocess",
        "ownership": "vllm_ascend/ops/fused_moe/prepare_finalize.py: PrepareAndFinalizeWithAll2All.prepare",
        "algorithms": "vllm_ascend/eplb/core/eplb_utils.py: generate_log2phy_map",
        "full_slots": "vllm_ascend/eplb/core/eplb_utils.py: expert_file_to_tensor",
        "default_layout": "vllm_ascend/eplb/core/eplb_utils.py: generate_global_placement",
        "export": "vllm_ascend/eplb/core/eplb_utils.py: init_eplb_config (expert_map_path)",
    },
    notes=(
        "A rank uses one replica of each expert for good, by its number: one on the own GPU is not preferred, and all "
        "tokens of a rank go the same way.",
        "Which way tokens are sent depends on the device and the batch: A2, 310P and small groups gather all tokens on "
        "every rank, and a plan then changes loads and no traffic.",
        "Where the ranks don't divide the experts, the engine's own layout gives the larger blocks to the first ranks.",
    ),
)
