"""Placement files of each engine: golden files written out by hand, and what each of them refuses."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Plan, load_topology
from placement.engines import ENGINES, engine_of_export
from placement.exports import Context, Document, convert_placement, export_named, load_placement
from traces import InputError, ModelLayout
from traces.model.config import layout_from_config, load_model_config

# A model of five layers: 0 and 1 dense, 2 to 4 with three experts, 5 for multi-token prediction. Two GPUs of two slots.
MODEL = ModelLayout.of(5, first_moe_layer=2, num_mtp_layers=1, num_experts=3)
TABLE = [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2], [0, 2, 1, 0]]
PLAN = Plan(
    physical_to_logical_map=np.array(TABLE),
    layer_ids=np.array([2, 3, 4, 5]),
    num_experts=3,
    num_gpus=2,
    slots_per_gpu=2,
    gpus_per_node=(2,),
)
SINGLE = Plan(
    physical_to_logical_map=np.array([[3, 0, 1, 2]] * 3),
    layer_ids=np.array([2, 3, 4]),
    num_experts=4,
    num_gpus=2,
    slots_per_gpu=2,
    gpus_per_node=(2,),
)
SINGLE_MODEL = ModelLayout.of(5, first_moe_layer=2, num_experts=4)
CONTEXT = Context(model=MODEL, gpus_per_node=(2,), without_mtp=True)
SINGLE_CONTEXT = Context(model=SINGLE_MODEL, gpus_per_node=(2,))


def written(name: str, plan: Plan = PLAN, context: Context = CONTEXT) -> bytes:
    """Return the file of a format."""
    return export_named(name).write(plan, context).content


def found(name: str, content: Any, context: Context = CONTEXT) -> set[tuple[str, str]]:
    """Return code and pointer of what is wrong with a file's content; anything but bytes is written as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    violations, _ = export_named(name).check(Document("f", data), context)
    return {(item.code, item.pointer) for item in violations.found}


def test_sglang() -> None:
    """SGLang: one key, a row for each of the five layers, dense ones filled with slot number modulo experts."""
    filler = [0, 1, 2, 0]
    assert json.loads(written("sglang")) == {"physical_to_logical_map": [filler, filler, *TABLE[:3]]}


def test_trtllm() -> None:
    """TensorRT-LLM: three keys, layers by their number, the MTP layer with them."""
    text = """num_slots: 4
initial_global_assignments:
  2: [0, 1, 2, 0]
  3: [1, 2, 0, 1]
  4: [2, 0, 1, 2]
  5: [0, 2, 1, 0]
layer_updates_per_iter: 0
"""
    assert written("trtllm", context=replace(CONTEXT, without_mtp=False)).decode() == text
    assert written("trtllm").decode() == text.replace("  5: [0, 2, 1, 0]\n", "")


def test_vllm_pr41141_is_the_published_example() -> None:
    """The example of the pull request, byte for byte: one line, keys as texts, MoE layers from 0."""
    two = ModelLayout.of(2, num_experts=3)
    plan = PLAN.replacing(physical_to_logical_map=np.array(TABLE[:2]), layer_ids=np.array([0, 1]))
    assert written("vllm_pr41141", plan, Context(model=two)) == (
        b'{"record_type":"eplb_initial_mapping","version":1,"num_redundant_experts":1,"num_slots":4,'
        b'"initial_global_assignments":{"0":[0,1,2,0],"1":[1,2,0,1]}}\n'
    )


def test_vllm_pr49572() -> None:
    """A list per MoE layer; a single list stands for all of them when read."""
    assert json.loads(written("vllm_pr49572")) == TABLE[:3]
    shared = export_named("vllm_pr49572").read(Document("f", b"[0, 1, 2, 0]"), CONTEXT)
    assert shared.layer_ids.tolist() == [2, 3, 4]
    assert shared.physical_to_logical_map.tolist() == [[0, 1, 2, 0]] * 3


def test_vllm_pr53022() -> None:
    """A row for every layer of the model and those for multi-token prediction, which the engine counts in any case."""
    filler = [0, 1, 2, 0]
    whole = replace(CONTEXT, without_mtp=False)
    assert json.loads(written("vllm_pr53022", context=whole)) == [filler, filler, *TABLE]
    without = export_named("vllm_pr53022").write(PLAN, CONTEXT)
    assert json.loads(without.content) == [filler, filler, *TABLE[:3], filler]
    assert "the engine wants their rows, whether" in " ".join(without.notes)
    shared = export_named("vllm_pr53022").read(Document("f", b"[0, 1, 2, 0]"), whole)
    assert shared.physical_to_logical_map.tolist() == [[0, 1, 2, 0]] * 4


