"""Tests of the model layout: which layers have experts, by a config of each family, and how rows of files map to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import traces
from traces import InputError, ModelLayout
from traces.model.config import layout_from_config, load_model_config
from traces.model.families import FAMILIES
from traces.model.shape import shape_from_config

# The figures are those of the published models' own config.json, cut to the fields that matter here.
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Mixtral-8x7B": (
        {"model_type": "mixtral", "num_hidden_layers": 32, "num_local_experts": 8, "num_experts_per_tok": 2},
        {"moe_layers": tuple(range(32)), "num_experts": 8, "top_k": 2},
    ),
    "Qwen2-57B-A14B": (
        {
            "model_type": "qwen2_moe",
            "num_hidden_layers": 28,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "decoder_sparse_step": 1,
        },
        {"moe_layers": tuple(range(28)), "num_experts": 64, "top_k": 8},
    ),
    "Qwen3, every second layer, one of them dense": (
        {
            "model_type": "qwen3_moe",
            "num_hidden_layers": 8,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
        },
        {"moe_layers": (1, 5, 7), "num_experts": 128, "top_k": 8},
    ),
    "DeepSeek-V2-Lite": (
        {
            "model_type": "deepseek_v2",
            "num_hidden_layers": 27,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
        },
        {"moe_layers": tuple(range(1, 27)), "num_experts": 64, "top_k": 6, "num_groups": None},
    ),
    "DeepSeek-V3": (
        {
            "model_type": "deepseek_v3",
            "num_hidden_layers": 61,
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 3,
            "moe_layer_freq": 1,
            "n_group": 8,
            "topk_group": 4,
            "num_nextn_predict_layers": 1,
            "topk_method": "noaux_tc",
        },
        {
            "moe_layers": tuple(range(3, 61)),
            "mtp_layers": (61,),
            "num_experts": 256,
            "top_k": 8,
            "num_groups": 8,
            "groups_per_token": 4,
        },
    ),
    "DeepSeek with a frequency": (
        {
            "model_type": "deepseek_v2",
            "num_hidden_layers": 9,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 3,
            "moe_layer_freq": 2,
        },
        {"moe_layers": (4, 6, 8)},
    ),
    "Kimi-K2": (
        {
            "model_type": "kimi_k2",
            "num_hidden_layers": 61,
            "n_routed_experts": 384,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "num_nextn_predict_layers": 0,
        },
        {"moe_layers": tuple(range(1, 61)), "mtp_layers": (), "num_experts": 384, "num_groups": None},
    ),
    "GLM-4.5": (
        {
            "model_type": "glm4_moe",
            "num_hidden_layers": 92,
            "n_routed_experts": 160,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 3,
            "num_nextn_predict_layers": 1,
        },
        {"moe_layers": tuple(range(3, 92)), "mtp_layers": (92,), "num_experts": 160, "top_k": 8},
    ),
    "gpt-oss-120b": (
        {
            "model_type": "gpt_oss",
            "num_hidden_layers": 36,
            "num_local_experts": 128,
            "num_experts_per_tok": 4,
            "experts_per_token": 4,
        },
        {"moe_layers": tuple(range(36)), "num_experts": 128, "top_k": 4},
    ),
    "OLMoE-1B-7B": (
        {"model_type": "olmoe", "num_hidden_layers": 16, "num_experts": 64, "num_experts_per_tok": 8},
        {"moe_layers": tuple(range(16)), "num_experts": 64, "top_k": 8},
    ),
    "Llama-4-Maverick": (
        {
            "model_type": "llama4",
            "text_config": {
                "model_type": "llama4_text",
                "num_hidden_layers": 48,
                "num_local_experts": 128,
                "num_experts_per_tok": 1,
                "interleave_moe_layer_step": 2,
            },
            "vision_config": {"num_hidden_layers": 34},
        },
        {"moe_layers": tuple(range(1, 48, 2)), "num_experts": 128, "top_k": 1},
    ),
    "ERNIE-4.5-21B-A3B": (
        {
            "model_type": "ernie4_5_moe",
            "num_hidden_layers": 28,
            "moe_num_experts": 64,
            "moe_k": 6,
            "moe_layer_interval": 1,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 27,
        },
        {"moe_layers": tuple(range(1, 28)), "num_experts": 64, "top_k": 6},
    ),
    "Jamba": (
        {
            "model_type": "jamba",
            "num_hidden_layers": 8,
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
        {"moe_layers": (1, 3, 5, 7), "num_experts": 16},
    ),
    "layers listed by kind": (
        {
            "model_type": "new_family",
            "num_hidden_layers": 4,
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "mlp_layer_types": ["dense", "sparse", "dense", "sparse"],
        },
        {"moe_layers": (1, 3)},
    ),
}


SIZES: dict[str, Any] = {"num_hidden_layers": 6, "num_experts": 16, "num_experts_per_tok": 4}
# Fields by which a config says its layers, and what they say.
WORDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DeepSeek-V4: hash and learned routing": (
        {"model_type": "deepseek_v4", "mlp_layer_types": ["hash_moe"] * 2 + ["moe"] * 4, "num_nextn_predict_layers": 1},
        {"moe_layers": (0, 1, 2, 3, 4, 5), "mtp_layers": (6,)},
    ),
    "Kimi-Linear, as published": (
        {
            "model_type": "kimi_linear",
            "num_experts_per_tok": None,
            "num_experts_per_token": 8,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "num_expert_group": 4,
            "topk_group": 2,
            "num_shared_experts": 1,
        },
        {"moe_layers": (1, 2, 3, 4, 5), "top_k": 8, "num_groups": 4, "groups_per_token": 2, "num_shared_experts": 1},
    ),
    "LongCat-Flash: two blocks of attention per layer, experts that compute nothing": (
        {
            "model_type": "longcat_flash",
            "num_hidden_layers": 12,
            "num_layers": 6,
            "num_experts": None,
            "n_routed_experts": 32,
            "num_experts_per_tok": None,
            "moe_topk": 12,
            "zero_expert_num": 16,
        },
        {"num_layers": 6, "moe_layers": tuple(range(6)), "num_experts": 32, "zero_experts": 16, "top_k": 12},
    ),
    "Nemotron-H: a letter per layer": (
        {"model_type": "nemotron_h", "num_hidden_layers": None, "hybrid_override_pattern": "MEM*E-"},
        {"num_layers": 6, "moe_layers": (1, 4)},
    ),
    "Nemotron-H: a word per layer, and a number that is ignored": (
        {"model_type": "nemotron_h", "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"]},
        {"num_layers": 4, "moe_layers": (1,)},
    ),
    "Granite hybrid: its words are about attention": (
        {"model_type": "granitemoehybrid", "layers_block_type": ["linear_attention"] * 6},
        {"moe_layers": tuple(range(6))},
    ),
    "LFM2": ({"model_type": "lfm2_moe", "num_dense_layers": 2}, {"moe_layers": (2, 3, 4, 5)}),
    "LFM2, as its code has it": ({"model_type": "lfm2_moe"}, {"moe_layers": (2, 3, 4, 5)}),
    "MiMo: a flag per layer": (
        {"model_type": "mimo_v2_flash", "moe_layer_freq": [0, 1, 1, 0, 1, 1]},
        {"moe_layers": (1, 2, 4, 5)},
    ),
    "EXAONE: a switch per layer": (
        {"model_type": "exaone_moe", "is_moe_layer": [False, True, True, False, True, True]},
        {"moe_layers": (1, 2, 4, 5)},
    ),
    "SmallThinker: primary experts": (
        {
            "model_type": "smallthinker",
            "num_experts": None,
            "num_experts_per_tok": None,
            "moe_num_primary_experts": 64,
            "moe_num_active_primary_experts": 6,
            "moe_layer_layout": [0, 1] * 3,
        },
        {"moe_layers": (1, 3, 5), "num_experts": 64, "top_k": 6},
    ),
    "LongCat-Flash-Lite": (
        {"model_type": "longcat_flash_ngram", "num_hidden_layers": 12, "num_layers": 6, "zero_expert_num": 8},
        {"num_layers": 6, "zero_experts": 8},
    ),
    "MiniMax: a shared expert of no width": (
        {"model_type": "minimax_m2", "shared_intermediate_size": 0},
        {"num_shared_experts": 0},
    ),
    "Step 3: a text": ({"model_type": "step3_text", "moe_layers_enum": "3,4, 5"}, {"moe_layers": (3, 4, 5)}),
    "Step 3.7: the list goes on with the layer for multi-token prediction": (
        {"model_type": "step3p5", "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 4, "num_nextn_predict_layers": 1},
        {"moe_layers": (3, 4, 5), "mtp_layers": ()},
    ),
    "Arctic": ({"model_type": "arctic", "moe_layer_frequency": 2}, {"moe_layers": (1, 3, 5)}),
    "Hunyuan: one number per layer, all the same": (
        {
            "model_type": "hunyuan_v1_moe",
            "num_experts_per_tok": None,
            "moe_topk": [8] * 6,
            "num_shared_expert": [1] * 6,
        },
        {"moe_layers": tuple(range(6)), "top_k": 8, "num_shared_experts": 1},
    ),
    "Phi-MoE routes top-2": ({"model_type": "phimoe"}, {"top_k": 2, "moe_layers": tuple(range(6))}),
    "DBRX": (
        {
            "model_type": "dbrx",
            "num_hidden_layers": None,
            "n_layers": 6,
            "num_experts": None,
            "num_experts_per_tok": None,
            "ffn_config": {"moe_num_experts": 16, "moe_top_k": 4},
        },
        {"num_layers": 6, "num_experts": 16, "top_k": 4},
    ),
    "Gemma 4": (
        {"model_type": "gemma4_text", "enable_moe_block": True, "num_experts_per_tok": None, "top_k_experts": 8},
        {"top_k": 8, "moe_layers": tuple(range(6))},
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_of_all_kinds_are_read(name: str) -> None:
    """Whatever its words, a config gives its layers, experts and groups."""
    fields, expected = WORDS[name]
    layout = layout_from_config(SIZES | fields)
    assert {field: getattr(layout, field) for field in expected} == expected


@pytest.mark.parametrize("type_of", ["told", "unknown"])
def test_an_unknown_type_that_the_rules_understand_has_a_note(type_of: str) -> None:
    """Fields of a known kind are read whatever the model is called; without any, one width tells that all are alike."""
    fields = {"moe_layer_interval": 2} if type_of == "told" else {"intermediate_size": 64}
    layout = layout_from_config(SIZES | fields | {"model_type": "no_such_model"})
    assert layout.moe_layers == ((1, 3, 5) if type_of == "told" else tuple(range(6)))
    (note,) = layout.notes
    assert "'no_such_model' is not known to this version" in note
    assert "`moe_layers`" in note


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"intermediate_size": 64, "moe_intermediate_size": 16}, "unknown_model_type"),
        ({"num_experts_per_tok": None}, "unknown_model_type"),
        ({"num_experts": None}, "unknown_model_type"),
        ({"mlp_layer_types": ["sparse", "looped"] * 3}, "field_type"),
        ({"mlp_layer_types": ["sparse"] * 5}, "field_type"),
        ({"moe_layer_freq": [0, 1, 2, 0, 1, 1]}, "field_type"),
        ({"hybrid_override_pattern": "MEX"}, "field_type"),
        ({"num_experts": [16, 16, 8, 8, 8, 8]}, "layer_specific"),
        ({"per_layer_config": {"3": {"num_experts": 8}}}, "layer_specific"),
        ({"model_type": "exaone_moe", "first_last_k_dense_replace": 2}, "unknown_model_type"),
        ({"model_type": "mixtral", "moe_layers_pattern": "odd"}, "unknown_model_type"),
        ({"is_encoder_decoder": True, "decoder_sparse_step": 2}, "unknown_model_type"),
    ],
)
def test_what_is_not_understood_is_not_blamed_on_the_config(fields: dict[str, Any], code: str) -> None:
    """Words that this version doesn't know are called that, and how to say the layers by hand."""
    with pytest.raises(InputError) as error:
        layout_from_config(SIZES | {"model_type": "no_such_model"} | fields)
    assert {violation.code for violation in error.value.violations} == {code}
    for violation in error.value.violations:
        assert "This version doesn't know" in violation.detail
        assert "`moe_layers`" in violation.remedy
        assert "orrect" not in violation.remedy


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "doge", "is_moe": False},
        {"model_type": "gemma4_text"},
        {"model_type": "granitemoehybrid", "num_experts": 0},
        {
            "model_type": "jamba",
            "num_experts": 1,
            "num_experts_per_tok": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
    ],
)
def test_a_model_without_experts_is_called_that(fields: dict[str, Any]) -> None:
    """Fields for experts are there in dense models of some families too."""
    with pytest.raises(InputError, match="no_layers"):
        layout_from_config(SIZES | fields)


