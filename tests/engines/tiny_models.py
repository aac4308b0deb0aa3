"""A tiny random model of every MoE code family of transformers: its own classes, with small numbers in its config."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["code_families", "expert_modules", "model_classes", "settings_of", "tiny_config", "tiny_model", "tiny_of"]

CODE = re.compile(r"class \w*(Experts|Router|TopKGating|NaiveMoe|CDMoE)\b")
# Code with routers or experts that are none of a language model's.
OTHER = ("granite_docling.granite_docling", "vitpose_backbone.vitpose_backbone")
VOCABULARY, LAYERS, EXPERTS, TOP_K = 64, 4, 8, 2
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_expert_group": 2,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "index_topk": 4,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "sliding_window": 6,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "depth": 2,
    "num_heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "d_model": 32,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "out_hidden_size": 32,
}
SMALL |= dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim"), 16)
SMALL |= dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"), EXPERTS)
SMALL |= dict.fromkeys(
    ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts"), TOP_K
)
# What the numbers above leave impossible, or would leave untested, by class of config.
HYBRID = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
SECTIONS: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0}
OWN: dict[str, dict[str, Any]] = {
    "BailingHybridConfig": {"layer_types": HYBRID},
    "DbrxAttentionConfig": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
    "DbrxConfig": {"n_layers": LAYERS, "vocab_size": VOCABULARY, "n_heads": 4, "d_model": 32, "max_seq_len": 128},
    "DbrxFFNConfig": {"ffn_hidden_size": 24},
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "DogeConfig": {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 4},
    "Dots1Config": {"n_shared_experts": 1},
    "Dots3NoteTextConfig": {"num_key_value_heads": 4},
    "Ernie4_5_VLMoeTextConfig": {
        "moe_intermediate_size": [16, 16],
        "rope_parameters": SECTIONS | {"mrope_section": [1, 1, 2]},
    },
    "Gemma4TextConfig": {"enable_moe_block": True, "hidden_size_per_layer_input": 0},
    "Glm4vMoeTextConfig": {"rope_parameters": SECTIONS | {"mrope_section": [1, 1, 0]}},
    "Glm5NextTextConfig": {"index_kpool": 2, "qk_rope_head_dim": 0},
    "GraniteMoeHybridConfig": {"layer_types": HYBRID},
    "HYV4VLTextConfig": {"rope_parameters": SECTIONS | {"mrope_section": [2, 1, 1]}},
    "Inkling2LoopTextConfig": {"unpadded_vocab_size": VOCABULARY},
    "Inkling2TextConfig": {"unpadded_vocab_size": VOCABULARY},
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "KimiLinearConfig": {"layer_types": HYBRID},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "LongcatFlashConfig": {
        "num_layers": 2,
        "zero_expert_num": 3,
        "ffn_hidden_size": 24,
        "expert_ffn_hidden_size": 16,
        "head_dim": 8,
    },
    "MuseSparkConfig": {"audio_config": {"out_hidden_size": 32}, "vision_config": {"out_hidden_size": 32}},
    "NemotronHConfig": {"n_groups": 2, "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"]},
    "NllbMoeConfig": {"encoder_sparse_step": 1, "decoder_sparse_step": 1},
    "Qwen4ExpTextConfig": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "hc_lowrank": 8,
    },
    "ZayaConfig": {"num_experts_per_tok": 1},
}


def folder() -> Path:
    """Return the folder of transformers' models."""
    return Path(inspect.getfile(importlib.import_module("transformers.models"))).parent


def code_families() -> list[str]:
    """Return the names of all code families with experts or routers."""
    paths = sorted(folder().glob("*/modeling_*.py"))
    return [f"{path.parent.name}.{path.stem[9:]}" for path in paths if CODE.search(path.read_text(encoding="utf-8"))]


def model_classes(family: str) -> list[Any]:
    """Return the model classes of a code family, those that generate text first."""
    transformers = importlib.import_module("transformers")
    module = importlib.import_module("transformers.models." + family.replace(".", ".modeling_"))
    found = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, transformers.PreTrainedModel)
        and value.__module__ == module.__name__
        and not name.endswith("PreTrainedModel")
        and inspect.isclass(getattr(value, "config_class", None))
    ]
    ends = ("ForCausalLM", "ForConditionalGeneration", "TextModel", "Model")

    def rank(kind: Any) -> tuple[int, int]:
        name = kind.__name__
        return next((place for place, end in enumerate(ends) if name.endswith(end)), len(ends)), len(name)

    return sorted(found, key=rank)


def settings_of(kind: Any) -> dict[str, Any]:
    """Return small settings for a class of config, parts included."""
    names = set(kind.__dataclass_fields__)
    settings = {name: value for name, value in SMALL.items() if name in names}
    if "kv_lora_rank" in names and "num_key_value_heads" in names:
        settings["num_key_value_heads"] = settings["num_attention_heads"]  # latent attention makes one for each head
    for part, inner in getattr(kind, "sub_configs", {}).items():
        if hasattr(inner, "__dataclass_fields__") and inner.__name__ != "AutoConfig":
            settings[part] = settings_of(inner)
    for base in reversed(kind.__mro__):
        for name, value in OWN.get(base.__name__, {}).items():
            if isinstance(value, dict) and isinstance(settings.get(name), dict):
                settings[name] |= value
            else:
                settings[name] = value
    return settings


def tiny_config(kind: Any) -> Any:
    """Return a config of few and small layers."""
    return kind(**settings_of(kind))


def tiny_model(kind: Any) -> Any:
    """Return a random model of a class, whose routers have clear preferences."""
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(3)
    model = kind(tiny_config(kind.config_class)).eval()
    for key, value in model.named_buffers():
        if key.endswith("tid2eid"):  # DeepSeek-V4's table from tokens to experts, which comes with its weights
            table = torch.rand(len(value), EXPERTS).argsort(dim=1)[:, : value.shape[1]]
            value.data.copy_(table)
    for key, value in (*model.named_parameters(), *model.named_buffers()):
        if not value.is_floating_point():
            continue
        if "correction_bias" in key or "expert_bias" in key or "embed_tokens" in key:
            value.data.normal_(0, 0.3)  # the selection then is not the top-k of the logits
        elif "expert" not in key and value.ndim > 1:
            value.data.mul_(3)
    return model


def expert_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules of the language model that are called with the chosen experts, or that choose, by name."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in ("JetMoeMoE", "DogeCDMoE") or (
            name.endswith("experts")
            and "shared" not in name
            and not re.search("vision|visual|self_attention|talker", name)
        ):
            yield name, module


def tiny_of(family: str) -> Any:
    """Return a tiny model of a code family: one that generates text, if there is one.

    Raises
    ------
    ValueError
        If none of its classes takes the small numbers.
    """
    errors = []
    if family in OTHER:
        torch: Any = importlib.import_module("torch")
        with torch.device("meta"):
            kind = model_classes(family)[0]
            return kind(kind.config_class())
    for kind in model_classes(family):
        if not any(name in kind.__name__ for name in ("Vision", "Audio", "Talker", "Code2Wav")):
            try:
                model = tiny_model(kind)
            except Exception as error:  # whatever a class says of numbers that it can't take
                errors.append(f"{kind.__name__}: {error!r:.200}")
                continue
            if next(expert_modules(model), None) is not None:
                return model
    raise ValueError(f"no model of {family}: {'; '.join(errors)}")
