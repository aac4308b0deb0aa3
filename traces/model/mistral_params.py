"""Mistral's own ``params.json``, in the words of a ``config.json``.

References
----------
``vllm/transformers_utils/configs/mistral.py``, which reads it for vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_params", "renamed"]

OUTER = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
}
INNER = {
    "num_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "route_every_n": "moe_layer_freq",
    "num_expert_groups": "n_group",
    "num_expert_groups_per_tok": "topk_group",
    "expert_hidden_dim": "moe_intermediate_size",
}


def is_params(content: Mapping[str, Any]) -> bool:
    """Whether it has Mistral's names for the sizes, and experts in a part of their own."""
    return "dim" in content and "n_layers" in content and isinstance(content.get("moe"), dict)


def renamed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields under the names of a ``config.json``, those of the experts among them."""
    fields = {OUTER.get(name, name): value for name, value in content.items() if name not in ("moe", "quantization")}
    fields |= {INNER.get(name, name): value for name, value in content["moe"].items()}
    said = content.get("quantization")
    if isinstance(said, dict) and said:
        method = "fp8" if said.get("qformat_weight") == "fp8_e4m3" else said.get("quant_method", "?")
        fields["quantization_config"] = said | {"quant_method": method}
    return fields