def test_the_language_model_is_found_in_its_nest() -> None:
    """Of several parts with experts the thinker's is read, and a note names the others."""
    text = {"model_type": "qwen3_omni_moe_text", "num_experts": 8, "num_experts_per_tok": 2, "decoder_sparse_step": 2}
    parts = {
        "talker_config": {"text_config": text | {"num_hidden_layers": 4, "num_experts": 99}},
        "thinker_config": {"vision_config": {"num_hidden_layers": 9}, "text_config": text | {"num_hidden_layers": 6}},
    }
    layout = layout_from_config({"model_type": "qwen3_omni_moe"} | parts, "c#")
    assert (layout.num_layers, layout.num_experts, layout.moe_layers) == (6, 8, (1, 3, 5))
    assert "c#/talker_config/text_config" in layout.notes[0]


ERNIE_VL = {
    "model_type": "ernie4_5_moe_vl",
    "num_hidden_layers": 28,
    "moe_num_experts": [64, 32],
    "moe_k": 6,
    "moe_layer_interval": 1,
    "moe_layer_start_index": [1, 3],
    "moe_layer_end_index": [29, 28],
    "moe_num_shared_experts": 2,
    "moe_intermediate_size": [1536, 512],
    "intermediate_size": 12288,
    "hidden_size": 2560,
}
MISTRAL_PARAMS = {
    "dim": 7168,
    "n_layers": 61,
    "hidden_dim": 16384,
    "moe": {
        "num_experts": 128,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 3,
        "num_shared_experts": 1,
        "expert_hidden_dim": 4096,
        "num_expert_groups": 4,
        "num_expert_groups_per_tok": 2,
        "route_every_n": 1,
    },
    "vision_encoder": {"hidden_size": 1664, "num_hidden_layers": 48},
    "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
}


