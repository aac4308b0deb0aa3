"""Plans as files: saved, loaded, and exported to engines by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Plan
from placement.engines import ENGINES
from placement.exports import EXPORTS, export_named, load_placement
from placement.exports.context import TAKERS, Context
from traces import InputError, ModelLayout

MODEL = ModelLayout.of(3, first_moe_layer=1, num_experts=4)


def plan_for(execution: str | None = "dispatch") -> Plan:
    """Plan of the model's two MoE layers that records how its tokens travel."""
    provenance = {} if execution is None else {"objective": {"execution": execution}}
    table = np.array([[3, 1, 0, 2], [0, 2, 3, 1]])
    return Plan.of(table, layer_ids=[1, 2], num_experts=4, gpus_per_node=(2,), provenance=provenance)


def test_saved_plans_are_loaded(tmp_path: Path) -> None:
    """`Plan.load` is the inverse of `plan.save`."""
    plan = plan_for()
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_other_files_are_not_loaded_as_plans(tmp_path: Path) -> None:
    """Only the project's own plans: engines' files are read by `load_placement`."""
    plan_for().export("sglang", tmp_path / "map.json", model=MODEL)
    with pytest.raises(InputError, match="missing_field"):
        Plan.load(tmp_path / "map.json")
    read = load_placement(tmp_path / "map.json", Context(model=MODEL, gpus_per_node=(2,)))
    assert np.array_equal(read.physical_to_logical_map, plan_for().physical_to_logical_map)


@pytest.mark.parametrize("name", ["sglang", "SGLang", "sglang:static"])
def test_engines_are_named_as_people_do(tmp_path: Path, name: str) -> None:
    """An engine's name, with or without a dispatch algorithm, is the format that it loads."""
    plan_for().export(name, tmp_path / "map.json", model=MODEL)
    rows = json.loads((tmp_path / "map.json").read_text())["physical_to_logical_map"]
    assert rows == [[0, 1, 2, 3], [3, 1, 0, 2], [0, 2, 3, 1]]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_every_engine_names_a_format(engine: Any) -> None:
    """Where an engine loads a file, its name leads to the format."""
    # DeepSpeed has a descriptor of its own, which moves nothing: a plan is applied by renumbering, as for Megatron.
    assert export_named(engine.name).name == ("deepspeed" if engine.name == "deepspeed" else engine.export)


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(InputError, match="sglang"):
        plan_for().export("nothing", tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_a_config_or_its_layers(tmp_path: Path) -> None:
    """A path is read as the model's config."""
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 4, "mlp_only_layers": [],
              "decoder_sparse_step": 1, "num_experts_per_tok": 2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = plan_for().replacing(layer_ids=np.array([0, 1]))
    plan.export("sglang", tmp_path / "map.json", model=tmp_path / "config.json")
    assert len(json.loads((tmp_path / "map.json").read_text())["physical_to_logical_map"]) == 2


def test_a_model_that_is_missing_is_asked_for(tmp_path: Path) -> None:
    """By the parameter's name; nothing is written."""
    with pytest.raises(InputError, match="Give `model`"):
        plan_for().export("sglang", tmp_path / "map.json")
    assert list(tmp_path.iterdir()) == []


def test_names_that_an_engine_would_misread_are_refused(tmp_path: Path) -> None:
    """SGLang goes by the ending."""
    with pytest.raises(InputError, match="output_suffix"):
        plan_for().export("sglang", tmp_path / "map.txt", model=MODEL)


def test_what_was_added_is_told(tmp_path: Path) -> None:
    """Notes say what the engine's file has that the plan has not."""
    part = plan_for().replacing(physical_to_logical_map=np.array([[3, 1, 0, 2]]), layer_ids=np.array([1]))
    notes = part.export("sglang", tmp_path / "map.json", model=MODEL, fill_missing=True)
    assert any("Layer 2 is not in the plan" in note for note in notes)


@pytest.mark.parametrize("to", ["sglang", "vllm", "vllm_pr49572"])
def test_plans_for_another_way_to_travel_are_refused(tmp_path: Path, to: str) -> None:
    """A file that the engine takes, and that is worse than none, is written by force only."""
    path = tmp_path / "map.json"
    with pytest.raises(InputError) as caught:
        plan_for("context_coherent").export(to, path, model=MODEL)
    (violation,) = caught.value.violations
    assert (violation.code, violation.pointer) == ("engine_travels_otherwise", "/engine")
    assert "(dispatch and combine)" in violation.detail
    assert f"engine '{to.partition('_')[0]}'" in violation.remedy
    assert "`force`" in violation.remedy
    assert not path.exists()
    plan_for("context_coherent").export(to, path, model=MODEL, force=True)
    assert path.exists()


def test_dispatch_plans_are_not_for_exflow(tmp_path: Path) -> None:
    """And the other way round."""
    with pytest.raises(InputError, match="engine_travels_otherwise"):
        plan_for("dispatch").export("exflow", tmp_path / "map.csv", model=MODEL)
    plan_for("context_coherent").export("exflow", tmp_path / "map.csv", model=MODEL)


@pytest.mark.parametrize(("to", "execution"), [("csv", "context_coherent"), ("npz", "dispatch"), ("sglang", None)])
def test_formats_of_no_engine_take_any_plan(tmp_path: Path, to: str, execution: str | None) -> None:
    """And a plan that does not say what it was made for is let pass."""
    plan_for(execution).export(to, tmp_path / "map.json", model=MODEL)


def test_options_name_formats_that_there_are() -> None:
    """Options for some formats only: each names a field and formats, and each format knows which it takes."""
    names = {export.name for export in EXPORTS}
    for option, formats in TAKERS.items():
        assert option in Context.__dataclass_fields__
        assert set(formats) <= names
        assert {export.name for export in EXPORTS if option in export.takes} == set(formats)
