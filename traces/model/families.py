"""What a model's config leaves to its code: the exceptions from the rules, by model type.

Source: ``configuration_*.py`` and ``modeling_*.py`` of transformers 5.24, and the engines for types that it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the code of a model type adds to its config.

    Attributes
    ----------
    dense_first : int
        Dense layers before the first MoE layer where the config names no layers; the code's default.
    mtp : bool or None
        Whether layers for multi-token prediction have experts; None where that is not known.
    switch : str or None
        A field without which no layer has experts.
    top_k : int or None
        K, whatever the config says.
    layers : tuple of str
        Names of the number of layers, where the usual one means something else.
    shared : int or None
        Shared experts that no field tells.
    zero : int
        Choices of the router that no field tells and that compute nothing.
    one_is_dense : bool
        Whether a single expert means an ordinary feed-forward layer.
    """

    dense_first: int = 0
    mtp: bool | None = None
    switch: str | None = None
    top_k: int | None = None
    layers: tuple[str, ...] | None = None
    shared: int | None = None
    zero: int = 0
    one_is_dense: bool = False


# Names without the suffix _text, which the part for the language model has.
WITHOUT_FIELDS = {
    0: (
        "aria cohere2_moe dbrx deepseek deepseek_v2 dots1 ernie4_5_moe flex_olmo flint gpt_oss granitemoe"
        " granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_moe inkling inkling2 inkling2_loop jetmoe"
        " kolibri1 lara_mini llama4 mellum minimax minimax_m2 minimax_m3_vl mistral4 mixtral muse_spark nemotron_h"
        " olmoe openai_privacy_filter qwen2_moe qwen3_5_moe qwen3_moe qwen3_next qwen3_omni_moe qwen3_omni_moe_talker"
        " qwen3_vl_moe qwen4_exp solar_open"
    ),
    1: (
        "afmoe axk1 axk2 dots3_note ernie4_5_moe_vl ernie4_5_vl_moe exaone_moe glm4v_moe"
        " kimi_linear laguna mistral_large4 unlimited_ocr"
    ),
    2: "lfm2_moe",
    3: "beam step3p5 step3p7",
}
WITH_MTP = {  # multi-token prediction runs whole layers of the model, experts included
    0: "bailing_moe_v2 deepseek_v4 deepseek_v41 kimi_k2",
    1: "glm4_moe glm4_moe_lite hy_v3 hy_v4 hy_v4_vl sarvam_mla sarvam_moe",
    2: "bailing_hybrid",
    3: "deepseek_v3 deepseek_v32 glm5_next glm_moe_dsa",
}
EXCEPTIONS = {
    "diffusion_gemma": Family(),
    "doge": Family(switch="is_moe"),
    "gemma4": Family(switch="enable_moe_block"),
    "inkling": Family(mtp=False),
    "jamba": Family(one_is_dense=True),
    "llama4": Family(shared=1),
    "longcat_flash": Family(layers=("num_layers",)),  # num_hidden_layers counts blocks of attention
    "longcat_flash_ngram": Family(layers=("num_layers",)),
    "mellum": Family(mtp=True),
    "mimo_v2_flash": Family(dense_first=1, mtp=False),
    "phimoe": Family(top_k=2),
    "step3p5": Family(dense_first=3, mtp=False),
    "step3p7": Family(dense_first=3, mtp=False),
    "zaya": Family(zero=1),
}


def _families() -> dict[str, Family]:
    found: dict[str, Family] = {}
    for table, mtp in ((WITHOUT_FIELDS, None), (WITH_MTP, True)):
        for first, names in table.items():
            found |= {name: Family(dense_first=first, mtp=mtp) for name in names.split()}
    return found | EXCEPTIONS


FAMILIES: Mapping[str, Family] = _families()


def family_of(*names: Any) -> Family | None:
    """Return what is known of the first model type that is known, None if none is."""
    for name in names:
        if isinstance(name, str) and (family := FAMILIES.get(name.removesuffix("_text"))) is not None:
            return family
    return None
