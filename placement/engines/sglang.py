"""SGLang 0.5.23, as its wheel has it."""

from placement.engines.engine import Engine

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="sglang",
    title="SGLang",
    version="0.5.23",
    page="sglang",
    execution="dispatch",
    dedup="node",
    ownership="token",
    backend="--moe-a2a-backend deepep --deepep-mode normal",
    backends={
        "--moe-a2a-backend none": None,
        "--moe-a2a-backend deepep --deepep-mode normal": "node",
        "--moe-a2a-backend deepep --deepep-mode low_latency": "none",
    },
    algorithms={"static": "same_node", "dynamic": "same_node", "fake": "same_node", "lp": "same_node"},
    default_layout="modulo",
    export="sglang",
    sources={
        "execution": "sglang/srt/layers/moe/token_dispatcher/deepep.py: DeepEPDispatcher.dispatch, .combine",
        "dedup": "sglang/srt/layers/moe/token_dispatcher/deepep.py: _DeepEPDispatcherImplNormal._dispatch_core",
        "ownership": "sglang/srt/layers/layer_boundary/factories.py: _ffn_on_rank_rows",
        "algorithms": "sglang/srt/eplb/expert_location.py: _find_nearest_expert, _fair_choices",
        "full_slots": "sglang/srt/eplb/expert_location.py: ExpertLocationMetadata.init_by_mapping",
        "default_layout": "sglang/srt/eplb/expert_location.py: ExpertLocationMetadata.init_trivial",
        "export": "sglang/srt/eplb/expert_location.py: compute_initial_expert_location_metadata",
    },
    notes=(
        "Without --moe-a2a-backend, SGLang's own default, every rank gets every token, and replicas are used in turn: "
        "a plan then changes loads and no traffic, and the replica policy is fair.",
        "By default, --deepep-mode is auto: normal kernels in prefill, low-latency ones (a message per expert) in "
        "decode.",
        "static and dynamic use the first replica on the own node, not all of them in turn, and only if the expert has "
        "replicas on other nodes too; where none is near, static gives every rank one replica for good, and dynamic "
        "draws one for each token.",
        "lp draws replicas with shares that balance each batch, fake routes at random: both only where no replica is "
        "near.",
        "With attention data parallelism, the tokens of a sequence have one home rank: ownership is then sequence.",
    ),
)
