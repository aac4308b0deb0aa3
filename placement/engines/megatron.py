"""Megatron-core 0.19.2, as its wheel has it."""

from placement.engines.engine import Engine

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="megatron",
    title="Megatron-core",
    version="0.19.2",
    page="megatron",
    execution="dispatch",
    dedup="none",
    ownership="sequence",
    backend="--moe-token-dispatcher-type alltoall",
    backends={
        "--moe-token-dispatcher-type allgather": None,
        "--moe-token-dispatcher-type alltoall": "none",
        "--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend deepep": "node",
    },
    default_layout="contiguous",
    export="megatron",
    sources={
        "execution": "megatron/core/transformer/moe/token_dispatcher.py: MoEAlltoAllTokenDispatcher",
        "dedup": "megatron/core/transformer/moe/token_dispatcher.py: MoEAlltoAllTokenDispatcher.dispatch_preprocess",
        "ownership": "megatron/core/transformer/moe/token_dispatcher.py: MoETokenDispatcher (ranks of the EP group)",
        "algorithms": "megatron/core/transformer/moe/moe_layer.py: BaseMoELayer (one rank per expert)",
        "full_slots": "megatron/core/transformer/moe/moe_layer.py: BaseMoELayer.local_expert_indices",
        "default_layout": "megatron/core/transformer/moe/moe_layer.py: BaseMoELayer.local_expert_indices",
        "export": "none: a plan is applied by renumbering the experts of the checkpoint",
    },
    notes=(
        "With allgather, Megatron's own default, every rank gets every token: a plan then changes loads and no "
        "traffic. Inference with the optimised layers always gathers.",
        "With tensor parallelism, the tokens of a sequence are spread over the ranks of its group.",
    ),
)