def test_experts_of_text_and_of_pictures() -> None:
    """ERNIE-4.5-VL says its fields twice: those for text are read, and a note says what is left out."""
    layout = layout_from_config(ERNIE_VL)
    assert (layout.num_experts, layout.top_k, layout.num_shared_experts) == (64, 6, 2)
    assert layout.moe_layers == tuple(range(1, 28))
    assert layout.notes == (
        "Experts of /moe_num_experts/1 (pictures) were left out: a plan is for one model at a time.",
    )
    assert shape_from_config(ERNIE_VL).intermediate_size == 1536


def test_the_params_of_mistral() -> None:
    """``params.json`` has its experts in a part of their own, under names of its own."""
    layout = layout_from_config(MISTRAL_PARAMS)
    assert (layout.num_layers, layout.num_experts, layout.top_k) == (61, 128, 4)
    assert layout.moe_layers == tuple(range(3, 61))
    assert (layout.num_groups, layout.groups_per_token, layout.num_shared_experts) == (4, 2, 1)
    shape = shape_from_config(MISTRAL_PARAMS)
    assert (shape.hidden_size, shape.intermediate_size, shape.weight_dtype) == (7168, 4096, "fp8")
    mixtral = {"dim": 4096, "n_layers": 32, "hidden_dim": 14336, "moe": {"num_experts": 8, "num_experts_per_tok": 2}}
    layout = layout_from_config(mixtral)
    assert (layout.moe_layers, layout.num_experts, layout.top_k) == (tuple(range(32)), 8, 2)
    assert shape_from_config(mixtral).intermediate_size == 14336


