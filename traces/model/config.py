"""Reads a model's layout from its Hugging Face ``config.json``.

Each family says in its own words which layers are MoE layers. The rules are those of the models' code in transformers
5.23 and of the engines that run them. A family that is not known is refused: a rule that is guessed shifts every layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traces.decoding.files import TraceFile, guarded
from traces.model.layout import MAX_LAYERS, ModelLayout
from traces.support.errors import InputError, Violations
from traces.support.text_marks import refuse_marks

__all__ = ["FAMILIES", "ModelLayout", "layout_from_config", "load_model_config"]

MAX_BYTES = 16 << 20
NESTED = ("text_config", "language_config", "llm_config")  # of models that also see or hear
EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "experts_per_token", "moe_top_k", "moe_k")
SAID_ONCE = (
    "num_hidden_layers",
    "first_k_dense_replace",
    "moe_layer_freq",
    "num_nextn_predict_layers",
    *EXPERTS,
    *TOP_K,
)

Rule = Callable[["_Config", int], list[int]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that name their MoE layers alike.

    Attributes
    ----------
    rule : callable
        ``rule(config, num_layers)``: the MoE layers.
    mtp : bool
        Whether layers for multi-token prediction (``num_nextn_predict_layers``) are MoE layers.
    """

    rule: Rule
    mtp: bool = False


@dataclass(frozen=True, kw_only=True)
class _Config:
    """The fields of a config, checked as they are asked for."""

    fields: Mapping[str, Any]
    found: Violations
    place: str

    def whole(self, names: tuple[str, ...], default: int | None = None, least: int = 0) -> int:
        """Return the first of `names` that is there; without a default, one must be."""
        present = [name for name in names if self.fields.get(name) is not None]
        if not present:
            if default is None:
                detail = f"There is no {' or '.join(names)}."
                self.found.add(
                    "missing_field", f"{self.place}/{names[0]}", detail, "Give the model's whole config.json."
                )
            return least if default is None else default
        values = {name: self.fields[name] for name in present}
        first = values[present[0]]
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_LAYERS:
                detail = f"{value!r:.40} is no whole number of {least} to {MAX_LAYERS}."
                self.found.add("field_type", f"{self.place}/{name}", detail, "Correct the config.")
                return least
            if value != first:
                detail = f"{value}, but {present[0]} is {first}."
                self.found.add("fields_differ", f"{self.place}/{name}", detail, "Keep the one that the model uses.")
        return int(first)

    def wholes(self, name: str, below: int) -> list[int] | None:
        """Return a list of layers, None where there is none."""
        value = self.fields.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(entry) is int and 0 <= entry < below for entry in value):
            detail = f"This is no list of layers below {below}."
            self.found.add("field_type", f"{self.place}/{name}", detail, "Correct the config.")
            return []
        return value


def _every(config: _Config, layers: int) -> list[int]:
    return list(range(layers))


def _sparse_step(config: _Config, layers: int) -> list[int]:
    """Qwen: every ``decoder_sparse_step``-th layer, but for those in ``mlp_only_layers``."""
    step = config.whole(("decoder_sparse_step",), 1, least=1)
    dense = set(config.wholes("mlp_only_layers", layers) or [])
    return [layer for layer in range(layers) if (layer + 1) % step == 0 and layer not in dense]


def _first_dense(config: _Config, layers: int) -> list[int]:
    """DeepSeek: the first layers are dense, of the others each whose number ``moe_layer_freq`` divides is not."""
    # The default differs from class to class (0, 1, 3), so that it must be stated.
    first = config.whole(("first_k_dense_replace",))
    step = config.whole(("moe_layer_freq",), 1, least=1)
    return [layer for layer in range(first, layers) if layer % step == 0]


def _interleaved(config: _Config, layers: int) -> list[int]:
    """Llama 4: a list, or every ``interleave_moe_layer_step``-th layer."""
    listed = config.wholes("moe_layers", layers)
    step = config.whole(("interleave_moe_layer_step",), 1, least=1)
    return list(range(step - 1, layers, step)) if listed is None else sorted(listed)


def _interval(config: _Config, layers: int) -> list[int]:
    """ERNIE 4.5: every ``moe_layer_interval``-th layer between two."""
    step = config.whole(("moe_layer_interval",), 1, least=1)
    first = config.whole(("moe_layer_start_index",), 0)
    last = config.fields.get("moe_layer_end_index", -1)
    end = layers - 1 if last in (None, -1) else config.whole(("moe_layer_end_index",))
    return [layer for layer in range(first, min(end, layers - 1) + 1) if (layer + 1) % step == 0]


def _offset(config: _Config, layers: int) -> list[int]:
    """Jamba: every ``expert_layer_period``-th layer from an offset."""
    period = config.whole(("expert_layer_period",), least=1)
    offset = config.whole(("expert_layer_offset",))
    return [layer for layer in range(layers) if layer % period == offset]


