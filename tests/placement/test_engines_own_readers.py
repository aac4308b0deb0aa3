"""Our files through the engines' own readers, where those run without a GPU.

They are read from the folder in ``MOE_PLACEMENT_ENGINES``, where wheels were unpacked without what they depend on
(``CONTRIBUTING.md`` says how); PyTorch has to be installed. What the readers import of the rest of their engine is
replaced by stand-ins that hold the configuration. TensorRT-LLM is on PyPI by name only: what is there fetches the wheel
from another index while it is built, so its test needs that wheel, or its source.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import logging
import os
import sys
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from placement import Plan, Topology, evaluate
from placement.exports import Context, Document, export_named
from solvers.methods.eplb.solver import rebalance
from traces import ModelLayout, Trace

pytestmark = pytest.mark.slow

ENGINES = os.environ.get("MOE_PLACEMENT_ENGINES")
EXPERTS, GPUS, SLOTS = 16, 4, 5
MODEL = ModelLayout.of(5, first_moe_layer=1, num_experts=EXPERTS)


@pytest.fixture
def plan() -> Plan:
    """Return a plan with a replica per GPU, other ones in each layer."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(4):
        parts = np.array_split(rng.permutation(EXPERTS), GPUS)
        rows.append(np.concatenate([[*part, parts[gpu - 1][0]] for gpu, part in enumerate(parts)]))
    return Plan(
        physical_to_logical_map=np.array(rows),
        layer_ids=np.arange(1, 5),
        num_experts=EXPERTS,
        num_gpus=GPUS,
        slots_per_gpu=SLOTS,
        gpus_per_node=(GPUS,),
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path | None = None, **content: Any) -> None:
    """Put a module in place of one of the engine's; with a folder, it is a package whose other modules are real."""
    module = types.ModuleType(name)
    module.__dict__.update(content)
    if folder is not None:
        module.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, name, module)


def engine(name: str) -> Path:
    """Return the folder of an engine's package, or skip."""
    if ENGINES is None:
        pytest.skip("engines are not here; set MOE_PLACEMENT_ENGINES to a folder with their unpacked wheels")
    pytest.importorskip("torch", reason="the engines' readers need PyTorch")
    folder = Path(ENGINES) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in the folder of MOE_PLACEMENT_ENGINES")
    return folder


def sglang_reader(monkeypatch: pytest.MonkeyPatch, file: str, dispatch: str) -> Any:
    """Return SGLang's module for expert locations, configured to read `file`."""
    folder = engine("sglang")
    moe = types.SimpleNamespace(
        init_expert_location=file,
        ep_num_redundant_experts=GPUS * SLOTS - EXPERTS,
        ep_join_mode=None,
        ep_dispatch_algorithm=dispatch,
        moe_a2a_backend="none",
    )
    parallel = types.SimpleNamespace(ep_size=GPUS, nnodes=1, elastic_ep_initial_size=None)
    location: dict[str, Any] = {"num_layers": MODEL.num_layers, "num_logical_experts": EXPERTS}

    class Model:
        """Stands in for the model's class."""

        @staticmethod
        def get_model_config_for_expert_location(config: Any) -> Any:
            return types.SimpleNamespace(num_groups=None, **location)

    for name, part in (("sglang", ""), ("sglang.srt", "srt"), ("sglang.srt.eplb", "srt/eplb")):
        stand_in(monkeypatch, name, folder / part)
    stand_in(
        monkeypatch,
        "sglang.srt.runtime_context",
        get_device=lambda: types.SimpleNamespace(device="cpu"),
        get_exec=lambda: types.SimpleNamespace(moe=moe),
        get_parallel=lambda: parallel,
        get_resources=lambda: types.SimpleNamespace(),
    )
    stand_in(monkeypatch, "sglang.srt.elastic_ep")
    stand_in(monkeypatch, "sglang.srt.elastic_ep.elastic_ep", elastic_expanded_world_enabled=lambda: False)
    stand_in(monkeypatch, "sglang.srt.model_loader", get_model_architecture=lambda config: (Model, "Model"))
    monkeypatch.delitem(sys.modules, "sglang.srt.eplb.expert_location", raising=False)
    return importlib.import_module("sglang.srt.eplb.expert_location")