# DeepSeek's own config for inference, and configs that engines' classes read.
MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DeepSeek-V3, as its own code runs it": (
        {
            "dim": 7168,
            "inter_dim": 18432,
            "moe_inter_dim": 2048,
            "n_layers": 61,
            "n_dense_layers": 3,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "n_activated_experts": 8,
            "n_expert_groups": 8,
            "n_limited_groups": 4,
        },
        {"moe_layers": tuple(range(3, 61)), "num_experts": 256, "top_k": 8, "num_groups": 8, "groups_per_token": 4},
    ),
    "ZAYA1: a list of attention and experts": (
        {
            "model_type": "zaya",
            "num_hidden_layers": 8,
            "zaya_layers": ["a", 16, "a", 16],
            "num_experts": 16,
            "moe_router_topk": 1,
        },
        {"num_layers": 4, "moe_layers": (1, 3), "num_experts": 16, "top_k": 1, "zero_experts": 1},
    ),
    "Nemotron-H after Puzzle": (
        {
            "model_type": "nemotron_h_puzzle",
            "block_configs": [{"block_type": "mamba"}, {"block_type": "moe", "n_routed_experts": 64}],
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
        },
        {"num_layers": 2, "moe_layers": (1,), "num_experts": 64, "top_k": 6},
    ),
    "HY-V4: its layer for prediction has experts": (
        SIZES | {"model_type": "hy_v4", "first_k_dense_replace": 1, "num_nextn_predict_layers": 1},
        {"moe_layers": (1, 2, 3, 4, 5), "mtp_layers": (6,), "notes": ()},
    ),
    "GLM-5-Next: the text's fields are said twice": (
        SIZES
        | {"model_type": "glm5_next", "first_k_dense_replace": 3}
        | {"text_config": SIZES | {"model_type": "glm5_next_text", "first_k_dense_replace": 3}},
        {"moe_layers": (3, 4, 5), "notes": ()},
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_configs_that_engines_read(name: str) -> None:
    """Configs outside transformers, as SGLang's classes or the model's own code read them."""
    content, expected = MORE[name]
    layout = layout_from_config(content)
    assert {field: getattr(layout, field) for field in expected} == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"zaya_layers": ["a", 16, "a", 8]},
        {"block_configs": [{"block_type": "moe", "num_experts": 16}, {"block_type": "moe", "num_experts": 8}]},
    ],
)
def test_blocks_that_differ_in_experts_are_refused(changes: dict[str, Any]) -> None:
    """One number of experts for all would be wrong in some of them."""
    with pytest.raises(InputError) as caught:
        layout_from_config({"model_type": "zaya"} | SIZES | changes)
    assert {violation.code for violation in caught.value.violations} == {"layer_specific"}


