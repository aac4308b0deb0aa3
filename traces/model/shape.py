"""How large a model's experts and its attention are: what the time model needs of a ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from traces.model.families import family_of
from traces.model.fields import EXPERTS, TOP_K, Fields
from traces.model.language_part import language_part
from traces.support.errors import InputError, Violations

__all__ = ["WEIGHT_BYTES", "ModelShape", "shape_from_config"]

# Bytes per weight, the scales of its blocks included.
WEIGHT_BYTES: Mapping[str, float] = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0,
    "int8": 1.0,
    "nvfp4": 0.5625,
    "mxfp4": 0.53125,
    "int4": 0.5,
}
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
# The first that is there: beside it, intermediate_size is that of dense layers.
EXPERT_WIDTHS = (
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "moe_ffn_hidden_size",
    "moe_inter_dim",
    "intermediate_size",
)
LATENT = ("routed_expert_hidden_size", "moe_latent_size")
METHODS = {"mxfp4": "mxfp4", "modelopt_fp4": "nvfp4", "nvfp4": "nvfp4", "bitsandbytes": "int4", "awq": "int4"}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of one model.

    Attributes
    ----------
    hidden_size : int
        Numbers per token between layers, H.
    expert_input : int
        Numbers per token that an expert takes and gives: H, or less for experts behind a projection.
    intermediate_size : int
        Width inside one expert, F.
    num_experts, top_k : int
        E and K.
    weight_dtype : str
        How its experts are stored, a key of `WEIGHT_BYTES`.
    attention_weights : int
        Weights of the attention of one layer; 0 where the config does not tell.
    shared_width : int
        Width of all shared experts together; 0 without.
    """

    hidden_size: int
    expert_input: int
    intermediate_size: int
    num_experts: int
    top_k: int
    weight_dtype: str = "bfloat16"
    attention_weights: int = 0
    shared_width: int = 0

    @property
    def expert_weights(self) -> int:
        """Weights of one expert: gate, up and down."""
        return 3 * self.expert_input * self.intermediate_size

    @property
    def expert_gb(self) -> float:
        """Gigabytes of one expert as it is stored."""
        return self.expert_weights * WEIGHT_BYTES[self.weight_dtype] / 1e9


def shape_from_config(content: Any, place: str = "") -> ModelShape:
    """Read the sizes from the content of a ``config.json``.

    Parameters
    ----------
    content : object
        The parsed JSON.
    place : str
        What pointers start with.

    Raises
    ------
    InputError
        With a pointer for each size that is missing or not understood.
    """
    part = language_part(content, place)
    fields = Fields(values=part.fields, place=part.place, name=part.types[0] if part.types else "", found=Violations())
    family = family_of(*part.types)
    hidden = fields.whole(HIDDEN, least=1)
    width = fields.whole(tuple(fields.present(EXPERT_WIDTHS)[:1]) or EXPERT_WIDTHS, least=1)
    experts = fields.whole(EXPERTS, least=1)
    top_k = (family.top_k if family else None) or fields.whole(TOP_K, least=1)
    shared = fields.whole(("n_shared_experts", "num_shared_experts"), (family.shared or 0) if family else 0)
    latent = fields.whole(LATENT, hidden, least=1)
    fields.found.raise_if_any()
    dtype = _weight_dtype(content, part.fields)
    if dtype is None:
        method = _quantization(content, part.fields).get("quant_method")
        detail = f"Its weights are stored as {method!r:.40}, which this version doesn't know."
        remedy = f"Give a config whose quantization is one of {', '.join(WEIGHT_BYTES)}."
        raise InputError.of("unknown_quantization", f"{part.place}/quantization_config", detail, remedy)
    return ModelShape(
        hidden_size=hidden,
        expert_input=latent,
        intermediate_size=width,
        num_experts=experts,
        top_k=top_k,
        weight_dtype=dtype,
        attention_weights=_attention_weights(part.fields, hidden),
        shared_width=shared * width,
    )


def _quantization(content: Any, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    outer = content if isinstance(content, Mapping) else {}
    found = fields.get("quantization_config") or outer.get("quantization_config") or {}
    return found if isinstance(found, Mapping) else {}


def _weight_dtype(content: Any, fields: Mapping[str, Any]) -> str | None:
    """Return how the experts are stored; None where it is said and not understood."""
    said = _quantization(content, fields)
    method = str(said.get("quant_method", ""))
    if fields.get("expert_dtype") == "fp4":  # DeepSeek-V4: blocks of 32 with a scale of 8 bits, the rest in fp8
        return "mxfp4"
    if not method:
        return "bfloat16"
    if method == "fp8":
        return "fp8_block" if said.get("weight_block_size") else "fp8"
    texts = f"{method} {said.get('format', '')} {said.get('quant_algo', '')}".lower()
    for word, dtype in (("mxfp4", "mxfp4"), ("nvfp4", "nvfp4"), ("fp8", "fp8"), ("float-quantized", "fp8")):
        if word in texts:
            return dtype
    return METHODS.get(method)


def _attention_weights(fields: Mapping[str, Any], hidden: int) -> int:
    """Return the weights of one layer's attention, with latent (MLA) or grouped heads; 0 if that is not told."""

    def number(name: str) -> int:
        value = fields.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    heads, kv = number("num_attention_heads"), number("num_key_value_heads")
    if not heads:
        return 0
    if latent := number("kv_lora_rank"):
        nope, rope, value = number("qk_nope_head_dim"), number("qk_rope_head_dim"), number("v_head_dim")
        queries = number("q_lora_rank")
        into = hidden * queries + queries * heads * (nope + rope) if queries else hidden * heads * (nope + rope)
        return into + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    size = number("head_dim") or hidden // heads
    queries, outward = number("q_lora_rank"), number("o_lora_rank")
    if queries and outward:  # DeepSeek-V4: low rank on both sides, keys that are the values
        groups = number("o_groups") or 1
        into = hidden * queries + queries * heads * size + hidden * (kv or heads) * size
        return into + heads * size * outward + groups * outward * hidden
    return 2 * hidden * heads * size + 2 * hidden * (kv or heads) * size
