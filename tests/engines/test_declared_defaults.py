"""Declared defaults against the engines' own code, where that runs without a GPU.

Functions are taken out of the engines' files, and run on PyTorch's CPU build with stand-ins for the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from placement.engines import ENGINES, default_slots
from tests.engines.harness import own

SIZES = [(8, 4, 2), (8, 4, 3), (64, 8, 9), (256, 16, 18), (12, 4, 6)]


@pytest.mark.parametrize(("experts", "gpus", "slots"), SIZES)
def test_vllm_starts_as_declared(experts: int, gpus: int, slots: int) -> None:
    """The initial map of vLLM is the declared layout."""
    name = "build_initial_global_physical_to_logical_map"
    build = getattr(own("vllm/distributed/eplb/eplb_state.py", name), name)
    layout = ENGINES["vllm"].default_layout
    assert build(experts, gpus * slots - experts) == default_slots(layout, experts, gpus, slots)


@pytest.mark.parametrize(("experts", "gpus", "slots"), SIZES)
def test_vllm_ascend_starts_as_declared(experts: int, gpus: int, slots: int) -> None:
    """The initial map of vllm-ascend is the declared layout, where the ranks divide the experts."""
    code = own("vllm_ascend/eplb/core/eplb_utils.py", "generate_global_placement")
    placement = code.generate_global_placement(experts, gpus, gpus * slots - experts, 0)
    layout = ENGINES["vllm-ascend"].default_layout
    assert placement.flatten().tolist() == default_slots(layout, experts, gpus, slots)


def maps(seed: int) -> Iterator[tuple[np.ndarray[Any, Any], int, int]]:
    """Yield maps (one layer, S) with their ranks and nodes; no expert is twice on a GPU."""
    rng = np.random.default_rng(seed)
    for gpus, nodes, per_gpu in [(4, 1, 6), (8, 2, 4), (12, 3, 5)]:
        experts = gpus * per_gpu // 2
        while True:
            rest = rng.integers(0, experts, gpus * per_gpu - experts)
            slots = rng.permutation(np.concatenate([np.arange(experts), rest])).reshape(gpus, per_gpu)
            if all(len(set(row)) == per_gpu for row in slots.tolist()):
                break
        yield slots.reshape(1, -1), gpus, nodes


def sglang(gpus: int, nodes: int, algorithm: str) -> Any:
    """Return SGLang's functions that choose replicas, with an all-to-all back end."""
    moe = SimpleNamespace(moe_a2a_backend="deepep", ep_dispatch_algorithm=algorithm)
    return own(
        "sglang/srt/eplb/expert_location.py",
        "_compute_logical_to_all_physical_map",
        "_pad_nested_array",
        "compute_logical_to_rank_dispatch_physical_map",
        "_logical_to_all_physical_raw",
        "_compute_gpu_id_of_physical_expert",
        "_compute_node_id_of_physical_expert",
        "_find_nearest_expert",
        "_fair_choices",
        get_exec=lambda: SimpleNamespace(moe=moe),
        get_parallel=lambda: SimpleNamespace(ep_size=gpus, nnodes=nodes),
        _prefer_same_node_experts=lambda: True,
    )


@pytest.mark.parametrize("algorithm", ["static", "dynamic"])
def test_sglang_stays_as_near_as_declared(algorithm: str) -> None:
    """Every replica that a rank may use in SGLang is one that `same_node` may use: own GPU, else own node, else any."""
    assert ENGINES["sglang"].algorithms[algorithm] == "same_node"
    for slots, gpus, nodes in maps(5):
        code = sglang(gpus, nodes, algorithm)
        torch: Any = pytest.importorskip("torch")
        per_gpu, experts = slots.shape[1] // gpus, int(slots.max()) + 1
        for rank in range(gpus):
            table = code._compute_logical_to_all_physical_map(torch.tensor(slots), experts, gpus, rank)
            if algorithm == "static":
                table = code.compute_logical_to_rank_dispatch_physical_map(table, gpus, slots.shape[1], rank)[
                    :, :, None
                ]
            for expert, row in enumerate(table[0].tolist()):
                used = {slot // per_gpu for slot in row if slot >= 0}
                held = {int(slot) // per_gpu for slot in np.flatnonzero(slots[0] == expert)}
                node = {gpu for gpu in held if gpu * nodes // gpus == rank * nodes // gpus}
                assert used
                assert used <= ({rank} if rank in held else node or held)


def test_vllm_ascend_prefers_no_replica() -> None:
    """Over all ranks, vllm-ascend uses every replica as often as any other, and not the one on the own GPU."""
    torch: Any = pytest.importorskip("torch")
    assert set(ENGINES["vllm-ascend"].algorithms.values()) == {"fair"}
    code = own("vllm_ascend/eplb/core/eplb_utils.py", "generate_log2phy_map")
    passed_by = 0
    for slots, gpus, _ in maps(7):
        per_gpu, experts = slots.shape[1] // gpus, int(slots.max()) + 1
        place = torch.full((gpus, experts), -1)
        for gpu, row in enumerate(slots.reshape(gpus, per_gpu).tolist()):
            place[gpu, row] = torch.arange(per_gpu)
        chosen = np.stack([code.generate_log2phy_map(list(place), rank).numpy() for rank in range(gpus)])
        for expert in range(experts):
            held = np.flatnonzero(slots[0] == expert)
            counts = np.array([np.sum(chosen[:, expert] == slot) for slot in held])
            assert counts.sum() == gpus
            assert counts.max() - counts.min() <= 1
            passed_by += sum(
                rank in held // per_gpu and chosen[rank, expert] // per_gpu != rank for rank in range(gpus)
            )
    assert passed_by > 0
