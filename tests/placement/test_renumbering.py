"""Checkpoints are renumbered by a plan: what is indexed by expert moves, and what isn't understood is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

import placement
from placement import Plan
from placement.checkpoint.changes import changes_of
from traces import InputError

EXPERTS, WIDTH = 4, 3
ORDERS = {1: [2, 0, 3, 1], 2: [1, 2, 3, 0]}
Tensors = dict[str, npt.NDArray[Any]]


def config(**fields: Any) -> dict[str, Any]:
    """Return a config of one dense layer and two of four experts."""
    usual = {
        "model_type": "deepseek_v3",
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "n_routed_experts": EXPERTS,
    }
    return usual | {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1} | fields


def listed() -> Tensors:
    """Return tensors of listed experts, with a bias beside the gate, shared experts, and others of the same sizes."""
    rng = np.random.default_rng(0)
    tensors: Tensors = {"model.embed_tokens.weight": rng.random((8, WIDTH), np.float32)}
    tensors["model.layers.0.mlp.gate_proj.weight"] = rng.random((EXPERTS, WIDTH), np.float32)
    for layer in ORDERS:
        block = f"model.layers.{layer}.mlp"
        for expert in range(EXPERTS):
            for name in ("gate_proj", "up_proj", "down_proj"):
                tensors[f"{block}.experts.{expert}.{name}.weight"] = rng.random((2, WIDTH), np.float32)
                tensors[f"{block}.experts.{expert}.{name}.weight_scale_inv"] = rng.random((1, 1), np.float32)
        tensors[f"{block}.gate.weight"] = rng.random((EXPERTS, WIDTH), np.float32)
        tensors[f"{block}.gate.e_score_correction_bias"] = rng.random(EXPERTS, np.float32)
        tensors[f"{block}.shared_experts.up_proj.weight"] = rng.random((EXPERTS, WIDTH), np.float32)
        tensors[f"model.layers.{layer}.self_attn.q_norm.weight"] = rng.random(EXPERTS, np.float32)
    return tensors


def saved(folder: Path, tensors: Tensors, fields: dict[str, Any] | None = None, shards: int = 1) -> Path:
    """Write a checkpoint."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config() if fields is None else fields))
    (folder / "tokenizer.json").write_text("{}")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    parts: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        some = {key: value for number, (key, value) in enumerate(tensors.items()) if number % shards == shard}
        save_file(some, folder / name)
        parts |= dict.fromkeys(some, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    return folder


def read(folder: Path) -> Tensors:
    """Return all tensors of a checkpoint."""
    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def plan(orders: dict[int, list[int]] = ORDERS) -> Plan:
    """Return a plan on two GPUs."""
    return Plan.of(list(orders.values()), layer_ids=list(orders), num_experts=EXPERTS, gpus_per_node=(2,))


def check_listed(before: Tensors, after: Tensors) -> None:
    """Check every tensor of a checkpoint of listed experts."""
    assert set(after) == set(before)
    for key, value in before.items():
        layer = int(key.split(".")[2]) if ".layers." in key else 0
        if ".mlp.experts." in key:
            number, tail = key.split(".experts.")[1].split(".", 1)
            new = f"{key.split('.experts.')[0]}.experts.{ORDERS[layer].index(int(number))}.{tail}"
            np.testing.assert_array_equal(after[new], value, err_msg=key)
        elif ".gate." in key:
            np.testing.assert_array_equal(after[key], value[ORDERS[layer]], err_msg=key)
        else:
            np.testing.assert_array_equal(after[key], value, err_msg=key)


@pytest.mark.parametrize("shards", [1, 3])
def test_listed_experts_move_with_the_gate(tmp_path: Path, shards: int) -> None:
    """Names, router rows and selection biases move; shared experts, attention, dense layers and other files stay."""
    source = saved(tmp_path / "source", listed(), shards=shards)
    done = placement.renumber(plan(), source, tmp_path / "target")
    check_listed(listed(), read(tmp_path / "target"))
    assert (done.layers, done.num_experts, done.moved, done.difference) == (2, EXPERTS, 4, None)
    assert done.renamed == 2 * EXPERTS * 6
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in (tmp_path / "target").iterdir()} == names | {"expert_order.json"}
    order = json.loads((tmp_path / "target" / "expert_order.json").read_text())["decoder"]
    assert order == {str(layer): row for layer, row in ORDERS.items()}