def test_vllm_pr53022_keeps_groups_together() -> None:
    """Without redundant experts the router's ids are renumbered, so that its groups must stay contiguous."""
    grouped = Context(model=replace(ModelLayout.of(1, num_experts=4), num_groups=2, groups_per_token=1))
    plan = SINGLE.replacing(
        physical_to_logical_map=np.array([[2, 3, 1, 0]]), layer_ids=np.array([0]), num_experts=4, slots_per_gpu=2
    )
    assert json.loads(written("vllm_pr53022", plan, grouped)) == [[2, 3, 1, 0]]
    mixed = plan.replacing(physical_to_logical_map=np.array([[2, 1, 3, 0]]))
    with pytest.raises(InputError, match="router_groups"):
        written("vllm_pr53022", mixed, grouped)
    copies = plan.replacing(physical_to_logical_map=np.array([[2, 1, 3, 0, 1, 2]]), slots_per_gpu=3)
    assert json.loads(written("vllm_pr53022", copies, grouped)) == [[2, 1, 3, 0, 1, 2]]


def test_vllm_pr34811() -> None:
    """The rank of each expert, once for all layers."""
    assert json.loads(written("vllm_pr34811", SINGLE, SINGLE_CONTEXT)) == {"expert_to_ep_rank": [0, 1, 1, 0]}


def test_hygon() -> None:
    """A map per model class, that of the MTP layers apart, with all counts."""
    names: dict[str, Any] = {
        "model_class": "DeepseekV3ForCausalLM",
        "mtp_model_class": "DeepSeekMTP",
        "model_name": "deepseek-v3",
    }
    common = {
        "record_kind": "proposal",
        "model_name": "deepseek-v3",
        "num_logical_experts": 3,
        "num_physical_experts": 4,
        "num_redundant_experts": 1,
    }
    expected = {
        "version": 2,
        "format": "vllm_offline_eplb_physical_to_logical_by_model",
        "model_maps": {
            "DeepseekV3ForCausalLM": common
            | {"model_class": "DeepseekV3ForCausalLM", "num_moe_layers": 3, "physical_to_logical_map": TABLE[:3]},
            "DeepSeekMTP": common
            | {"model_class": "DeepSeekMTP", "num_moe_layers": 1, "physical_to_logical_map": TABLE[3:]},
        },
    }
    assert json.loads(written("hygon", context=Context(model=MODEL, **names))) == expected


def test_hygon_writes_a_map_per_stage_of_a_pipeline() -> None:
    """Layers go where the stages end; those for multi-token prediction are in the last one. It is read as it was."""
    names: dict[str, Any] = {"model_class": "A", "mtp_model_class": "B", "model_name": "m", "gpus_per_node": (2,)}
    layers = MODEL.num_layers
    context = Context(model=MODEL, pipeline_stages=(MODEL.moe_layers[0] + 1, layers - MODEL.moe_layers[0] - 1), **names)
    content = written("hygon", context=context)
    maps = json.loads(content)["model_maps"]
    assert {key: item["physical_to_logical_map"] for key, item in maps.items()} == {
        "A#pp_rank=0": TABLE[:1],
        "A#pp_rank=1": TABLE[1:3],
        "B#pp_rank=1": TABLE[3:],
    }
    assert all(item["model_class"] == key for key, item in maps.items())
    plan = export_named("hygon").read(Document("f", content), Context(model=MODEL, **names))
    assert plan.physical_to_logical_map.tolist() == TABLE
    with pytest.raises(InputError) as caught:
        written("hygon", context=replace(context, pipeline_stages=(1, layers)))
    assert {item.code for item in caught.value.violations} == {"pipeline_stages"}


def test_hygon_needs_the_names() -> None:
    """What the engine compares with the running model has to be said."""
    with pytest.raises(InputError) as caught:
        written("hygon", context=Context(model=MODEL))
    assert {item.pointer for item in caught.value.violations} == {"/model_class", "/model_name", "/mtp_model_class"}


