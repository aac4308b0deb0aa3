"""Checkpoints of every MoE code family of transformers, renumbered: the model computes the same, or it is refused."""

from __future__ import annotations

import os
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Plan
from placement.checkpoint import proof
from placement.checkpoint.changes import Change, changes_of, explained
from placement.checkpoint.families import is_proven
from placement.checkpoint.files import read_checkpoint
from placement.checkpoint.orders import orders_of
from placement.checkpoint.proof import check_same, logits_of
from placement.checkpoint.renumber import renumber, write_files
from placement.checkpoint.stack import find_stack
from tests.engines.tiny_models import code_families, model_classes, tiny_model, tiny_of
from traces import InputError, ModelLayout, Violations
from traces.model.config import load_model_config

if "MOE_PLACEMENT_ENGINES" not in os.environ:
    pytest.skip("minutes long: `make engines` runs it", allow_module_level=True)
torch: Any = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
transformers: Any = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # for matrices as small as these
REFUSED = {
    "doge.doge": "no_experts",  # experts are pairs of rows and columns, which have no order of their own
    "ernie4_5_vl_moe.ernie4_5_vl_moe": "tensor_unknown",  # two sets of experts per layer, for text and for images
    "nllb_moe.nllb_moe": "unknown_model_type",  # encoder and decoder
    "switch_transformers.switch_transformers": "unknown_model_type",
}
# Their parts for images are large whatever the config says.
TEXT_ONLY = {"mistral_large4.mistral_large4", "muse_spark.muse_spark"}


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave each of the few experts enough tokens."""
    monkeypatch.setattr(proof, "SEQUENCES", 2)
    monkeypatch.setattr(proof, "TOKENS", 24)


def alive(family: str) -> Any:
    """Return a tiny model whose every weight shows in its logits: none is constant or small."""
    texts = [kind for kind in model_classes(family) if kind.__name__.endswith("TextModel")]
    model = tiny_model(texts[0]) if family in TEXT_ONLY else tiny_of(family)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_meta or not value.is_floating_point() or value.numel() < 2 or "inv_freq" in name:
            continue
        if float(value.std()) == 0 or "balancing" in name:
            value.data.add_(torch.randn_like(value) * 0.2)
        elif "expert" in name and value.ndim > 1:
            value.data.normal_(0, 1.5 * value.shape[-1] ** -0.5)
    return model


def random_plan(layout: ModelLayout) -> Plan:
    """Return a plan in which hardly any expert keeps its number; groups that limit tokens stay whole."""
    rng, experts, groups = np.random.default_rng(5), layout.num_experts or 0, layout.num_groups or 1
    size = experts // groups
    rows = [
        np.concatenate([g * size + rng.permutation(size) for g in rng.permutation(groups)]) for _ in layout.moe_layers
    ]
    return Plan.of(np.array(rows), layer_ids=list(layout.moe_layers), num_experts=experts, gpus_per_node=(2,))


def changes(folder: Path, plan: Plan, layout: ModelLayout) -> dict[str, Change]:
    """Return what a renumbering does to each tensor."""
    files, found = read_checkpoint(folder), Violations()
    stack = find_stack(files, layout, found)
    assert stack is not None
    return changes_of(
        explained(files, stack, layout, plan.num_experts, found), orders_of(plan, layout, stack.layers, found)
    )


def seen(source: Path, partly: Path, config: Any) -> bool:
    """Return whether a proof notices that a part of the model was renumbered only."""
    try:
        check_same(source, partly, config)
    except InputError as error:
        return error.violations[0].code == "model_changed"
    return False


def kind_of(name: str) -> str:
    """Return a tensor's name without numbers."""
    return re.sub(r"\.\d+\.", ".N.", re.sub(r"\.\d+\.", ".N.", name))


@pytest.mark.parametrize("family", code_families())
def test_a_renumbered_model_computes_the_same(family: str, tmp_path: Path) -> None:
    """It does, and no longer does if any one kind of tensor is left as it was: each had to move."""
    if family in ("granite_docling.granite_docling", "vitpose_backbone.vitpose_backbone"):
        pytest.skip("no language model with experts")
    source, target = tmp_path / "source", tmp_path / "target"
    alive(family).save_pretrained(source)
    if family in REFUSED:
        with pytest.raises(InputError, match=REFUSED[family]):
            renumber(random_plan(load_model_config(source / "config.json")), source, target, prove=True)
        return
    layout = load_model_config(source / "config.json")
    plan = random_plan(layout)
    done = renumber(plan, source, target, prove=True)
    assert is_proven(layout.name), f"renumbered exactly, and not in the list: {layout.name}"
    assert done.difference is not None
    assert done.difference < 1e-5
    files, all_changes = read_checkpoint(source), changes(source, plan, layout)
    for number, (kind, names) in enumerate(groupby(sorted(all_changes, key=kind_of), kind_of)):
        left = set(names)
        partly = tmp_path / str(number)
        partly.mkdir()
        write_files(files, partly, {name: change for name, change in all_changes.items() if name not in left})
        assert seen(source, partly, files.config), f"{kind} need not move"


@pytest.mark.parametrize("family", ["deepseek_v3.deepseek_v3"])
def test_groups_that_limit_tokens_are_not_mixed(family: str, tmp_path: Path) -> None:
    """An order that moves an expert to another group is refused, and would change the model."""
    alive(family).save_pretrained(tmp_path / "source")
    layout = load_model_config(tmp_path / "source" / "config.json")
    order = [4, 1, 2, 3, 0, 5, 6, 7]
    plan = Plan.of([order] * 3, layer_ids=[1, 2, 3], num_experts=8, gpus_per_node=(2,))
    with pytest.raises(InputError, match="groups_mixed"):
        renumber(plan, tmp_path / "source", tmp_path / "target")
    assert logits_of(tmp_path / "source", read_checkpoint(tmp_path / "source").config).isfinite().all()
    assert layout.num_groups == 2