def _families() -> dict[str, Family]:
    named: dict[Rule, str] = {
        _every: "mixtral gpt_oss olmoe flex_olmo phimoe granitemoe minimax minimax_m2",
        _sparse_step: "qwen2_moe qwen3_moe qwen3_next qwen3_vl_moe qwen3_vl_moe_text qwen3_5_moe qwen3_5_moe_text",
        _first_dense: "deepseek deepseek_v2 dots1 bailing_moe",
        _interleaved: "llama4 llama4_text",
        _interval: "ernie4_5_moe",
        _offset: "jamba",
    }
    families = {name: Family(rule=rule) for rule, names in named.items() for name in names.split()}
    with_mtp = (
        "deepseek_v3 deepseek_v32 kimi_k2 glm4_moe glm4_moe_lite glm4v_moe glm4v_moe_text glm_moe_dsa bailing_moe_v2"
    )
    return families | {name: Family(rule=_first_dense, mtp=True) for name in with_mtp.split()}


FAMILIES: dict[str, Family] = _families()


def load_model_config(path: str | Path) -> ModelLayout:
    """Read the layout from a ``config.json``.

    Parameters
    ----------
    path : path
        The file that lies beside a model's weights.

    Raises
    ------
    InputError
        If it can't be read, or is not the config of an MoE model of a known family.
    """
    file = TraceFile.of(path)
    if file.size > MAX_BYTES:
        raise InputError.of("file_too_large", file.name, f"A config of {file.size} bytes?", "Name a config.json.")
    refuse_marks(file.head, file.name, utf8=True)
    with guarded(file.name, RecursionError), file.open() as stream:
        content = json.loads(stream.read(MAX_BYTES).decode("utf-8"))
    return layout_from_config(content, f"{file.name}#")


def layout_from_config(content: Any, place: str = "") -> ModelLayout:
    """Read the layout from the content of a ``config.json``.

    Parameters
    ----------
    content : object
        The parsed JSON.
    place : str
        What pointers start with.

    Returns
    -------
    ModelLayout

    Raises
    ------
    InputError
        With a pointer for each field that is missing, contradictory or of a wrong type.
    """
    fields, place = _text_model(content, place)
    found = Violations()
    config = _Config(fields=fields, found=found, place=place)
    name = fields.get("model_type")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    layer_kinds = fields.get("mlp_layer_types")  # transformers 5 lists them in some families
    if family is None and layer_kinds is None:
        remedy = "Give `num_layers` with `first_moe_layer` instead, or list the layers as `layer_ids`."
        detail = f"Model type {name!r:.60} is not known: {', '.join(sorted(FAMILIES))}."
        raise InputError.of("unknown_model_type", f"{place}/model_type", detail, remedy)
    layers = config.whole(("num_hidden_layers",), least=1)
    moe = family.rule(config, layers) if family is not None and layer_kinds is None else []
    if layer_kinds is not None:
        if (
            not isinstance(layer_kinds, list)
            or len(layer_kinds) != layers
            or not all(kind in ("dense", "sparse") for kind in layer_kinds)
        ):
            detail = f"Expected {layers} times 'dense' or 'sparse'."
            found.add("field_type", f"{place}/mlp_layer_types", detail, "Correct the config.")
        else:
            moe = [layer for layer, kind in enumerate(layer_kinds) if kind == "sparse"]
    predicted = config.whole(("num_nextn_predict_layers",), 0)
    notes: tuple[str, ...] = ()
    if predicted and not (family is not None and family.mtp):
        notes = (f"The {predicted} layer(s) for multi-token prediction are not known to be MoE layers; left out.",)
        predicted = 0
    groups = config.whole(("n_group",), 1, least=1)
    chosen = config.whole(("topk_group",), groups, least=1)
    # Routers that take the best experts of all ignore the groups, whatever the config says.
    limited = groups > 1 and fields.get("topk_method") != "greedy"
    experts, top_k = config.whole(EXPERTS, least=1), config.whole(TOP_K, least=1)
    zero = config.whole(("zero_expert_num",), 0)
    found.raise_if_any()
    try:
        return ModelLayout(
            num_layers=layers,
            moe_layers=tuple(moe),
            mtp_layers=tuple(range(layers, layers + predicted)),
            num_experts=experts,
            top_k=top_k,
            num_groups=groups if limited else None,
            groups_per_token=chosen if limited else None,
            zero_experts=zero or None,
            name=str(name),
            notes=notes,
            architecture=_architecture(content),
        )
    except InputError as error:
        found.extend(error, place)
        raise InputError(tuple(found.found)) from None


def _architecture(content: Any) -> str:
    """Return the class that the config names, or nothing: engines choose theirs by it."""
    named = content.get("architectures") if isinstance(content, dict) else None
    first = named[0] if isinstance(named, list) and named else ""
    return first if isinstance(first, str) else ""


def _text_model(content: Any, place: str) -> tuple[Mapping[str, Any], str]:
    """Return the part that describes the language model, and its place."""
    if not isinstance(content, dict):
        raise InputError.of("not_an_object", place or "/", "Expected a JSON object.", "Give the model's config.json.")
    found = Violations()
    for name in NESTED:
        inner = content.get(name)
        if not isinstance(inner, dict):
            continue
        if "num_hidden_layers" not in content:
            return ({"model_type": content.get("model_type")} | inner, f"{place}/{name}")
        for field in SAID_ONCE:
            values = (content.get(field), inner.get(field))
            if None not in values and values[0] != values[1]:
                detail = f"{field} is {values[1]!r:.40} here, but {values[0]!r:.40} at {place}/{field}."
                found.add("fields_differ", f"{place}/{name}/{field}", detail, "Keep the one that the model uses.")
    found.raise_if_any()
    return content, place