def test_vllm_ascend() -> None:
    """Experts by device, layers and devices counted from 0."""
    content = json.loads(written("vllm_ascend"))
    assert content["moe_layer_count"] == 3
    assert content["layer_list"][1] == {
        "layer_id": 1,
        "device_count": 2,
        "device_list": [{"device_id": 0, "device_expert": [1, 2]}, {"device_id": 1, "device_expert": [0, 1]}],
    }


def mixed(shared: int = 1, slots: int = 2) -> dict[str, Any]:
    """Return a map of 3 layers and 4 devices, whose shared experts have ids from 8 on."""
    layers = []
    for layer in range(3):
        order = np.roll(np.arange(4 * slots), layer).reshape(4, slots).tolist()
        devices = [{"device_id": n, "device_expert": [*held, 8 + n % shared]} for n, held in enumerate(order)]
        layers.append({"layer_id": layer, "device_count": 4, "device_list": devices})
    return {"moe_layer_count": 3, "layer_list": layers}


@pytest.mark.parametrize("shared", [1, 2])
def test_vllm_ascend_leaves_shared_experts_of_mix_placement_out(shared: int) -> None:
    """Ids from E on, one on every device, are no routed experts; without E, they are told."""
    export = export_named("vllm_ascend")
    document = Document("f", json.dumps(mixed(shared)).encode())
    plan = export.read(document, Context(num_experts=8))
    expected = np.stack([np.roll(np.arange(8), layer) for layer in range(3)])
    assert np.array_equal(plan.physical_to_logical_map, expected)
    assert (plan.num_experts, plan.num_gpus) == (8, 4)
    assert "mix_placement" in str(plan.provenance["placement"])
    if shared == 1:
        unknown = export.read(document)
        assert unknown.num_experts == 9
        assert "mix_placement" in str(unknown.provenance["placement"])


def test_vllm_ascend_refuses_ids_beyond_the_experts_on_some_devices() -> None:
    """Where devices hold different numbers of them, they are no shared experts."""
    content = mixed()
    content["layer_list"][1]["device_list"][2]["device_expert"][2] = 3
    with pytest.raises(InputError) as caught:
        export_named("vllm_ascend").read(Document("f", json.dumps(content).encode()), Context(num_experts=8))
    assert any("layer_list/1" in item.pointer or "8" in item.detail for item in caught.value.violations)


