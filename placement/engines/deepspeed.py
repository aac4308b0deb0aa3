"""DeepSpeed 0.19.8's AutoEP, as its source distribution has it."""

from placement.engines.engine import Engine

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="deepspeed",
    title="DeepSpeed",
    version="0.19.8",
    page="deepspeed",
    execution="dispatch",
    dedup="none",
    ownership="sequence",
    backend='"comm_backend": "comm"',
    backends={'"comm_backend": "comm"': "none", '"comm_backend": "deepep"': "node"},
    default_layout="contiguous",
    export="megatron",
    sources={
        "execution": "deepspeed/module_inject/auto_ep_layer.py: AutoEPMoELayer.forward",
        "dedup": "deepspeed/module_inject/auto_ep_layer.py: AutoEPMoELayer.forward (a row per assignment)",
        "ownership": "deepspeed/module_inject/auto_ep_layer.py: AutoEPMoELayer.forward (a rank's own batch)",
        "algorithms": "deepspeed/module_inject/auto_ep_layer.py: _split_plan_from_expert_counts (one rank per expert)",
        "full_slots": "deepspeed/module_inject/auto_ep_config.py: num_experts must be divisible by autoep_size",
        "default_layout": "deepspeed/module_inject/auto_ep_layer.py: _split_plan_from_expert_counts",
        "export": "none: a plan is applied by renumbering the experts of the checkpoint",
    },
    notes=(
        "A descriptor (expert_placement) says how a checkpoint is stored, and may hold replicas; the running model has "
        "every expert once, in contiguous blocks, whatever the descriptor says.",
    ),
)
