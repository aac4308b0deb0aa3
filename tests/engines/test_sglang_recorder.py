"""SGLang's recorder of expert distributions writes, we read: the same counts, the same ids."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from enum import IntEnum, auto
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

import traces
from tests.engines.harness import module, own, stand_in
from traces import LoadCounts, Trace

LAYERS, EXPERTS, REDUNDANT, TOP_K = 5, 8, 4, 2
DENSE = 1  # layer 0 has no experts


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a maker of SGLang's recorders, on a process group of one."""
    environ = module("sglang.srt.environ").envs
    torch: Any = pytest.importorskip("torch")
    modes = own("sglang/srt/model_executor/forward_batch_info.py", "ForwardMode", IntEnum=IntEnum, auto=auto)
    stand_in(
        monkeypatch,
        "sglang.srt.model_executor.forward_batch_info",
        ForwardBatch=object,
        ForwardMode=modes.ForwardMode,
    )
    collector = ("STAT_LOGGER_ROLE_EXPERT_DISPATCH", "ExpertDispatchCollector", "resolve_collector_class")
    stand_in(monkeypatch, "sglang.srt.observability.metrics_collector", **dict.fromkeys(collector))
    code = module("sglang.srt.eplb.expert_distribution")
    rng = np.random.default_rng(1)
    extra = rng.integers(0, EXPERTS, (LAYERS, REDUNDANT))
    slots = np.concatenate([np.broadcast_to(np.arange(EXPERTS), (LAYERS, EXPERTS)), extra], axis=1)
    location = SimpleNamespace(
        num_layers=LAYERS,
        num_physical_experts=EXPERTS + REDUNDANT,
        num_logical_experts=EXPERTS,
        num_local_physical_experts=EXPERTS + REDUNDANT,
        ep_size=1,
        physical_to_logical_map=torch.from_numpy(slots.copy()),
    )
    monkeypatch.setattr(torch, "get_device_module", MagicMock())
    torch.get_device_module().is_current_stream_capturing.return_value = False
    monkeypatch.setattr(code, "get_device", lambda *_: "cpu")
    monkeypatch.setattr(code, "get_device_namespace", lambda: SimpleNamespace(device="cpu"), raising=False)
    monkeypatch.setattr(code, "get_platform", lambda: SimpleNamespace(is_hip=False))
    monkeypatch.setattr(code, "get_schedule", lambda: SimpleNamespace(chunked_prefill_size=64))
    monkeypatch.setattr(code, "megamoe_prefill_only_recorder_enabled", lambda: False)
    monkeypatch.setattr(code, "reports_expert_balancedness", lambda: False)
    monkeypatch.setattr(code, "logs_expert_balancedness_to_server_log", lambda: False)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)

    def make(mode: str, size: int = 1000) -> Any:
        moe = SimpleNamespace(
            expert_distribution_recorder_mode=mode,
            expert_distribution_recorder_buffer_size=size,
            moe_a2a_backend="none",
            deepep_mode="auto",
            eplb_min_rebalancing_utilization_threshold=1.0,
        )
        overlap = SimpleNamespace(enable_two_batch_overlap=False)
        monkeypatch.setattr(code, "get_exec", lambda: SimpleNamespace(moe=moe, overlap=overlap))
        made = code.ExpertDistributionRecorder.init_new(location, rank=0)
        made.slots = slots
        return made

    with environ.SGLANG_EXPERT_DISTRIBUTION_RECORDER_DIR.override(str(tmp_path)):
        yield make
    torch.distributed.destroy_process_group()


def passes(recorder: Any, number: int, tokens: int = 11) -> np.ndarray[Any, Any]:
    """Run forward passes through the recorder, and return the physical ids (tokens of all passes, layers, K)."""
    torch: Any = pytest.importorskip("torch")
    modes = importlib.import_module("sglang.srt.model_executor.forward_batch_info").ForwardMode
    rng = np.random.default_rng(number)
    chosen = rng.random((number, LAYERS, tokens, EXPERTS)).argsort(axis=3)[..., :TOP_K]
    for layer, row in enumerate(recorder.slots):  # an expert, then one of its replicas
        second = {expert: slot for slot, expert in enumerate(row.tolist()) if slot >= EXPERTS}
        replica = np.array([second.get(expert, expert) for expert in range(EXPERTS)])
        ids = chosen[:, layer]
        chosen[:, layer] = np.where(rng.random(ids.shape) < 0.5, ids, replica[ids])
    for step, layers in enumerate(chosen):
        batch = SimpleNamespace(
            input_ids=torch.arange(tokens),
            positions=torch.arange(tokens),
            extend_seq_lens_cpu=[tokens],
            forward_mode=modes.EXTEND,
        )
        with recorder.with_forward_pass(step, batch):
            for layer in range(DENSE, LAYERS):
                with recorder.with_current_layer(layer):
                    recorder.on_select_experts(torch.from_numpy(layers[layer]).int())
    return chosen.transpose(0, 2, 1, 3).reshape(number * tokens, LAYERS, TOP_K)


def logical(recorder: Any, physical: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logical ids of physical ones, MoE layers only."""
    return np.stack([recorder.slots[layer][physical[:, layer]] for layer in range(DENSE, LAYERS)], axis=1)


def loads(ids: np.ndarray[Any, Any]) -> list[list[int]]:
    """Count (tokens, layers, K) by layer and expert."""
    return [np.bincount(ids[:, layer].ravel(), minlength=EXPERTS).tolist() for layer in range(ids.shape[1])]


@pytest.mark.parametrize("mode", ["stat", "per_pass"])
def test_counts_are_read(recorder: Callable[..., Any], tmp_path: Path, mode: str) -> None:
    """Dumps that count hold, per model layer, the loads of the experts that were chosen in any replica."""
    made = recorder(mode)
    made.start_record()
    ids = logical(made, passes(made, 7))
    made.stop_record()
    made.dump_record()
    counts = traces.load(tmp_path)
    assert isinstance(counts, LoadCounts)
    assert counts.provenance.format == f"sglang_{mode}"
    assert list(counts.layer_ids) == list(range(DENSE, LAYERS))
    assert counts.load.tolist() == loads(ids)


def test_a_ring_that_wrapped_holds_the_last_passes(recorder: Callable[..., Any], tmp_path: Path) -> None:
    """Of 9 passes, a ring of 4 keeps the last 4: those are the loads that are read."""
    made = recorder("stat", 4)
    made.start_record()
    ids = logical(made, passes(made, 9))
    made.stop_record()
    made.dump_record()
    counts = traces.load(tmp_path)
    assert isinstance(counts, LoadCounts)
    assert counts.load.tolist() == loads(ids[-4 * 11 :])


def test_tokens_are_read(recorder: Callable[..., Any], tmp_path: Path) -> None:
    """A per_token dump holds every token's logical experts, in order, and its top-k of the eight columns."""
    made = recorder("per_token")
    made.start_record()
    ids = logical(made, passes(made, 3))
    made.stop_record()
    made.dump_record()
    trace = traces.load(tmp_path)
    assert isinstance(trace, Trace)
    assert list(trace.layer_ids) == list(range(DENSE, LAYERS))
    assert np.concatenate([batch.topk_ids for batch in trace.batches()]).tolist() == ids.tolist()