def test_vllm_ascend_reads_the_published_example() -> None:
    """The example of its documentation: eight experts and two replicas on two devices."""
    devices = [{"device_id": 0, "device_expert": [7, 2, 0, 3, 5]}, {"device_id": 1, "device_expert": [6, 1, 4, 7, 2]}]
    content = {"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 2, "device_list": devices}]}
    plan = export_named("vllm_ascend").read(Document("f", json.dumps(content).encode()))
    assert plan.physical_to_logical_map.tolist() == [[7, 2, 0, 3, 5, 6, 1, 4, 7, 2]]
    assert (plan.num_gpus, plan.slots_per_gpu, plan.num_experts) == (2, 5, 8)


def test_eplb_is_its_own_example() -> None:
    """The triple of EPLB's published example: log2phy lists the slots of each expert, padded with -1."""
    phy2log = [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    plan = Plan(
        physical_to_logical_map=np.array(phy2log),
        layer_ids=np.array([0, 1]),
        num_experts=12,
        num_gpus=8,
        slots_per_gpu=2,
        gpus_per_node=(4, 4),
    )
    with np.load(io.BytesIO(written("eplb", plan, Context()))) as arrays:
        assert arrays["phy2log"].tolist() == phy2log
        assert arrays["logcnt"].tolist() == [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1], [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]]
        assert arrays["log2phy"].shape == (2, 12, 2)
        assert arrays["log2phy"][0, :3].tolist() == [[12, -1], [13, 15], [11, -1]]


def test_exflow() -> None:
    """Experts numbered through all MoE layers."""
    lines = written("exflow", SINGLE, SINGLE_CONTEXT).decode().splitlines()
    assert lines[:6] == ["Expert,Node", "0,0", "1,1", "2,1", "3,0", "4,0"]
    assert len(lines) == 13


def test_deepspeed() -> None:
    """One layer's descriptor, in packed order; a layer is chosen where they differ."""
    expected = {
        "version": 1,
        "num_experts": 3,
        "ep_size": 2,
        "ranks": [{"rank": 0, "experts": [1, 2]}, {"rank": 1, "experts": [0, 1]}],
    }
    assert json.loads(written("deepspeed", context=replace(CONTEXT, layer=3))) == expected
    with pytest.raises(InputError, match="layers_differ"):
        written("deepspeed")
    with pytest.raises(InputError, match="layer_unknown"):
        written("deepspeed", context=replace(CONTEXT, layer=0))


def test_megatron() -> None:
    """The expert that each position gets, decoder and MTP layers apart."""
    plan = SINGLE.replacing(physical_to_logical_map=np.array([[3, 0, 1, 2]] * 4), layer_ids=np.array([2, 3, 4, 5]))
    content = json.loads(written("megatron", plan, Context(model=replace(SINGLE_MODEL, mtp_layers=(5,)))))
    assert content["decoder"] == {"2": [3, 0, 1, 2], "3": [3, 0, 1, 2], "4": [3, 0, 1, 2]}
    assert content["mtp"] == {"0": [3, 0, 1, 2]}
    assert content["expert_model_parallel_size"] == 2


def test_megatron_order_keeps_what_the_model_computes() -> None:
    """Router rows and experts moved by the order give the same output, on the ranks that the plan names."""
    order = np.array(json.loads(written("megatron", SINGLE, SINGLE_CONTEXT))["decoder"]["2"])
    rng = np.random.default_rng(0)
    tokens, router, experts = rng.normal(size=(32, 5)), rng.normal(size=(4, 5)), rng.normal(size=(4, 5, 5))

    def layer(router: Any, experts: Any) -> Any:
        scores = tokens @ router.T
        best = scores.argsort(axis=1)[:, -2:]
        return sum(np.einsum("td,tde->te", tokens, experts[best[:, k]]) for k in range(2))

    assert np.allclose(layer(router, experts), layer(router[order], experts[order]))
    for rank in range(2):
        owned = order[rank * 2 : rank * 2 + 2]
        assert (SINGLE.gpu_of_expert[0, owned] == rank).all()


def test_megatron_refuses_to_mix_groups() -> None:
    """Where the router limits tokens to groups of consecutive experts, they must stay together."""
    grouped = replace(SINGLE_MODEL, num_groups=2, groups_per_token=1)
    with pytest.raises(InputError, match="groups_mixed"):
        written("megatron", SINGLE, Context(model=grouped))
    blocks = SINGLE.replacing(physical_to_logical_map=np.array([[3, 2, 0, 1]] * 3))
    assert b"[3, 2, 0, 1]" in written("megatron", blocks, Context(model=grouped))


def test_csv() -> None:
    """One line per slot, empty ones with -1."""
    plan = PLAN.replacing(physical_to_logical_map=np.array([[0, 1, 2, -1]]), layer_ids=np.array([7]))
    assert written("csv", plan, Context()) == b"layer,gpu,slot,expert\n7,0,0,0\n7,0,1,1\n7,1,0,2\n7,1,1,-1\n"


@pytest.mark.parametrize(
    ("name", "text", "line", "code", "said"),
    [
        ("csv", "layer,gpu,slot,expert\n2,0,0,1\n99999999999,0,0,1\n", 3, "csv_range", "layer 99999999999"),
        ("csv", "layer,gpu,slot,expert\n\n2,0,-1,1\n", 3, "csv_range", "slot -1"),
        ("csv", "layer,gpu,slot,expert\n2,0,0,-2\n", 2, "csv_range", "expert -2"),
        ("csv", "layer,gpu,slot,expert\n2,0,0,1\n2,0,1,0\n2,0,0,2\n", 4, "slot_twice", "line 2"),
        ("exflow", "Expert,Node\n0,0\n2,1\n1,0\n5,0\n", 5, "expert_missing", "5 stands where 3"),
        ("exflow", "Expert,Node\n0,0\n1,99999\n", 3, "rank_out_of_range", "99999"),
    ],
)
def test_csv_errors_name_the_line(name: str, text: str, line: int, code: str, said: str) -> None:
    """What is wrong in a table is named by its line in the file, empty lines counted."""
    given = Context(num_experts=2) if name == "exflow" else Context()
    violations, _ = export_named(name).check(Document("f", text.encode()), given)
    (violation,) = violations.found
    assert (violation.code, violation.pointer) == (code, f"f#line {line}")
    assert said in violation.detail


@pytest.mark.parametrize(("encoding", "word"), [("utf-16", "UTF-16"), ("utf-8-sig", "EF BB BF")])
def test_files_in_another_encoding_say_so(tmp_path: Path, encoding: str, word: str) -> None:
    """Files, topologies and configs that PowerShell or an editor saved in its own way are refused with the reason."""
    path = tmp_path / "f.json"
    path.write_bytes(json.dumps({"physical_to_logical_map": [[0, 1]]}).encode(encoding))
    readers: list[Any] = [load_placement, load_topology, load_model_config]
    readers.append(lambda path: load_placement(path, format="sglang"))
    for reader in readers:
        with pytest.raises(InputError, match="text_encoding") as caught:
            reader(path)
        assert word in str(caught.value)


SLOTS = [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"physical_to_logical_map": [SLOTS] * 5, "logical_count": []}, {("unknown_field", "f#/logical_count")}),
        ({"physical_to_logical_map": [SLOTS] * 3}, {("layer_count", "f")}),
        (
            {"physical_to_logical_map": [SLOTS, [0] * 4, SLOTS, [0, 1, 1, 0], SLOTS]},
            {("filler_row", "f#/physical_to_logical_map/1")},
        ),
        (
            {"physical_to_logical_map": [SLOTS, SLOTS, SLOTS, [0, 1, 1, 0], [0, 0, 1, 2]]},
            {
                ("expert_missing", "f#/physical_to_logical_map/3"),
                ("replicas_on_one_gpu", "f#/physical_to_logical_map/4"),
            },
        ),
        ({"physical_to_logical_map": [[0, 1, 2]] * 5}, {("slots_not_divisible", "f#/physical_to_logical_map/2")}),
        (
            {"physical_to_logical_map": [SLOTS] * 4 + [[0, 1, 2, 9]]},
            {("expert_out_of_range", "f#/physical_to_logical_map/4")},
        ),
        ({"physical_to_logical_map": [SLOTS] * 6}, {("mtp_not_loaded", "f#/layer_ids")}),
    ],
)
def test_sglang_refusals(content: Any, expected: set[tuple[str, str]]) -> None:
    """What SGLang would reject or misread is named with its place, all of it at once."""
    assert found("sglang", content) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "num_slots: 4\ninitial_global_assignments: {2: [0,1,2,0], 3: [0,1,2,0], 4: [0,1,2,0]}\n",
            ("layer_missing", "f#/layer_ids"),
        ),
        ("num_slots: 4\ninitial_global_assignments: {2: [0,1,2]}\n", ("num_slots", "f#/initial_global_assignments/2")),
        (
            "num_slots: 4\ninitial_global_assignments: {'2': [0,1,2,0]}\n",
            ("layer_key", "f#/initial_global_assignments/2"),
        ),
        ("num_slots: 4\ninitial_global_assignments: {2: [0,1,2,0], 2: [0,1,2,1]}\n", ("not_yaml", "f")),
        ("num_slots: 4\nep_size: 2\ninitial_global_assignments: {2: [0,1,2,0]}\n", ("unknown_field", "f#/ep_size")),
        ("num_slots: 4\ninitial_global_assignments: {2: &a [0,1,2,0], 3: *a}\n", ("not_yaml", "f")),
        ("initial_global_assignments: !!python/object/apply:os.system ['true']\n", ("not_yaml", "f")),
        ("num_slots: 4\ninitial_global_assignments: {2: [0,1,2," + "9" * 30 + "]}\n", ("not_yaml", "f")),
        ("initial_global_assignments: " + "[" * 40 + "]" * 40, ("not_yaml", "f")),
    ],
)
def test_trtllm_refusals(text: str, expected: tuple[str, str]) -> None:
    """What TensorRT-LLM would reject, and what YAML could hide."""
    assert expected in found("trtllm", text.encode(), replace(CONTEXT, without_mtp=False))


