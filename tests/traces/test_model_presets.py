"""Models by name, and the sizes that time needs of a config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traces import InputError
from traces.model.presets import layout_of, load_model, preset_names
from traces.model.shape import shape_from_config

# Billions of weights in the routed experts, from the models' own cards: all of the weights but attention and the like.
ROUTED = {
    "deepseek-v3": 654,
    "deepseek-v4-pro": 1547,
    "deepseek-v2-lite": 14.4,
    "qwen3-235b-a22b": 227,
    "qwen3-30b-a3b": 29,
    "gpt-oss-20b": 19.1,
    "gpt-oss-120b": 114.7,
    "kimi-k2": 1015,
    "kimi-k3": 2723,
    "glm-4.5": 336,
    "glm-5": 725,
    "mixtral-8x7b": 45.1,
    "llama-4-maverick": 386.5,
    "olmoe": 6.4,
}


def test_every_preset_says_where_it_is_from() -> None:
    """The presets are those of the list, each with its source."""
    assert set(preset_names()) == set(ROUTED)
    assert all("config.json of " in load_model(name).source for name in preset_names())


@pytest.mark.parametrize("name", ROUTED)
def test_preset_has_the_weights_of_its_model(name: str) -> None:
    """Layers, experts and widths multiply to the published size."""
    model = load_model(name)
    weights = len(model.layout.moe_layers) * model.shape.num_experts * model.shape.expert_weights / 1e9
    assert weights == pytest.approx(ROUTED[name], rel=0.01)


def test_unknown_name_is_refused_with_a_guess() -> None:
    """A slip of the pen gets the name that was meant."""
    with pytest.raises(InputError, match=r"Did you mean deepseek-v3\?"):
        load_model("deepseek-v33")


def test_config_goes_before_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is read even if a preset has the same name."""
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "mixtral", "num_hidden_layers": 2, "num_local_experts": 8, "num_experts_per_tok": 2}
    Path("olmoe").write_text(json.dumps(config | {"hidden_size": 64, "intermediate_size": 32}), encoding="utf-8")
    model = load_model("olmoe")
    assert (model.shape.hidden_size, model.shape.intermediate_size, model.shape.weight_dtype) == (64, 32, "bfloat16")


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        (None, "bfloat16"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}, "mxfp4"),
    ],
)
def test_how_experts_are_stored(quantization: object, dtype: str) -> None:
    """The config's quantization says how many bytes an expert has."""
    config = {"model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 2, "hidden_size": 64}
    shape = shape_from_config(config | {"intermediate_size": 32, "quantization_config": quantization})
    assert shape.weight_dtype == dtype


def test_missing_sizes_are_all_named() -> None:
    """A config without sizes is refused with each of them."""
    with pytest.raises(InputError) as error:
        shape_from_config({"model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 2}, "c.json#")
    assert {violation.pointer for violation in error.value.violations} == {
        "c.json#/hidden_size",
        "c.json#/moe_intermediate_size",
    }


def test_unknown_quantization_is_refused() -> None:
    """What is not known is not taken for 16 bits."""
    config = {"model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 2, "hidden_size": 64}
    with pytest.raises(InputError, match="aqlm"):
        shape_from_config(config | {"intermediate_size": 32, "quantization_config": {"quant_method": "aqlm"}})


def test_a_name_goes_where_a_config_does() -> None:
    """Traces and placement files take the layers of a model by its name."""
    assert layout_of("deepseek-v3").moe_layers == tuple(range(3, 61))
    with pytest.raises(InputError, match=r"none\.json"):
        layout_of("none.json")


def test_experts_of_another_type_than_the_rest() -> None:
    """DeepSeek-V4 quantizes its experts in 4 bits and all else in 8; its attention is of low rank on both sides."""
    shape = load_model("deepseek-v4-pro").shape
    assert (shape.weight_dtype, shape.top_k, shape.intermediate_size) == ("mxfp4", 6, 3072)
    assert shape.attention_weights == pytest.approx(0.31e9, rel=0.05)