def test_it_can_be_undone(tmp_path: Path) -> None:
    """The inverse plan gives the first checkpoint again, byte by byte but for the order of names."""
    source = saved(tmp_path / "source", listed(), shards=2)
    placement.renumber(plan(), source, tmp_path / "there")
    back = plan({layer: np.argsort(row).tolist() for layer, row in ORDERS.items()})
    done = placement.renumber(back, tmp_path / "there", tmp_path / "back")
    again = read(tmp_path / "back")
    assert all(np.array_equal(again[key], value) for key, value in listed().items())
    assert any("renumbered before" in note for note in done.notes)


def stacked(name: str, shape: tuple[int, ...], kind: str = "float32") -> tuple[str, npt.NDArray[Any]]:
    """Return one tensor of layer 0."""
    return name, np.arange(np.prod(shape)).reshape(shape).astype(kind)


STACKED: dict[str, tuple[dict[str, Any], list[tuple[str, tuple[int, ...]]], list[tuple[str, tuple[int, ...]]]]] = {
    "gpt_oss": (
        {"num_local_experts": EXPERTS},
        [
            ("model.layers.0.mlp.experts.gate_up_proj_blocks", (EXPERTS, 2, 3, 2)),
            ("model.layers.0.mlp.experts.gate_up_proj_scales", (EXPERTS, 2, 3)),
            ("model.layers.0.mlp.experts.down_proj_bias", (EXPERTS, 3)),
            ("model.layers.0.mlp.router.weight", (EXPERTS, 3)),
            ("model.layers.0.mlp.router.bias", (EXPERTS,)),
        ],
        [("model.layers.0.self_attn.sinks", (EXPERTS,))],
    ),
    "granitemoe": (
        {"num_local_experts": EXPERTS},
        [
            ("model.layers.0.block_sparse_moe.input_linear.weight", (EXPERTS, 4, 3)),
            ("model.layers.0.block_sparse_moe.output_linear.weight", (EXPERTS, 3, 2)),
            ("model.layers.0.block_sparse_moe.router.layer.weight", (EXPERTS, 3)),
        ],
        [("model.layers.0.shared_mlp.input_linear.weight", (EXPERTS, 3))],
    ),
    "gemma4_text": (
        {"num_experts": EXPERTS, "top_k_experts": 2, "enable_moe_block": True},
        [
            ("model.layers.0.experts.gate_up_proj", (EXPERTS, 4, 3)),
            ("model.layers.0.router.proj.weight", (EXPERTS, 3)),
            ("model.layers.0.router.per_expert_scale", (EXPERTS,)),
        ],
        [("model.layers.0.router.scale", (EXPERTS,)), ("model.layers.0.mlp.up_proj.weight", (EXPERTS, 3))],
    ),
    "ernie4_5_moe": (
        {"moe_num_experts": EXPERTS, "moe_k": 2},
        [
            ("model.layers.0.mlp.experts.down_proj", (EXPERTS, 4, 3)),
            ("model.layers.0.mlp.gate.weight", (EXPERTS, 3)),
        ],
        [],
    ),
}


@pytest.mark.parametrize("family", STACKED)
def test_stacked_experts_move_along_their_first_axis(family: str, tmp_path: Path) -> None:
    """So do routers, biases and scales; what only has as many entries stays."""
    fields, moves, stays = STACKED[family]
    tensors = dict(stacked(*one) for one in moves + stays)
    content = {"model_type": family, "num_hidden_layers": 1, "num_experts_per_tok": 2} | fields
    source = saved(tmp_path / "source", tensors, content)
    placement.renumber(plan({0: [3, 1, 0, 2]}), source, tmp_path / "target")
    after = read(tmp_path / "target")
    for name, _ in moves:
        np.testing.assert_array_equal(after[name], tensors[name][[3, 1, 0, 2]], err_msg=name)
    for name, _ in stays:
        np.testing.assert_array_equal(after[name], tensors[name], err_msg=name)


