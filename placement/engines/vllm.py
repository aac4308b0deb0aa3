"""vLLM 0.33.0, as its wheel has it, and HYGON's plug-in for it, which loads placements."""

from dataclasses import replace

from placement.engines.engine import Engine

__all__ = ["ENGINE", "HYGON"]

ENGINE = Engine(
    name="vllm",
    title="vLLM",
    version="0.33.0",
    page="vllm",
    execution="dispatch",
    dedup="node",
    ownership="sequence",
    backend="--all2all-backend deepep_high_throughput",
    backends={
        "--all2all-backend allgather_reducescatter": None,
        "--all2all-backend deepep_high_throughput": "node",
        "--all2all-backend deepep_low_latency": "none",
    },
    algorithms={"hash": "fair"},
    default_layout="modulo",
    export="vllm_pr41141",
    sources={
        "execution": "vllm/model_executor/layers/fused_moe/prepare_finalize/deepep_ht.py: DeepEPHTPrepareAndFinalize",
        "dedup": "vllm/model_executor/layers/fused_moe/prepare_finalize/deepep_ht.py: DeepEPHTPrepareAndFinalize",
        "ownership": "vllm/config/parallel.py: ParallelConfig.use_all2all",
        "algorithms": "vllm/model_executor/layers/fused_moe/router/base_router.py: _eplb_map_and_record_i32_kernel",
        "full_slots": "vllm/distributed/eplb/eplb_state.py: EplbState.add_model",
        "default_layout": "vllm/distributed/eplb/eplb_state.py: EplbState.build_initial_global_physical_to_logical_map",
        "export": "not in 0.33.0: pull request 41141, initial_mapping_path",
    },
    notes=(
        "vLLM 0.33.0 loads no placement file: the one that is written is for pull request 41141.",
        "With allgather_reducescatter, vLLM's own default, every rank gets every token: a plan then changes loads and "
        "no traffic.",
        "Replicas are chosen by the token's row in the batch: all experts of a token use the replica of the same "
        "number, and the first token of every batch always the first one.",
        "vLLM dispatches only with data parallelism. With tensor parallelism beside it, the tokens of a sequence are "
        "spread over the ranks of its group.",
    ),
)

HYGON = replace(
    ENGINE,
    name="hygon",
    title="HYGON's vLLM plug-in",
    version="8d755ee00d74 (main branch)",
    export="hygon",
    sources={
        **{name: f"as vLLM 0.33.0, {source}" for name, source in ENGINE.sources.items()},
        "full_slots": "vllm_hcu/model_executor/layers/fused_moe/static_eplb.py: load_static_eplb_plan",
        "export": "vllm_hcu/patch/worker/framework_opt/patch_offline_eplb.py: load_offline_expert_map",
    },
    notes=(
        "The plug-in changes the placement that vLLM starts with; which replica a token uses, and how it travels, is "
        "vLLM's.",
        *ENGINE.notes[1:],
    ),
)