@pytest.mark.parametrize("dispatch", ["static", "dynamic"])
def test_sglang_reads_our_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan, dispatch: str) -> None:
    """SGLang holds the plan's map in the model's layers, finds every replica, and sends to that on its own GPU."""
    file = tmp_path / "location.json"
    file.write_bytes(export_named("sglang").write(plan, Context(model=MODEL)).content)
    reader = sglang_reader(monkeypatch, str(file), dispatch)
    config = types.SimpleNamespace(hf_config=None)
    read = reader.compute_initial_expert_location_metadata(config, moe_ep_rank=2)
    assert read.num_layers == MODEL.num_layers
    assert read.physical_to_logical_map[1:].tolist() == plan.physical_to_logical_map.tolist()
    assert read.logical_to_all_physical_map_num_valid[1:].tolist() == plan.replicas.tolist()
    assert read.num_local_physical_experts == SLOTS
    if dispatch == "static":
        chosen = read.logical_to_rank_dispatch_physical_map[1:].numpy()
        for layer, expert in np.argwhere(plan.replicas_on_gpu[:, :, 2] == 1):
            assert chosen[layer, expert] // SLOTS == 2


def test_sglang_rejects_what_we_refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan) -> None:
    """Another key, and a dense layer without filler, fail in SGLang as our check says."""
    export = export_named("sglang")
    content = json.loads(export.write(plan, Context(model=MODEL)).content)
    bare = [[0] * (GPUS * SLOTS), *content["physical_to_logical_map"][1:]]
    for bad in (content | {"note": "x"}, {"physical_to_logical_map": bare}):
        file = tmp_path / "location.json"
        file.write_text(json.dumps(bad))
        assert export.check(Document.of(file), Context(model=MODEL, gpus_per_node=(GPUS,)))[0].found
        reader = sglang_reader(monkeypatch, str(file), "static")
        with pytest.raises((TypeError, ZeroDivisionError)):
            reader.compute_initial_expert_location_metadata(types.SimpleNamespace(hf_config=None), moe_ep_rank=0)