def test_a_dense_network_beside_the_experts() -> None:
    """Grok-2 has both in every layer, which explains the two widths; without the word for it, it is refused."""
    grok = SIZES | {"model_type": "git", "intermediate_size": 32768, "moe_intermediate_size": 16384}
    assert layout_from_config(grok | {"residual_moe": True}).moe_layers == tuple(range(SIZES["num_hidden_layers"]))
    with pytest.raises(InputError, match="a width for dense layers and one for experts"):
        layout_from_config(grok)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_gives_the_layout(name: str) -> None:
    """The config of a published model gives its MoE layers, experts, groups and MTP layer."""
    content, expected = CONFIGS[name]
    layout = layout_from_config(content)
    assert {field: getattr(layout, field) for field in expected} == expected


def test_unknown_family_is_refused() -> None:
    """No rule is guessed for a model type that is not known."""
    with pytest.raises(InputError) as caught:
        layout_from_config({"model_type": "llama", "num_hidden_layers": 32, "num_experts": 8})
    assert caught.value.violations[0].code == "unknown_model_type"


def test_what_the_code_adds_is_told() -> None:
    """Where a config names no layers, the default of the family's code counts, and a note says so."""
    layout = layout_from_config(CONFIGS["DeepSeek-V3"][0] | {"first_k_dense_replace": None})
    assert layout.moe_layers[0] == 3
    assert "deepseek_v3 has 3 before its first MoE layer" in layout.notes[0]
    assert "2 experts, whatever" in layout_from_config(SIZES | {"model_type": "phimoe"}).notes[0]


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"num_hidden_layers": None, "n_routed_experts": None}, {"missing_field"}),
        ({"num_experts_per_tok": 300}, {"top_k_range"}),
        ({"num_experts_per_tok": "8"}, {"field_type"}),
        ({"num_local_experts": 128}, {"fields_differ"}),
        ({"n_group": 7}, {"num_groups"}),
        ({"n_group": 64, "topk_group": 1}, {"num_groups"}),
        ({"topk_group": 9}, {"num_groups"}),
        ({"first_k_dense_replace": 61, "num_nextn_predict_layers": 0}, {"no_layers"}),
        ({"mlp_layer_types": ["dense"] * 60 + [[]]}, {"field_type"}),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], codes: set[str]) -> None:
    """Fields that are missing, contradict each other or can't be are named."""
    with pytest.raises(InputError) as caught:
        layout_from_config(CONFIGS["DeepSeek-V3"][0] | changes, "config.json#")
    assert {violation.code for violation in caught.value.violations} == codes
    assert all(violation.pointer.startswith("config.json#/") for violation in caught.value.violations)


