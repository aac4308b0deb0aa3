"""vLLM's load balancer holds our maps, and we read the maps that its policy makes."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from placement import Plan, Topology, evaluate
from placement.exports import Context, Document, export_named
from solvers.methods.eplb.solver import rebalance
from tests.engines.harness import EXPERTS, GPUS, MODEL, SLOTS, engine, stand_in
from traces import Trace


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
    held = SimpleNamespace(
        model=SimpleNamespace(num_logical_experts=EXPERTS),
        expert_load_pass=torch.zeros(layers, slots),
        physical_to_logical_map=(buffer := torch.full((layers, slots), -1)),
        physical_to_logical_map_buffer=buffer,
        logical_to_physical_map=torch.full((layers, EXPERTS, 7), -1),
        logical_replica_count=torch.zeros((layers, EXPERTS), dtype=torch.int64),
    )
    balancer = SimpleNamespace(model_states={"model": held}, device="cpu")
    state.EplbState.update_mapping(balancer, SimpleNamespace(compute_hash=lambda: "model"), phy2log)
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
