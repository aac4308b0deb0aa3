"""Model types whose checkpoints were renumbered by this code, and computed the same afterwards.

Each was tried as a small random model of transformers 5.24, saved, renumbered and run again.
"""

from __future__ import annotations

__all__ = ["is_proven"]

TRIED = (
    "afmoe aria axk1 axk2 bailing_hybrid beam cohere2_moe dbrx deepseek_ocr2 deepseek_v2 deepseek_v3 "
    "deepseek_v32 deepseek_v4 diffusion_gemma dots1 dots3_note ernie4_5_moe exaone_moe flex_olmo flint "
    "gemma4 glm4_moe glm4_moe_lite glm4v_moe glm5_next glm_moe_dsa gpt_oss granitemoe granitemoe_swa "
    "granitemoehybrid granitemoeshared hunyuan_v1_moe hy_v3 hy_v4 hy_v4_vl inkling inkling2 inkling2_loop "
    "jamba jetmoe kimi_linear kolibri1 laguna lara_mini lfm2_moe llama4 longcat_flash mellum "
    "mimo_v2_flash minimax minimax_m2 minimax_m3_vl mistral4 mistral_large4 mixtral muse_spark nemotron_h "
    "olmoe openai_privacy_filter phimoe qwen2_moe qwen3_5_moe qwen3_moe qwen3_next qwen3_omni_moe "
    "qwen3_vl_moe qwen4_exp solar_open step3p5 unlimited_ocr zaya"
)
PROVEN = frozenset(TRIED.split())
SAME_CODE = frozenset({"kimi_k2"})  # DeepseekV3ForCausalLM by its config, with a name of its own


def is_proven(model_type: str) -> bool:
    """Tell whether a model type, with or without the suffix ``_text``, is one of those."""
    return model_type.removesuffix("_text") in PROVEN | SAME_CODE
