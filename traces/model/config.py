"""Reads a model's layout from its Hugging Face ``config.json``.

Families say in their own words which layers are MoE layers. Their fields are read by rules, with a table of what a
family's code adds, so that a model type that is not in the table is read as well where the rules understand it, with a
note. Where they don't, it is refused: a rule that is guessed shifts every layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from traces.decoding.files import TraceFile, guarded
from traces.model.families import Family, family_of
from traces.model.fields import BY_HAND, EXPERTS, LAYERS, TOP_K, Fields
from traces.model.language_part import Part, language_part
from traces.model.layout import ModelLayout
from traces.model.moe_rules import block_layers, moe_layers
from traces.support.errors import InputError, Violations
from traces.support.text_marks import refuse_marks

__all__ = ["ModelLayout", "layout_from_config", "load_model_config", "read_config"]

MAX_BYTES = 16 << 20
GROUPS = ("n_group", "num_expert_group", "num_expert_groups", "n_expert_groups")
CHOSEN_GROUPS = ("topk_group", "num_limited_groups", "n_limited_groups")
PREDICTED = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "num_mtp_modules", "n_mtp_layers")
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
SHARED_WIDTHS = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
ZERO = ("zero_expert_num",)


def load_model_config(path: str | Path) -> ModelLayout:
    """Read the layout from a ``config.json``.

    Parameters
    ----------
    path : path
        The file that lies beside a model's weights.

    Raises
    ------
    InputError
        If it can't be read, is not the config of an MoE model, or says its layers in words that this version doesn't
        know.
    """
    return layout_from_config(read_config(path), f"{TraceFile.of(path).name}#")


def read_config(path: str | Path) -> Any:
    """Return the parsed JSON of a ``config.json``.

    Raises
    ------
    InputError
        If it can't be read, or is far too large to be one.
    """
    file = TraceFile.of(path)
    if file.size > MAX_BYTES:
        raise InputError.of("file_too_large", file.name, f"A config of {file.size} bytes?", "Name a config.json.")
    refuse_marks(file.head, file.name, utf8=True)
    with guarded(file.name, RecursionError), file.open() as stream:
        return json.loads(stream.read(MAX_BYTES).decode("utf-8"))


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
        Its `notes` say what was left to the code of the model type, or assumed.

    Raises
    ------
    InputError
        With a pointer for each field that is missing, contradictory or not understood.
    """
    part = language_part(content, place)
    name = part.types[0] if part.types else ""
    fields = Fields(values=part.fields, place=part.place, name=name, found=Violations())
    family = family_of(*part.types)
    known = family or Family()
    _check_any(fields, known)
    if family is None:
        _check_told(fields)
    _check_layer_specific(fields)
    blocks = block_layers(fields)
    layers = fields.whole(known.layers or LAYERS, least=1) if blocks is None else len(blocks)
    predicted = fields.whole(PREDICTED, 0)
    if blocks is None:
        moe, by = moe_layers(fields, layers, predicted, family)
    else:
        moe, by = [layer for layer, block in enumerate(blocks) if block], "layers_block_type"
    experts, top_k = fields.whole(EXPERTS, least=1), known.top_k or fields.whole(TOP_K, least=1)
    notes = _notes(fields, part, family, by, blocks)
    mtp, note = _predicted(fields, known, predicted)
    groups = fields.whole(GROUPS, 1, least=1)
    chosen = fields.whole(CHOSEN_GROUPS, groups, least=1)
    # Routers that take the best experts of all ignore the groups, whatever the config says.
    limited = groups > 1 and fields.values.get("topk_method") != "greedy"
    shared, zero = _shared(fields, known), fields.whole(ZERO, known.zero)
    fields.found.raise_if_any()
    if known.one_is_dense and experts == 1:
        raise _no_layers(fields, f"its one expert is an ordinary layer ({name}).")
    try:
        return ModelLayout(
            num_layers=layers,
            moe_layers=tuple(moe),
            mtp_layers=tuple(range(layers, layers + mtp)),
            num_experts=experts,
            top_k=top_k,
            num_groups=groups if limited else None,
            groups_per_token=chosen if limited else None,
            num_shared_experts=shared,
            zero_experts=zero or None,
            name=name,
            notes=tuple(text for text in (*notes, note) if text),
            architecture=_architecture(content),
        )
    except InputError as error:
        fields.found.extend(error, part.place)
        raise fields.found.error() from None


def _architecture(content: Any) -> str:
    """Return the class that the config names, or nothing: engines choose theirs by it."""
    named = content.get("architectures") if isinstance(content, dict) else None
    first = named[0] if isinstance(named, list) and named else ""
    return first if isinstance(first, str) else ""