def test_mtp_of_other_families_is_left_out_with_a_note() -> None:
    """Where it is not known whether MTP layers have experts, they are left out, and a note says so."""
    layout = layout_from_config(CONFIGS["OLMoE-1B-7B"][0] | {"num_nextn_predict_layers": 2})
    assert layout.mtp_layers == ()
    assert "multi-token prediction" in layout.notes[0]


@given(st.data())
def test_any_config_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands in a config, the answer is a layout or an InputError."""
    junk: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers(-2, 70) | st.floats() | st.text(max_size=3) | st.just([1]) | st.just({})
    )
    content: dict[str, Any] = dict(CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))][0])
    content["model_type"] = data.draw(st.sampled_from(sorted(FAMILIES)) | junk)
    for name in data.draw(st.lists(st.sampled_from(sorted(content)), max_size=3)):
        content[name] = data.draw(junk)
    try:
        layout = layout_from_config(content)
    except InputError:
        return
    assert layout.all_moe_layers
    assert set(layout.moe_layers) | set(layout.dense_layers) == set(range(layout.num_layers))


def test_config_file(tmp_path: Path) -> None:
    """A config.json is read; what is no JSON is refused with the file's name."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIGS["GLM-4.5"][0]))
    assert load_model_config(file).name == "glm4_moe"
    file.write_text("{")
    with pytest.raises(InputError, match=r"config\.json"):
        load_model_config(file)


def test_rows_and_ordinals() -> None:
    """Rows are the decoder's layers with or without MTP; ordinals count MoE layers only."""
    layout = ModelLayout.of(6, first_moe_layer=2, num_mtp_layers=1)
    assert layout.of_rows(6, "f").tolist() == [2, 3, 4, 5]
    assert layout.of_rows(7, "f").tolist() == [2, 3, 4, 5, 6]
    assert layout.of_ordinals(4, "f").tolist() == [2, 3, 4, 5]
    assert layout.of_ordinals(5, "f").tolist() == [2, 3, 4, 5, 6]
    assert layout.dense_layers == (0, 1)
    for wrong in (layout.of_rows, layout.of_ordinals):
        with pytest.raises(InputError, match="layer_count"):
            wrong(3, "f")


@pytest.mark.parametrize(
    "fields",
    [
        {"num_layers": 0, "moe_layers": (0,)},
        {"num_layers": 4, "moe_layers": ()},
        {"num_layers": 4, "moe_layers": (2, 1)},
        {"num_layers": 4, "moe_layers": (4,)},
        {"num_layers": 4, "moe_layers": (1,), "mtp_layers": (3,)},
        {"num_layers": 4, "moe_layers": (1,), "num_experts": 0},
        {"num_layers": 4, "moe_layers": (1,), "num_experts": 4, "top_k": 5},
    ],
)
def test_impossible_layouts_are_refused(fields: dict[str, Any]) -> None:
    """A layout whose layers or experts can't be is refused."""
    with pytest.raises(InputError):
        ModelLayout(**fields)


def test_model_names_the_layers_of_a_trace(tmp_path: Path) -> None:
    """With a model, a trace of its MoE layers gets their absolute numbers and the number of experts."""
    np.savez(tmp_path / "trace.npz", topk_ids=np.array([[[0, 1]] * 4, [[2, 1]] * 4]))
    layout = ModelLayout.of(6, first_moe_layer=2, num_experts=8)
    trace = traces.load(tmp_path / "trace.npz", model=layout)
    assert trace.layer_ids.tolist() == [2, 3, 4, 5]
    assert trace.num_experts == 8
    with pytest.raises(InputError, match="layer_count"):
        traces.load(tmp_path / "trace.npz", model=ModelLayout.of(6, num_experts=8))
    with pytest.raises(InputError, match="num_experts_differ"):
        traces.load(tmp_path / "trace.npz", model=layout, num_experts=9)