def test_a_bias_may_have_a_leading_axis_of_one(tmp_path: Path) -> None:
    """ERNIE 4.5 keeps it as (1, E)."""
    fields, moves, _ = STACKED["ernie4_5_moe"]
    tensors = dict(stacked(*one) for one in moves)
    name = "model.layers.0.mlp.moe_statics.e_score_correction_bias"
    tensors[name] = np.array([[1.0, 2.0, 3.0, 4.0]], dtype=np.float32)
    content = {"model_type": "ernie4_5_moe", "num_hidden_layers": 1} | fields
    source = saved(tmp_path / "source", tensors, content)
    placement.renumber(plan({0: [3, 1, 0, 2]}), source, tmp_path / "target")
    assert read(tmp_path / "target")[name].tolist() == [[4.0, 2.0, 1.0, 3.0]]


def test_fused_experts_move_in_blocks_of_rows(tmp_path: Path) -> None:
    """DBRX keeps all experts of a layer in one matrix (E * ffn, d)."""
    block = "transformer.blocks.0.ffn"
    sizes = {f"{block}.experts.mlp.w1": (EXPERTS * 2, 3), f"{block}.router.layer.weight": (EXPERTS, 3)}
    tensors = dict(stacked(name, shape) for name, shape in sizes.items())
    content = {"model_type": "dbrx", "n_layers": 1, "ffn_config": {"moe_num_experts": EXPERTS, "moe_top_k": 2}}
    source = saved(tmp_path / "source", tensors, content)
    placement.renumber(plan({0: [3, 1, 0, 2]}), source, tmp_path / "target")
    fused = read(tmp_path / "target")["transformer.blocks.0.ffn.experts.mlp.w1"]
    assert fused[:, 0].tolist() == [18.0, 21.0, 6.0, 9.0, 0.0, 3.0, 12.0, 15.0]


def test_choices_behind_the_experts_stay(tmp_path: Path) -> None:
    """Zero-computation experts are rows of the router behind those of the experts."""
    tensors = dict(
        [stacked(f"model.layers.0.mlp.experts.{e}.up_proj.weight", (2, 3)) for e in range(EXPERTS)]
        + [stacked("model.layers.0.mlp.router.classifier.weight", (EXPERTS + 2, 1))]
    )
    content = {"model_type": "longcat_flash", "num_layers": 1, "n_routed_experts": EXPERTS, "moe_topk": 2}
    source = saved(tmp_path / "source", tensors, content | {"zero_expert_num": 2})
    placement.renumber(plan({0: [3, 1, 0, 2]}), source, tmp_path / "target")
    rows = read(tmp_path / "target")["model.layers.0.mlp.router.classifier.weight"]
    assert rows[:, 0].tolist() == [3.0, 1.0, 0.0, 2.0, 4.0, 5.0]