def test_trtllm_online_updates_are_noted() -> None:
    """A file that lets the engine move experts is read with a note."""
    text = b"num_slots: 4\ninitial_global_assignments: {2: [0,1,2,0]}\nlayer_updates_per_iter: 2\n"
    _, notes = export_named("trtllm").check(Document("f", text))
    assert any("layer_updates_per_iter is 2" in note for note in notes)


def _mapping(**changes: Any) -> dict[str, Any]:
    rows = {str(row): SLOTS for row in range(3)}
    record = {"record_type": "eplb_initial_mapping", "version": 1, "num_redundant_experts": 1, "num_slots": 4}
    return record | {"initial_global_assignments": rows} | changes


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("vllm_pr41141", _mapping(version=2), "version"),
        ("vllm_pr41141", _mapping(num_redundant_experts=2), "num_redundant_experts"),
        ("vllm_pr41141", _mapping(num_slots=5), "num_slots"),
        ("vllm_pr41141", _mapping(initial_global_assignments={"2": SLOTS, "3": SLOTS, "4": SLOTS}), "layer_key"),
        ("vllm_pr41141", b"{}\n{}\n", "one_record"),
        ("vllm_pr49572", [SLOTS, SLOTS], "layer_count"),
        ("vllm_pr49572", [SLOTS, SLOTS, [0, 1, 2]], "not_integers"),
        ("vllm_pr49572", [SLOTS, SLOTS, [0, 1, 2, 1.0]], "not_integers"),
        ("vllm_pr49572", [SLOTS, SLOTS, [0, 1, 2, True]], "not_integers"),
        ("vllm_pr34811", {"expert_to_ep_rank": [0, 1, 2]}, "rank_out_of_range"),
        ("vllm_pr34811", {"expert_to_ep_rank": [0, 0, 0]}, "rank_without_experts"),
        ("vllm_pr34811", {"expert_to_ep_rank": [0, 1]}, "num_experts_differ"),
        ("exflow", b"Expert,Node\n0,0\n1,1\n2,1\n2,0\n", "expert_missing"),
        ("exflow", b"Expert,Node\n0,0\n1,x\n2,1\n", "csv_row"),
        ("csv", b"layer,gpu,slot,expert\n2,0,0,1\n2,0,0,2\n", "slot_twice"),
        ("csv", b"layer,gpu,slot,expert\n2,32766,0,1\n2,0,32766,2\n", "too_many_slots"),
        ("csv", b"layer,gpu,slot,expert\n", "csv_empty"),
        ("megatron", {"format": "moe-placement-megatron-expert-order", "version": 1, "num_experts": 3,
                      "expert_model_parallel_size": 2, "decoder": {"2": [0, 1]}, "mtp": {}}, "expert_missing"),
        ("deepspeed", {"version": 1, "num_experts": 3, "ep_size": 2,
                       "ranks": [{"rank": 0, "experts": [0, 1, 2]}]}, "ep_size"),
        ("deepspeed", {"version": 2, "num_experts": 3, "ep_size": 2,
                       "ranks": [{"rank": 1, "experts": [0]}, {"rank": 0, "experts": [1, 2]}]}, "version"),
    ],
)  # fmt: skip
def test_refusals(name: str, content: Any, code: str) -> None:
    """Each rule that a format has is held to when a file is checked."""
    assert code in {item[0] for item in found(name, content)}


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("moe_layer_count",), 2, "layer_count"),
        (("layer_list", 1, "layer_id"), 3, "layer_key"),
        (("layer_list", 1, "device_count"), 3, "device_count"),
        (("layer_list", 1, "device_list", 0, "device_id"), 1, "device_id"),
        (("layer_list", 1, "device_list", 0, "device_expert"), [0, 1, 2], "slots_per_device"),
        (("layer_list", 1, "device_list", 0, "device_expert"), [0, 0], "replicas_on_one_gpu"),
    ],
)
def test_vllm_ascend_refusals(path: tuple[Any, ...], value: Any, code: str) -> None:
    """The reader goes by the order of the lists, so ids that say something else are refused."""
    content = json.loads(written("vllm_ascend"))
    inner = content
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert code in {item[0] for item in found("vllm_ascend", content)}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("num_moe_layers", 4, "metadata"),
        ("num_redundant_experts", 2, "metadata"),
        ("model_class", "Other", "metadata"),
        ("record_kind", "initial", "record_kind"),
        ("model_name", "", "metadata"),
    ],
)
def test_hygon_refusals(field: str, value: Any, code: str) -> None:
    """Metadata that the running model would contradict is refused."""
    content = json.loads(written("hygon", context=replace(CONTEXT, model_class="A", model_name="m")))
    content["model_maps"]["A"][field] = value
    assert code in {item[0] for item in found("hygon", content)}


