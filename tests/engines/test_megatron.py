"""Megatron-core's tracers write, we read; its parser takes the page's flags."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import traces
from tests.engines.harness import module
from tests.engines.recipes import commands
from traces import LoadCounts, ModelLayout, Trace

LAYERS, EXPERTS, TOP_K, TOKENS = 3, 8, 2, 9


def chosen(seed: int) -> np.ndarray[Any, Any]:
    """Return the experts of tokens, (T, L, K)."""
    return np.random.default_rng(seed).random((TOKENS, LAYERS, EXPERTS)).argsort(axis=2)[..., :TOP_K]


def ids_of(trace: Any) -> list[Any]:
    """Return the ids of a trace, sorted in each token: a routing map has no order."""
    assert isinstance(trace, Trace)
    ids: list[Any] = np.sort(np.concatenate([batch.topk_ids for batch in trace.batches()]), axis=2).tolist()
    return ids


def test_hooks_count_layers_from_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks of training write the tokens' experts under the modules' numbers, which begin with 0."""
    torch: Any = pytest.importorskip("torch")
    tracing = module("megatron.core.transformer.moe.router_trace")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    tracer = tracing.RouterTracer(str(tmp_path), 10, 0, training_mode=True)
    ids = chosen(1)
    routing_map = torch.zeros((LAYERS, TOKENS, EXPERTS), dtype=torch.bool)
    for layer in range(LAYERS):
        routing_map[layer].scatter_(1, torch.from_numpy(ids[:, layer]), True)
        hook = tracer.make_hook(f"decoder.layers.{layer}.mlp.router")
        hook(SimpleNamespace(topk=TOP_K, layer_number=layer + 1), (), (None, routing_map[layer]))
    tracer.advance_step(100)
    trace = traces.load(tmp_path, model=ModelLayout.of(LAYERS, num_experts=EXPERTS))
    assert list(trace.layer_ids) == [0, 1, 2]
    assert ids_of(trace) == np.sort(ids, axis=2).tolist()


def test_inference_counts_layers_from_one(tmp_path: Path) -> None:
    """The inference path writes `layer_number`, which begins with 1; with the model's layers that is told."""
    torch: Any = pytest.importorskip("torch")
    tracing = module("megatron.core.transformer.moe.router_trace")
    tracer = tracing.RouterTracer(str(tmp_path), 10, 0)
    ids = chosen(2)
    numbers = [layer + 1 for layer in range(LAYERS)]  # as the text generation controller passes them
    tracer.record_indices(torch.from_numpy(ids), layer_ids=numbers)
    tracer.advance_step()
    trace = traces.load(tmp_path, layer_ids=range(LAYERS), num_experts=EXPERTS)
    assert ids_of(trace) == np.sort(ids, axis=2).tolist()


def test_tokens_per_expert_are_read(tmp_path: Path) -> None:
    """The activation logger's files hold our loads, with every microbatch."""
    logging = module("megatron.training.activation_logging")
    logger = logging.ActivationLogger(str(tmp_path))
    counts = np.random.default_rng(3).integers(1, 50, (LAYERS, 2, EXPERTS))
    for layer in range(LAYERS):
        hook = logger._make_tpe_hook("model_chunk0", f"decoder.layers.{layer}.mlp.experts.linear_fc1")
        for microbatch in counts[layer]:
            hook(None, (None, microbatch.tolist()), {}, None)
    logger.save_tpe(100)
    read = traces.load(tmp_path / "tokens_per_expert", model=ModelLayout.of(LAYERS, num_experts=EXPERTS))
    assert isinstance(read, LoadCounts)
    assert read.load.tolist() == counts.sum(axis=1).tolist()


def test_flags_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megatron's parser takes every flag of the page; it has no other name for the number of iterations."""
    arguments = module("megatron.training.arguments")
    runs = commands("megatron", "pretrain_gpt.py")
    assert runs
    for words in runs:
        monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", *words])
        _, unknown = _parse(arguments)
        assert unknown == []
    monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", "--moe-routing-trace-max-iters", "5"])
    assert _parse(arguments)[1] == ["--moe-routing-trace-max-iters", "5"]


def _parse(arguments: Any) -> Any:
    import argparse

    parser = argparse.ArgumentParser(allow_abbrev=False)
    return arguments.add_megatron_arguments(parser).parse_known_args()