def test_a_table_from_tokens_to_experts_gets_new_values(tmp_path: Path) -> None:
    """DeepSeek-V4's hash layers: the expert of each token id, by its new number."""
    tensors = dict(
        [stacked(f"layers.0.ffn.experts.{e}.w1.weight", (2, 3)) for e in range(EXPERTS)]
        + [stacked("layers.0.ffn.gate.weight", (EXPERTS, 3))]
    )
    tensors["layers.0.ffn.gate.tid2eid"] = np.array([[0, 1], [2, 3], [3, 0]])
    content = {"model_type": "deepseek_v4", "num_hidden_layers": 1, "n_routed_experts": EXPERTS}
    content |= {"num_experts_per_tok": 2, "mlp_layer_types": ["hash_moe"]}
    source = saved(tmp_path / "source", tensors, content)
    placement.renumber(plan({0: [3, 1, 0, 2]}), source, tmp_path / "target")
    assert read(tmp_path / "target")["layers.0.ffn.gate.tid2eid"].tolist() == [[2, 1], [3, 0], [0, 2]]
    tensors["layers.0.ffn.gate.tid2eid"][1, 1] = EXPERTS
    wrong = saved(tmp_path / "wrong", tensors, content)
    with pytest.raises(InputError, match="expert_out_of_range"):
        placement.renumber(plan({0: [3, 1, 0, 2]}), wrong, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def refused(tmp_path: Path, **given: Any) -> list[str]:
    """Return the codes of a refusal, which leaves nothing behind."""
    target = given.get("target", tmp_path / "target")
    source = given["source"] if "source" in given else saved(tmp_path / "source", given.get("tensors", listed()))
    there = sorted(tmp_path.iterdir())
    with pytest.raises(InputError) as error:
        placement.renumber(given.get("plan", plan()), source, target)
    assert sorted(tmp_path.iterdir()) == there
    return [violation.code for violation in error.value.violations]


UNKNOWN = {
    "another axis": ("model.layers.1.mlp.gate.other", (WIDTH, EXPERTS)),
    "no axis of experts": ("model.layers.2.mlp.temperature", (7,)),
    "beside the block": ("model.layers.1.expert_temperature", (EXPERTS,)),
    "for all layers": ("model.expert_loads", (2, EXPERTS)),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_no_rule_explains_is_refused(case: str, tmp_path: Path) -> None:
    """It is named, not copied."""
    name, value = stacked(*UNKNOWN[case])
    source = saved(tmp_path / "source", listed() | {name: value})
    assert refused(tmp_path, source=source) == ["tensor_unknown"]
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        placement.renumber(plan(), source, tmp_path / "target")


def without(tensors: Tensors, part: str) -> Tensors:
    """Return the tensors without those whose name has a part."""
    return {key: value for key, value in tensors.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda tensors: without(tensors, "layers.1.mlp.experts.3.up_proj.weight"), "experts_differ"),
        (lambda tensors: without(tensors, "layers.1.mlp.gate"), "no_router"),
        (lambda tensors: without(tensors, ".experts."), "no_experts"),
        (lambda tensors: without(tensors, "layers.2.mlp.experts"), "layer_absent"),
        (lambda tensors: tensors | {"encoder.layers.0.mlp.experts.0.w": np.ones(2)}, "several_stacks"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(
    change: Callable[[Tensors], Tensors], code: str, tmp_path: Path
) -> None:
    """Experts, routers or layers are missing, or there are too many."""
    assert code in refused(tmp_path, tensors=change(listed()))


def test_plans_that_are_no_order_are_refused_with_everything(tmp_path: Path) -> None:
    """Replicas, layers of another model, and an output that exists, at once."""
    wide = Plan.of([[0, 1, 2, 3, 0, 1]] * 2, layer_ids=[0, 1], num_experts=EXPERTS, gpus_per_node=(2,))
    target = tmp_path / "there"
    target.mkdir()
    codes = refused(tmp_path, plan=wide, target=target)
    assert set(codes) == {"output_exists", "replicas", "layer_unknown", "layer_missing"}
    assert refused(tmp_path, source=tmp_path / "source", plan=plan({1: [0, 1, 2, 3]})) == ["layer_missing"]


def test_other_numbers_of_experts_are_refused(tmp_path: Path) -> None:
    """The plan is another model's."""
    other = Plan.of([[0, 1]] * 2, layer_ids=[1, 2], num_experts=2, gpus_per_node=(2,))
    assert "num_experts_differ" in refused(tmp_path, plan=other)


def test_orders_that_mix_groups_are_refused(tmp_path: Path) -> None:
    """A router that limits tokens to groups of consecutive experts would choose others."""
    source = saved(tmp_path / "source", listed(), config(n_group=2, topk_group=1))
    assert refused(tmp_path, source=source) == ["groups_mixed", "groups_mixed"]
    placement.renumber(plan({1: [3, 2, 0, 1], 2: [1, 0, 3, 2]}), source, tmp_path / "target")


def test_pickled_weights_are_refused_by_name(tmp_path: Path) -> None:
    """The remedy says how they are converted; beside safetensors they are left out."""
    source = saved(tmp_path / "source", listed())
    (source / "pytorch_model.bin").write_bytes(b"\x80")
    done = placement.renumber(plan(), source, tmp_path / "target")
    assert any("pytorch_model.bin" in note for note in done.notes)
    assert not (tmp_path / "target" / "pytorch_model.bin").exists()
    (source / "model.safetensors").unlink()
    assert refused(tmp_path, source=source, target=tmp_path / "none") == ["pickled_checkpoint"]


def test_damaged_and_missing_shards_are_told_together(tmp_path: Path) -> None:
    """A shard that is cut off; then one that is missing, and one that the index does not list."""
    source = saved(tmp_path / "source", listed(), shards=3)
    shards = sorted(source.glob("*.safetensors"))
    for shard in shards[:2]:
        shard.write_bytes(shard.read_bytes()[:-3])
    assert refused(tmp_path, source=source) == ["damaged_file", "damaged_file"]
    shards[0].unlink()
    assert refused(tmp_path, source=source) == ["shard_missing"]


def test_a_config_that_names_single_experts_is_refused(tmp_path: Path) -> None:
    """Such as modules that are not quantised."""
    fields = config(quantization_config={"ignore": ["lm_head", "model.layers.1.mlp.experts.3.down_proj"]})
    source = saved(tmp_path / "source", listed(), fields)
    assert refused(tmp_path, source=source) == ["expert_named"]


def test_model_types_that_were_not_tried_need_a_proof(tmp_path: Path) -> None:
    """Without one they are refused, though their names look like those of others."""
    source = saved(tmp_path / "source", listed(), config(model_type="newer_moe"))
    assert refused(tmp_path, source=source) == ["model_type_not_tried"]


def test_layers_for_multi_token_prediction_may_be_left_out(tmp_path: Path) -> None:
    """They are renumbered with the plan's, or stay, with a note."""
    tensors = listed()
    tensors |= {key.replace("layers.2.", "layers.3."): value for key, value in tensors.items() if "layers.2." in key}
    source = saved(tmp_path / "source", tensors, config(num_nextn_predict_layers=1))
    done = placement.renumber(plan(), source, tmp_path / "left")
    assert any("multi-token" in note for note in done.notes)
    name = "model.layers.3.mlp.gate.weight"
    np.testing.assert_array_equal(read(tmp_path / "left")[name], tensors[name])
    placement.renumber(plan(ORDERS | {3: [3, 2, 1, 0]}), source, tmp_path / "all")
    np.testing.assert_array_equal(read(tmp_path / "all")[name], tensors[name][::-1])


def tiny(kind: str, **fields: Any) -> Any:
    """Return a small model of transformers whose selection biases matter."""
    torch: Any = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
    transformers: Any = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "head_dim": 8}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": EXPERTS}
    sizes |= {"num_experts_per_tok": 2}
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes | fields)).eval()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if "expert" in name or "correction_bias" in name:
            value.data.normal_(0, 0.5)
    return model