def test_hygon_reads_the_stages_of_a_pipeline_in_their_order() -> None:
    """A map per stage, whose key names it; a stage that is missing is told."""
    content = json.loads(written("hygon", context=replace(CONTEXT, model_class="A", model_name="m")))
    whole = content["model_maps"].pop("A")
    rows = whole["physical_to_logical_map"]
    for rank, part in ((1, rows[1:]), (0, rows[:1])):
        key = f"A#pp_rank={rank}"
        stage = {"model_class": key, "num_moe_layers": len(part), "physical_to_logical_map": part}
        content["model_maps"][key] = whole | stage
    for context in (CONTEXT, replace(CONTEXT, model_class="A")):
        plan = export_named("hygon").read(Document("f", json.dumps(content).encode()), context)
        assert plan.physical_to_logical_map.tolist() == rows
    del content["model_maps"]["A#pp_rank=0"]
    with pytest.raises(InputError) as caught:
        export_named("hygon").read(Document("f", json.dumps(content).encode()), CONTEXT)
    assert {item.code for item in caught.value.violations} == {"pipeline_stages"}


def test_hygon_with_two_models_asks_which() -> None:
    """A file with the maps of two models is read with their names only."""
    both = Context(model=MODEL, model_class="A", mtp_model_class="B", model_name="m", gpus_per_node=(2,))
    document = Document("f", written("hygon", context=both))
    with pytest.raises(InputError, match="`model_class`"):
        export_named("hygon").read(document, CONTEXT)
    assert export_named("hygon").read(document, both).layer_ids.tolist() == [2, 3, 4, 5]
    main = replace(both, mtp_model_class=None)
    assert export_named("hygon").read(document, main).layer_ids.tolist() == [2, 3, 4]