def _check_any(fields: Fields, family: Family) -> None:
    """Refuse a model without experts in words that say so."""
    if fields.values.get("is_encoder_decoder") is True or fields.present(("encoder_sparse_step",)):
        fields.unknown(
            "unknown_model_type", "is_encoder_decoder", "encoder and decoder count their layers from 0 each."
        )
        raise fields.found.error()
    off = family.switch is not None and fields.values.get(family.switch) is not True
    if off:
        raise _no_layers(fields, f"{family.switch} is not true.")
    present = fields.present(EXPERTS)
    if present and all(fields.values[name] in (0, []) for name in present):
        raise _no_layers(fields, f"{present[0]} is {fields.values[present[0]]!r}.")


def _check_told(fields: Fields) -> None:
    """Refuse a model type that is not known and does not tell its layers and experts."""
    missing = [names[0] for names in (EXPERTS, TOP_K) if not fields.present(names)]
    if missing:
        lacks = f"no {' and no '.join(missing)} under any name that is known."
        detail = f"This version doesn't know model type {fields.called}, and its config has {lacks}"
        if not fields.name:
            detail = f"The config has no model_type, and {lacks} Is it the config.json of an MoE model?"
        raise InputError.of("unknown_model_type", f"{fields.place}/model_type", detail, BY_HAND)


def _no_layers(fields: Fields, detail: str) -> InputError:
    return InputError.of(
        "no_layers", f"{fields.place}/", f"The model has no MoE layer: {detail}", "Give the config of an MoE model."
    )


def _check_layer_specific(fields: Fields) -> None:
    """Refuse numbers of experts that single layers have to themselves."""
    own, blocks = fields.values.get("per_layer_config"), fields.values.get("block_configs")
    layers = [(f"per_layer_config/{layer}", changes) for layer, changes in own.items()] if isinstance(own, dict) else []
    if isinstance(blocks, list):  # Nemotron-H after Puzzle
        layers += [(f"block_configs/{layer}", block) for layer, block in enumerate(blocks)]
    for place, changes in layers:
        told = [n for n in (*EXPERTS, *TOP_K) if isinstance(changes, dict) and changes.get(n) is not None]
        differing = [name for name in told if changes[name] != fields.values.get(name)]
        if differing:
            fields.unknown("layer_specific", f"{place}/{differing[0]}", "layers differ in experts.")
            return


def _predicted(fields: Fields, family: Family, count: int) -> tuple[int, str]:
    """Return how many layers for multi-token prediction are MoE layers, and a note where that is not known."""
    words = fields.values.get("mtp_mlp_layer_types")
    if count == 0 or family.mtp is False:
        return 0, ""
    if isinstance(words, list) and len(words) == count and len(set(map(str, words))) == 1:
        return (count, "") if words[0] == "sparse" else (0, "")
    if family.mtp:
        return count, ""
    return 0, f"The {count} layer(s) for multi-token prediction are not known to be MoE layers; left out."


def _shared(fields: Fields, family: Family) -> int | None:
    if fields.present(SHARED):
        return fields.whole(SHARED, 0)
    widths = [fields.values[name] for name in fields.present(SHARED_WIDTHS) if isinstance(fields.values[name], int)]
    return int(any(width > 0 for width in widths)) if widths else family.shared


def _notes(fields: Fields, part: Part, family: Family | None, by: str, blocks: list[bool] | None) -> list[str]:
    notes = []
    if family is None:
        how = f"its MoE layers are read from {by}" if by else "its config names no dense layer, so every layer is one"
        what = f"Model type {fields.called} is not known to this version"
        notes.append(f"{what if fields.name else 'The config has no model_type'}; {how}. {BY_HAND}")
    elif not by and family.dense_first:
        notes.append(
            f"The config names no dense layers; {fields.name} has {family.dense_first} before its first MoE layer."
        )
    said = fields.present(TOP_K)
    if family is not None and family.top_k and said and fields.values[said[0]] != family.top_k:
        notes.append(f"{fields.name} routes every token to {family.top_k} experts, whatever {said[0]} says.")
    if blocks is not None and fields.has("num_hidden_layers") and fields.values["num_hidden_layers"] != len(blocks):
        notes.append(f"The model has the {len(blocks)} layers that are listed, whatever num_hidden_layers says.")
    if part.others:
        notes.append(f"Experts of {', '.join(part.others)} were left out: a plan is for one model at a time.")
    return notes