@pytest.mark.parametrize("kind", ["MiniMaxM2", "GptOss"])
def test_the_model_computes_the_same(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof says so; and it notices a tensor that was forgotten."""
    tiny(kind).save_pretrained(tmp_path / "source")
    both = plan({0: ORDERS[1], 1: ORDERS[2]})
    done = placement.renumber(both, tmp_path / "source", tmp_path / "target", prove=True)
    assert done.difference is not None
    assert done.difference < 1e-5

    def forgetful(*given: Any) -> dict[str, Any]:
        changes = changes_of(*given)
        return {name: change for name, change in changes.items() if not name.endswith("bias")}

    monkeypatch.setattr("placement.checkpoint.renumber.changes_of", forgetful)
    with pytest.raises(InputError, match="model_changed"):
        placement.renumber(both, tmp_path / "source", tmp_path / "wrong", prove=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.parametrize("rows", [{"0": [0, 1, 2, 3]}, {"1": [0, 1, 2, 3], "5": [0, 1, 2, 3]}])
def test_no_message_names_an_option_of_reading(tmp_path: Path, rows: dict[str, list[int]]) -> None:
    """What the layers are is said by the checkpoint: a remedy is to check the plan."""
    (tmp_path / "plan.yaml").write_text(
        json.dumps({"num_slots": 4, "initial_global_assignments": rows, "layer_updates_per_iter": 0}).replace('"', "")
    )
    folder = saved(tmp_path / "model", listed())
    with pytest.raises(InputError) as caught:
        placement.renumber(tmp_path / "plan.yaml", folder, tmp_path / "out")
    for one in caught.value.violations:
        assert "`" not in one.remedy
        assert not one.pointer.startswith(("/layer_ids", "/model"))
    plan = Plan.of([[0, 1, 2, 3]], layer_ids=[7], num_experts=4, gpus_per_node=(2,))
    with pytest.raises(InputError) as caught:
        placement.renumber(plan, folder, tmp_path / "out")
    assert {one.pointer for one in caught.value.violations} == {"/plan/layer_ids"}