@pytest.mark.parametrize("name", ["phy2log", "log2phy", "logcnt"])
def test_eplb_arrays_must_agree(name: str) -> None:
    """A triple whose arrays contradict each other is refused."""
    with np.load(io.BytesIO(written("eplb"))) as archive:
        arrays = dict(archive)
    arrays[name] = np.roll(arrays[name], 1, axis=1)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    assert "arrays_differ" in {item[0] for item in found("eplb", buffer.getvalue())}


def test_pickled_arrays_are_refused() -> None:
    """Nothing in an .npz is ever unpickled."""
    buffer = io.BytesIO()
    np.savez(buffer, phy2log=np.array([[{}]], dtype=object))
    with pytest.raises(InputError):
        export_named("eplb").read(Document("f", buffer.getvalue()), CONTEXT)


def test_layers_of_the_caller() -> None:
    """Without a model, the layers can be named; without either, they are counted from 0 and a note says so."""
    document = Document("f", json.dumps(TABLE[:3]).encode())
    listed = export_named("vllm_pr49572")
    assert listed.read(document, Context(layer_ids=(2, 5, 7), gpus_per_node=(2,))).layer_ids.tolist() == [2, 5, 7]
    plan = listed.read(document, Context(gpus_per_node=(2,)))
    assert plan.layer_ids.tolist() == [0, 1, 2]
    assert "taken as 0..2" in plan.provenance["placement"]["notes"][0]
    with pytest.raises(InputError, match="num_gpus_unknown"):
        listed.read(document)
    with pytest.raises(InputError, match="layer_ids_order"):
        listed.read(document, Context(layer_ids=(2, 1, 0), gpus_per_node=(2,)))


def test_what_the_engine_would_not_load_can_still_be_evaluated() -> None:
    """Missing layers and two replicas on one GPU are violations of a check, and notes of a plan that is read."""
    rows = {"0": SLOTS, "1": [0, 0, 1, 2]}
    content = json.dumps(_mapping(initial_global_assignments=rows)).encode()
    two = Context(model=ModelLayout.of(4, first_moe_layer=2, num_experts=3), gpus_per_node=(2,))
    export = export_named("vllm_pr41141")
    assert {item[0] for item in found("vllm_pr41141", content, two)} == {"replicas_on_one_gpu"}
    plan = export.read(Document("f", content), two)
    assert plan.physical_to_logical_map.tolist() == [SLOTS, [0, 0, 1, 2]]
    assert "would not load" in plan.provenance["placement"]["notes"][0]


