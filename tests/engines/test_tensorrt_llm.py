"""TensorRT-LLM reads our YAML by its own class, where its source is in the folder: on PyPI it is a stub only."""

from __future__ import annotations

import ast
import typing
from typing import Any

import numpy as np
import pytest
import yaml

from placement import Plan
from placement.exports import Context, Document, export_named
from tests.engines.harness import GPUS, MODEL, SLOTS, engine


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
