"""DeepSpeed: its gates and routers record, its descriptors are read, and where its checkpoints end up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import traces
from placement import Plan
from placement.exports import Context, Document, export_named
from tests.engines.harness import module
from tests.engines.recipes import python_blocks
from traces import ModelLayout, Trace

EXPERTS, TOP_K, HIDDEN, TOKENS = 8, 2, 16, 40


def model_of(layer: Any, name: str) -> Any:
    """Return a model of two layers, each with a MoE layer under a name."""
    torch: Any = pytest.importorskip("torch")

    class Block(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, layer())

        def forward(self, hidden: Any) -> Any:
            made = getattr(self, name)(hidden)
            return hidden + (made[0] if isinstance(made, tuple) else made).reshape(hidden.shape)

    return torch.nn.Sequential(Block(), Block()).eval()


def run_recipe(model: Any, marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **names: Any) -> Trace:
    """Run the page's recording snippet that has a word in it, on a model, and return the trace."""
    torch: Any = pytest.importorskip("torch")
    torch.manual_seed(0)
    (script,) = [block for block in python_blocks("deepspeed") if marker in block]
    monkeypatch.chdir(tmp_path)
    engine = type("Engine", (), {"module": model})
    script = script.replace("num_experts=64", f"num_experts={EXPERTS}")
    with torch.no_grad():
        exec(compile(script, "script", "exec"), {"engine": engine, "batch": torch.randn(TOKENS, HIDDEN), **names})
    trace = traces.load(tmp_path / "trace0.npz")
    assert isinstance(trace, Trace)
    return trace


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_gate_of_moe_layers_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top_k: int) -> None:
    """The page's snippet records what the gate of `deepspeed.moe.layer.MoE` chose; dropped tokens are -1."""
    torch: Any = pytest.importorskip("torch")
    sharded = module("deepspeed.moe.sharded_moe")
    seen: list[Any] = []

    class Layer(torch.nn.Module):  # type: ignore[misc]
        """The gate, called as `MOELayer` calls it; its experts need a process group."""

        def __init__(self) -> None:
            super().__init__()
            self.gate = sharded.TopKGate(HIDDEN, EXPERTS, top_k, eval_capacity_factor=1.0, min_capacity=1)

        def forward(self, hidden: Any) -> Any:
            output = self.gate(hidden, None, sparse_routes=True)
            seen.append(output)
            return hidden

    monkeypatch.setattr(sharded.groups, "_get_expert_model_parallel_world_size", lambda: 1, raising=False)
    trace = run_recipe(model_of(Layer, "deepspeed_moe"), "deepspeed_moe.gate", tmp_path, monkeypatch)
    ids = np.concatenate([batch.topk_ids for batch in trace.batches()])
    for row, output in enumerate(seen):
        assert len(output) == 7
        assert ids[:, row].T.tolist() == output[3].tolist()
        kept = np.bincount(ids[:, row][ids[:, row] >= 0], minlength=EXPERTS)
        assert kept.max() <= int(output[1])


def test_the_router_of_autoep_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's other snippet records what AutoEP's router chose."""
    routers = module("deepspeed.moe.ep_router")
    seen: list[Any] = []

    def layer() -> Any:
        made = routers.TokenChoiceTopKRouter(
            dim=HIDDEN,
            num_experts=EXPERTS,
            num_expert_groups=None,
            num_limited_groups=None,
            top_k=TOP_K,
            score_func="softmax",
            route_norm=True,
            route_scale=1.0,
            gate_bias=False,
        )
        made.register_forward_hook(lambda _, __, output: seen.append(output))
        return made

    torch: Any = pytest.importorskip("torch")

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.router = layer()

        def forward(self, hidden: Any) -> Any:
            self.router(hidden, None)
            return hidden

    trace = run_recipe(model_of(Layer, "mlp"), ".router", tmp_path, monkeypatch)
    ids = np.concatenate([batch.topk_ids for batch in trace.batches()])
    for row, output in enumerate(seen):
        assert ids[:, row].tolist() == output[1].tolist()


def test_descriptors_go_both_ways() -> None:
    """DeepSpeed's own descriptor is read as the placement that it says; ours is valid there, a broken one nowhere."""
    affine = module("deepspeed.checkpoint.autoep_affine")
    export = export_named("deepspeed")
    made = affine.make_autoep_placement_descriptor(6, [[2, 0], [1, 5], [4, 3]])
    back = export.read(Document("f", json.dumps(made).encode()))
    assert back.physical_to_logical_map.tolist() == [[2, 0, 1, 5, 4, 3]]
    broken = json.loads(json.dumps(made).replace("[2, 0]", "[0, 0]"))
    assert export.check(Document("f", json.dumps(broken).encode()))[0].found
    with pytest.raises(ValueError, match="duplicate"):
        affine.validate_autoep_placement_descriptor(broken)


def autoep(ranks: int) -> tuple[Any, list[Any]]:
    """Return the experts of a small Mixtral's layer, and the layers of all ranks that AutoEP makes of it."""
    transformers: Any = pytest.importorskip("transformers")
    layers, config = module("deepspeed.module_inject.auto_ep_layer"), module("deepspeed.module_inject.auto_ep_config")
    model = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=20,
            hidden_size=HIDDEN,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=EXPERTS,
            num_experts_per_tok=TOP_K,
        )
    )
    settings = config.AutoEPConfig(enabled=True, autoep_size=ranks)
    (spec,) = module("deepspeed.module_inject.auto_ep").AutoEP(model, settings).ep_parser()
    source = model.model.layers[0].mlp
    return source, [layers.AutoEPMoELayer(spec, source, ranks, rank, settings) for rank in range(ranks)]


def test_the_runtime_is_contiguous() -> None:
    """AutoEP's layers take no placement: rank r holds experts r E/S to (r + 1) E/S - 1 of the model."""
    torch: Any = pytest.importorskip("torch")
    source, layers = autoep(4)
    down = source.experts.down_proj
    for rank, layer in enumerate(layers):
        assert torch.equal(layer.experts.w2.float(), down[2 * rank : 2 * rank + 2].float())


def test_an_order_is_what_moves_experts() -> None:
    """Renumbered as our file says, rank r of AutoEP holds what the plan gives it."""
    torch: Any = pytest.importorskip("torch")
    plan = Plan.of([[5, 0, 7, 2, 1, 3, 6, 4]], layer_ids=[0], num_experts=EXPERTS, gpus_per_node=(4,))
    written = export_named("megatron").write(plan, Context(model=ModelLayout.of(1, num_experts=EXPERTS)))
    order = json.loads(written.content)["decoder"]["0"]
    source, _ = autoep(4)
    before = source.experts.down_proj.detach().clone()
    affine = module("deepspeed.checkpoint.autoep_affine")
    blocks = affine.legacy_uniform_autoep_placement_descriptor(EXPERTS, 2, 4)
    renumbered = before[torch.tensor(order)]
    for rank in range(4):
        mine = renumbered[affine.autoep_experts_for_rank(blocks, rank)]
        assert torch.equal(mine, before[plan.physical_to_logical_map[0].reshape(4, 2)[rank].tolist()])