def test_writing_without_a_model() -> None:
    """Without the model, rows per layer can't be written, nor layers with gaps counted; the rest has a note."""
    with pytest.raises(InputError, match="model_unknown"):
        written("sglang", context=Context())
    with pytest.raises(InputError, match="layers_with_gaps"):
        written("vllm_pr49572", PLAN.replacing(layer_ids=np.array([2, 4, 6, 8])), Context())
    notes = export_named("vllm_pr49572").write(PLAN, Context()).notes
    assert any("not checked" in note for note in notes)
    with pytest.raises(InputError, match="model_unknown"):
        written("trtllm", context=Context(without_mtp=True))


def test_all_violations_at_once() -> None:
    """A plan with several faults is told all of them, with places and remedies."""
    bad = PLAN.replacing(
        physical_to_logical_map=np.array([[0, 1, 2, -1], [1, 2, 0, 0], [2, 0, 1, 2], [0, 2, 1, 0]]),
    )
    with pytest.raises(InputError) as caught:
        written("sglang", bad, Context(model=replace(MODEL, num_experts=4)))
    codes = {item.code for item in caught.value.violations}
    assert codes == {"empty_slot", "replicas_on_one_gpu", "mtp_not_loaded", "num_experts_differ"}
    assert all(item.remedy for item in caught.value.violations)


def test_layers_are_not_guessed_on_the_way(tmp_path: Path) -> None:
    """Between formats that count layers differently, somebody has to say which layers the rows are."""
    (tmp_path / "list.json").write_bytes(written("vllm_pr49572"))
    bare = Context(gpus_per_node=(2,))
    with pytest.raises(InputError, match="layers_unknown"):
        convert_placement(tmp_path / "list.json", "trtllm", bare)
    _, same = convert_placement(tmp_path / "list.json", "vllm_pr41141", bare)
    assert b'"0":[0,1,2,0]' in same.content
    for known in (CONTEXT, replace(bare, layer_ids=(2, 3, 4))):
        plan, other = convert_placement(tmp_path / "list.json", "trtllm", known)
        assert plan.layer_ids.tolist() == [2, 3, 4]
        assert b"\n  2: [0, 1, 2, 0]\n" in other.content


def test_load_placement(tmp_path: Path) -> None:
    """A plan file is read as it is; other content is recognised, forced, or refused with the list of formats."""
    scored = PLAN.replacing(score=1.5, provenance={"solver": "x"})
    scored.save(tmp_path / "plan.json")
    assert load_placement(tmp_path / "plan.json") == scored
    (tmp_path / "any").write_bytes(written("trtllm"))
    plan = load_placement(tmp_path / "any", CONTEXT)
    assert plan.provenance["placement"]["format"] == "trtllm"
    with pytest.raises(InputError, match="unknown_format"):
        load_placement(tmp_path / "any", CONTEXT, format="nonsense")
    (tmp_path / "any").write_bytes(b"\x00\x01")
    with pytest.raises(InputError, match="vllm_ascend"):
        load_placement(tmp_path / "any", CONTEXT)
    (tmp_path / "any").write_bytes(b'{"a": ')
    with pytest.raises(InputError, match="not_json"):
        load_placement(tmp_path / "any", CONTEXT)


@pytest.mark.parametrize(("architecture", "told"), [("MixtralForCausalLM", 1), ("DeepseekV3ForCausalLM", 0), ("", 0)])
def test_models_whose_placement_sglang_ignores_are_named(architecture: str, told: int) -> None:
    """A class of SGLang that takes no placement is told, where a file is written and where one is checked."""
    config = {"architectures": [architecture], "model_type": "mixtral", "num_hidden_layers": 2}
    layout = layout_from_config(config | {"num_local_experts": 4, "num_experts_per_tok": 2})
    plan = Plan.of([[0, 1, 2, 3], [3, 2, 1, 0]], layer_ids=[0, 1], num_experts=4, gpus_per_node=(2,))
    written = export_named("sglang").write(plan, Context(model=layout))
    assert [architecture in note for note in written.notes] == [True] * told
    found, notes = export_named("sglang").check(Document("f", written.content), Context(model=layout))
    assert not found.found
    assert sum("will ignore" in note for note in notes) == told


def test_deepspeed_plans_are_orders_to_renumber_by() -> None:
    """The file for DeepSpeed is that for Megatron: its own descriptor moves nothing at run time."""
    assert ENGINES["deepspeed"].export == ENGINES["megatron"].export == "megatron"
    found = {name: engine_of_export(name) for name in ("megatron", "deepspeed")}
    assert found == {name: ENGINES[name] for name in found}