def test_deepspeed_reads_our_file_and_we_its(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """DeepSpeed validates our descriptor and finds each rank's experts; the one that it makes comes back as a plan."""
    folder = engine("deepspeed")
    if not (folder / "checkpoint" / "autoep_affine.py").is_file():
        pytest.skip("this DeepSpeed has no placement descriptors; 0.19.8 does")
    for name, part in (("deepspeed", ""), ("deepspeed.checkpoint", "checkpoint")):
        stand_in(monkeypatch, name, folder / part)
    for name in ("affine", "constants", "autoep_affine"):
        monkeypatch.delitem(sys.modules, f"deepspeed.checkpoint.{name}", raising=False)
    reader = importlib.import_module("deepspeed.checkpoint.autoep_affine")
    export = export_named("deepspeed")
    for row, layer in enumerate(plan.layer_ids.tolist()):
        descriptor = json.loads(export.write(plan, Context(layer=layer)).content)
        reader.validate_autoep_placement_descriptor(descriptor)
        mine = plan.physical_to_logical_map[row].reshape(GPUS, SLOTS).tolist()
        assert [reader.autoep_experts_for_rank(descriptor, rank) for rank in range(GPUS)] == mine
    made = reader.make_autoep_placement_descriptor(3, [[2, 0], [1], [0, 1]])
    back = export.read(Document("f", json.dumps(made).encode()))
    assert back.physical_to_logical_map.tolist() == [[2, 0, 1, -1, 0, 1]]
    broken = json.loads(json.dumps(made).replace("[2, 0]", "[0, 0]"))
    assert export.check(Document("f", json.dumps(broken).encode()))[0].found
    with pytest.raises(ValueError, match="duplicate"):
        reader.validate_autoep_placement_descriptor(broken)


def vllm_balancer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return vLLM's module that holds the maps of its expert-parallel load balancer; its policies are real, too."""
    folder = engine("vllm") / "distributed" / "eplb"
    if not (folder / "eplb_state.py").is_file():
        pytest.skip("this vLLM has no distributed/eplb; 0.33 does")
    for name in [name for name in sys.modules if name.startswith("vllm")]:
        monkeypatch.delitem(sys.modules, name)
    stand_in(monkeypatch, "vllm.distributed.eplb", folder)
    stand_in(monkeypatch, "vllm.config.parallel", EPLBPolicyOption=typing.Literal["default"])
    needed = {
        "vllm": "",
        "vllm.config": "ModelConfig ParallelConfig",
        "vllm.config.utils": "compute_hash_cached",
        "vllm.distributed": "",
        "vllm.distributed.parallel_state": "",
        "vllm.distributed.stateless_coordinator": "StatelessGroupCoordinator",
        "vllm.distributed.utils": "StatelessProcessGroup",
        "vllm.logger": "",
        "vllm.model_executor": "",
        "vllm.model_executor.models": "",
        "vllm.model_executor.models.interfaces": "MixtureOfExperts",
        "vllm.platforms": "current_platform",
        "vllm.utils": "",
        "vllm.utils.gpu_sync_debug": "",
        "vllm.utils.torch_utils": "",
        "vllm.distributed.eplb.async_worker": "start_async_worker",
        "vllm.distributed.eplb.eplb_communicator": "EplbCommunicator create_eplb_communicator",
        "vllm.distributed.eplb.eplb_utils": "CpuGpuEvent",
        "vllm.distributed.eplb.rebalance_execute": "AsyncEplbLayerResult move_from_buffer "
        "rearrange_expert_weights_inplace",
    }
    groups = "GroupCoordinator get_ep_group get_eplb_group get_node_count in_the_same_node_as"
    groups += " get_world_group is_global_first_rank"
    needed["vllm.distributed.parallel_state"] = groups
    for name, content in needed.items():
        stand_in(monkeypatch, name, None, **dict.fromkeys(content.split(), object))
    sys.modules["vllm.logger"].__dict__["init_logger"] = logging.getLogger
    sys.modules["vllm.utils.gpu_sync_debug"].__dict__["gpu_sync_allowed"] = contextlib.nullcontext
    sys.modules["vllm.utils.torch_utils"].__dict__["PIN_MEMORY"] = False
    return importlib.import_module("vllm.distributed.eplb.eplb_state")


def test_vllm_holds_our_triple(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: Plan) -> None:
    """The balancer of vLLM takes our map, and the other two arrays that it derives are those of our file."""
    state = vllm_balancer(monkeypatch)
    import torch

    file = tmp_path / "map.npz"
    file.write_bytes(export_named("eplb").write(plan, Context(model=MODEL)).content)
    with np.load(file) as ours:
        phy2log, log2phy, counts = (torch.from_numpy(ours[name]) for name in ("phy2log", "log2phy", "logcnt"))
    layers, slots = phy2log.shape
    held = types.SimpleNamespace(
        model=types.SimpleNamespace(num_logical_experts=EXPERTS),
        expert_load_pass=torch.zeros(layers, slots),
        physical_to_logical_map=(buffer := torch.full((layers, slots), -1)),
        physical_to_logical_map_buffer=buffer,
        logical_to_physical_map=torch.full((layers, EXPERTS, 7), -1),
        logical_replica_count=torch.zeros((layers, EXPERTS), dtype=torch.int64),
    )
    balancer = types.SimpleNamespace(model_states={"model": held}, device="cpu")
    state.EplbState.update_mapping(balancer, types.SimpleNamespace(compute_hash=lambda: "model"), phy2log)
    assert torch.equal(held.physical_to_logical_map, torch.from_numpy(plan.physical_to_logical_map.astype(np.int64)))
    assert torch.equal(held.logical_replica_count, counts)
    assert torch.equal(held.logical_to_physical_map[:, :, : log2phy.shape[2]], log2phy)
    assert (held.logical_to_physical_map[:, :, log2phy.shape[2] :] == -1).all()


@pytest.mark.parametrize(("groups", "nodes"), [(1, 1), (4, 2)])
def test_we_read_the_map_that_vllm_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: int, nodes: int
) -> None:
    """What vLLM's policy returns is read as the same placement, and is what our `eplb` makes of the loads."""
    state = vllm_balancer(monkeypatch)
    import torch

    load = np.random.default_rng(0).random((4, EXPERTS)) + 0.1  # without ties, which numpy's sort breaks as it likes
    made = state.DefaultEplbPolicy.rebalance_experts(torch.from_numpy(load), GPUS * SLOTS, groups, nodes, GPUS)
    log2phy, counts = state.compute_logical_maps(made, EXPERTS)
    file = tmp_path / "theirs.npz"
    np.savez(file, phy2log=made.numpy(), log2phy=log2phy.numpy(), logcnt=counts.numpy())
    where = Context(model=MODEL, gpus_per_node=(GPUS // nodes,) * nodes)
    export = export_named("eplb")
    assert not export.check(Document.of(file), where)[0].found
    read = export.read(Document.of(file), where)
    assert read.layer_ids.tolist() == list(MODEL.moe_layers)
    assert np.array_equal(read.physical_to_logical_map, made.numpy())
    ours = rebalance(load, num_slots=GPUS * SLOTS, num_groups=groups, num_nodes=nodes, num_gpus=GPUS)
    assert np.array_equal(ours, made.numpy())


def test_our_balancedness_is_that_of_vllm(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """`balancedness_whole_trace` of an evaluation is the ratio that vLLM logs, for the same tokens per GPU."""
    state = vllm_balancer(monkeypatch)
    import torch

    rank = np.random.default_rng(1).random((500, 4, EXPERTS)) * np.arange(1, EXPERTS + 1)
    trace = Trace.of(rank.argsort(axis=2)[:, :, :2], num_experts=EXPERTS, layer_ids=range(1, 5))
    found = evaluate(plan, trace, Topology.of((GPUS,)), execution="dispatch")
    mean, most = state._compute_eplb_load_stats(torch.from_numpy(found.gpu_load).float())
    assert found.balancedness_whole_trace == pytest.approx(float(mean / most), rel=1e-6)


def tensorrt_config() -> Any:
    """Return TensorRT-LLM's model of its file, cut out of modules that need the whole engine."""
    folder = engine("tensorrt_llm") / "llmapi"
    pydantic = pytest.importorskip("pydantic", reason="TensorRT-LLM's configuration is a pydantic model")
    known = vars(typing) | {
        name: getattr(pydantic, name) for name in ("BaseModel", "ConfigDict", "Field", "PrivateAttr")
    }
    # The strict base class is in utils.py or in llm_args.py, depending on the version.
    for file, wanted in (("utils.py", "StrictBaseModel"), ("llm_args.py", "StrictBaseModel MoeLoadBalancerConfig")):
        if (folder / file).is_file():
            tree = ast.parse((folder / file).read_text())
            tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in wanted.split()]
            exec(compile(tree, file, "exec"), known)
    if "MoeLoadBalancerConfig" not in known:
        pytest.skip("this TensorRT-LLM has no MoeLoadBalancerConfig in llmapi/llm_args.py; 1.0 to 1.3 do")
    return known["MoeLoadBalancerConfig"]


def test_tensorrt_llm_reads_our_file(plan: Plan) -> None:
    """TensorRT-LLM takes our YAML and finds each layer's slots; what it rejects is what our check refuses."""
    config = tensorrt_config()
    export = export_named("trtllm")
    content = yaml.safe_load(export.write(plan, Context(model=MODEL)).content)
    read = config(**content)
    read.setup(ep_rank=2, ep_size=GPUS)
    assert (read.slot_start, read.slot_end) == (2 * SLOTS, 3 * SLOTS)
    for row, layer in enumerate(plan.layer_ids.tolist()):
        assert read.get_layer_initial_global_assignments(layer) == plan.physical_to_logical_map[row].tolist()
    with pytest.raises(KeyError):
        read.get_layer_initial_global_assignments(0)
    where = Context(model=MODEL, gpus_per_node=(GPUS,))
    assert np.array_equal(
        export.read(Document("f", yaml.safe_dump(read.model_dump()).encode()), where).physical_to_logical_map,
        plan.physical_to_logical_map,
    )
    for bad in (content | {"note": "x"}, content | {"num_slots": 19}):
        assert export.check(Document("f", yaml.safe_dump(bad).encode()), where)[0].found
        with pytest.raises(ValueError, match=r"note|divisible"):
            config(**bad).setup(ep_rank=0, ep_size=GPUS)
