"""What is read from the config of every family of transformers is what its code builds of it."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.tiny_models import expert_modules, folder, model_classes, settings_of
from traces import InputError, ModelLayout
from traces.model.config import layout_from_config

if "MOE_PLACEMENT_ENGINES" not in os.environ:
    pytest.skip("minutes long: `make engines` runs it", allow_module_level=True)
torch: Any = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
transformers: Any = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")
if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24):
    pytest.skip("the families are those of transformers 5.24", allow_module_level=True)

pytestmark = pytest.mark.slow
NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
HASHED = ["hash_moe", "moe", "moe", "moe"]  # of DeepSeek-V4 alone
# Other ways to lay the layers out, tried with every class that has all of their fields.
LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"first_k_dense_replace": 2},
    {"first_k_dense_replace": 0},
    {"num_dense_layers": 3},
    {"mlp_layer_types": ["sparse", "dense", "dense", "sparse"]},
    {"mlp_layer_types": HASHED},
    {"decoder_sparse_step": 2, "mlp_only_layers": []},
    {"decoder_sparse_step": 1, "mlp_only_layers": [1, 2]},
    {"interleave_moe_layer_step": 2},
    {"moe_layers": [0, 3]},
    {"moe_layer_interval": 2, "moe_layer_start_index": 1, "moe_layer_end_index": 2},
    {"expert_layer_period": 3, "expert_layer_offset": 2},
    {"layers_block_type": ["moe", "linear_attention", "moe", "full_attention", "mlp", "moe"]},
)


def config_classes() -> Iterator[tuple[str, Any]]:
    """Yield the classes of configs beside code that mentions experts, with the name of that code."""
    for path in sorted(folder().glob("*/configuration_*.py")):
        code = path.with_name(path.name.replace("configuration", "modeling"))
        texts = [file.read_text(encoding="utf-8") for file in (path, code) if file.exists()]
        if not re.search("expert|moe", "".join(texts), re.IGNORECASE):
            continue
        family = f"{path.parent.name}.{path.stem.removeprefix('configuration_')}"
        module = importlib.import_module(f"transformers.models.{path.parent.name}.{path.stem}")
        for kind in vars(module).values():
            if (
                inspect.isclass(kind)
                and issubclass(kind, transformers.PreTrainedConfig)
                and kind.__module__ == module.__name__
            ):
                yield family, kind


CLASSES = list(config_classes())


def built(family: str, config: Any) -> Any | None:
    """Return the model of a config, without its numbers; None where transformers can't make it."""
    package, _, name = family.partition(".")
    has_code = (folder() / package / f"modeling_{name}.py").exists()
    makers = [kind for kind in model_classes(family) if kind.config_class is type(config)] if has_code else []
    if not has_code:  # a family whose code is another's
        makers = [transformers.AutoModelForCausalLM.from_config]
    found, failed = None, False
    for make in makers:
        try:
            with torch.device("meta"):
                model = make(config)
        except Exception:  # whatever a class says of numbers that it can't take
            failed = True
            continue
        if next(expert_modules(model), None) is not None:
            return model
        found = found or model
    return None if failed else found


def layers_of(model: Any) -> tuple[list[int], set[int], set[int]]:
    """Return the model's MoE layers, and the numbers of experts and of experts per token in their modules."""
    modules, layers, experts, chosen = dict(model.named_modules()), set(), set(), set()
    for name, module in expert_modules(model):
        if (number := NUMBER.search(name)) is None:
            continue
        layers.add(int(number.group(1)))
        above = modules[name.rpartition(".")[0]]
        near = [
            module,
            *(getattr(part, key) for part in (module, above) for key in ("gate", "router") if hasattr(part, key)),
        ]
        experts.add(next(part.num_experts for part in near if isinstance(getattr(part, "num_experts", None), int)))
        chosen |= {part.top_k for part in near if isinstance(getattr(part, "top_k", None), int)}
    return sorted(layers), experts, chosen


def read(config: Any, *, shortened: bool) -> ModelLayout | None:
    """Read a config as it is saved; None where it is refused."""
    try:
        return layout_from_config(json.loads(config.to_json_string(use_diff=shortened)))
    except InputError:
        return None


@pytest.mark.parametrize(("family", "kind"), CLASSES, ids=[kind.__name__ for _, kind in CLASSES])
def test_a_config_is_read_as_its_code_builds_it(family: str, kind: Any) -> None:
    """The default config and small ones, each with its layers laid out in every way that the class has."""
    seen = 0
    for small in (False, True):
        for layout in LAYOUTS if small else LAYOUTS[:1]:
            fields = set(getattr(kind, "__dataclass_fields__", ())) | set(getattr(kind, "attribute_map", ()))
            if not set(layout) <= fields or (HASHED in layout.values() and kind.__name__ != "DeepseekV4Config"):
                continue
            try:
                config = kind(**(settings_of(kind) if small else {}) | layout)
            except Exception:  # a class that does not take these numbers
                continue
            model = built(family, config)
            if model is None or getattr(config, "is_encoder_decoder", False):
                continue
            layers, experts, chosen = layers_of(model)
            for shortened in (False, True):
                found = read(config, shortened=shortened)
                if not layers or len(experts) > 1:
                    assert found is None, "no layer has experts, or not all have as many"
                    continue
                if found is None and getattr(config.get_text_config(), "num_experts_per_tok", 1) is None:
                    continue  # the class's default is not a model
                assert found is not None
                assert (list(found.moe_layers), found.num_experts) == (layers, *experts)
                assert not chosen or {found.top_k} == chosen
            seen += bool(layers)
    if not seen:
        pytest.skip("no language model with experts comes of this class")