def test_model_must_know_the_layers_of_a_trace(tmp_path: Path) -> None:
    """Layers that a file states must be MoE layers of the model."""
    np.savez(tmp_path / "trace.npz", topk_ids=np.array([[[0, 1]] * 2]), layer_ids=np.array([0, 3]))
    with pytest.raises(InputError, match="layer_ids_differ"):
        traces.load(tmp_path / "trace.npz", model=ModelLayout.of(6, first_moe_layer=2, num_experts=8))


def test_a_config_that_says_two_things_is_refused() -> None:
    """A number that the outer config and the part for the language model give differently is named in both places."""
    inner = {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 48,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
    }
    for field, other in (("num_hidden_layers", 24), ("num_experts", 64), ("num_experts_per_tok", 4)):
        with pytest.raises(InputError, match="fields_differ") as caught:
            layout_from_config(inner | {field: other, "text_config": inner}, "c#")
        (violation,) = caught.value.violations
        assert violation.pointer == f"c#/text_config/{field}"
        assert f"c#/{field}" in violation.detail
    assert layout_from_config(inner | {"text_config": inner}).num_layers == 48


def test_layers_that_a_trace_lacks_are_told(tmp_path: Path) -> None:
    """A trace of some of the model's MoE layers has a note that names both and what to do; a whole one has none."""
    ids = np.random.default_rng(0).permuted(np.tile(np.arange(8), (16, 4, 1)), axis=2)[:, :, :2]
    np.savez(tmp_path / "t.npz", topk_ids=ids, num_experts=8, layer_ids=[2, 3, 4, 5])
    part = traces.load(tmp_path / "t.npz", model=ModelLayout.of(6, num_experts=8, num_mtp_layers=1)).provenance.notes
    (note,) = [note for note in part if "missing" in note]
    assert "4 layers, the model 6 with experts: [0, 1] are missing" in note
    assert "`first_moe_layer`" in note
    whole = ModelLayout.of(6, first_moe_layer=2, num_experts=8, num_mtp_layers=1)
    assert traces.load(tmp_path / "t.npz", model=whole).provenance.notes == ()


@pytest.mark.parametrize(
    "told",
    [
        {"dense_layers": [1]},
        {"moe_layer_indices": [1, 3, 5]},
        {"moe_every_n_layers": 2},
        {"moe_layers_pattern": "DM"},
        {"moe_start_layer": 2},
        {"moe_layer_freq": 2},
    ],
    ids=lambda told: str(next(iter(told))),
)
def test_what_may_tell_the_layers_of_an_unknown_model_is_not_passed_over(told: dict[str, Any]) -> None:
    """No rule reads the field, so it is not known that every layer has experts; said by hand, it is."""
    content = {"model_type": "newmoe", "num_hidden_layers": 6, "num_experts": 8, "num_experts_per_tok": 2} | told
    with pytest.raises(InputError) as error:
        layout_from_config(content)
    (violation,) = error.value.violations
    assert (violation.code, violation.pointer) == ("unknown_model_type", f"/{next(iter(told))}")
    assert "This version doesn't know" in violation.detail


def test_switches_and_widths_of_an_unknown_model_tell_no_layers() -> None:
    """A flag, a norm or a frequency of 1 leaves every layer with experts."""
    told = {"moe_layer_freq": 1, "use_moe_block_bias": True, "expert_layer_norm_eps": 1e-6, "dense_layers": []}
    content = {"model_type": "newmoe", "num_hidden_layers": 6, "num_experts": 8, "num_experts_per_tok": 2} | told
    assert layout_from_config(content).moe_layers == tuple(range(6))


def test_a_config_without_a_model_type_is_told_as_that() -> None:
    """It is read by the rules like any unknown type, and no message names an empty one."""
    fields = {"num_hidden_layers": 4, "num_experts": 8, "num_experts_per_tok": 2}
    (note, *_) = layout_from_config(fields).notes
    assert note.startswith("The config has no model_type; its config names no dense layer")
    with pytest.raises(InputError, match="has no model_type, and no n_routed_experts") as caught:
        layout_from_config({"num_hidden_layers": 4})
    assert "''" not in str(caught.value)
    with pytest.raises(InputError, match="a config without model_type"):
        layout_from_config(fields | {"moe_layer_pattern": "ab"})
