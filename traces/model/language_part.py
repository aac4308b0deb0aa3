"""The part of a config that describes the language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from traces.model.fields import EXPERTS, LAYERS, TOP_K
from traces.model.mistral_params import is_params, renamed
from traces.support.errors import InputError, Violations

__all__ = ["Part", "language_part"]

# The first that is there is the language model; other parts may have experts too.
FIRST = ("text_config", "language_config", "llm_config", "language_model_config", "thinker_config", "decoder_config")
BLOCKS = ("hybrid_override_pattern", "layers_block_type", "block_configs", "zaya_layers")
DEPTH = 4
# Fields that ERNIE's models of text and pictures have twice: for the experts of text, then for those of pictures.
TWICE = ("moe_num_experts", "moe_k", "moe_layer_start_index", "moe_layer_end_index", "moe_intermediate_size")
EXPERTS_PARTS = ("ffn_config", "moe_config")
SAID_ONCE = ("first_k_dense_replace", "moe_layer_freq", "num_nextn_predict_layers", *LAYERS, *EXPERTS, *TOP_K)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a config.

    Attributes
    ----------
    fields : mapping
    place : str
    types : tuple of str
        Its model type, then that of what it is part of.
    others : tuple of str
        Places of other parts that have experts.
    """

    fields: Mapping[str, Any]
    place: str
    types: tuple[str, ...]
    others: tuple[str, ...] = ()


def language_part(content: Any, place: str) -> Part:
    """Return the part that describes the language model.

    Parameters
    ----------
    content : object
        The parsed JSON.
    place : str
        What pointers start with.

    Raises
    ------
    InputError
        If the content is no object, or says the same thing twice and differently.
    """
    if not isinstance(content, dict):
        raise InputError.of("not_an_object", place or "/", "Expected a JSON object.", "Give the model's config.json.")
    parts = list(_parts(content, place, (), 0))
    chosen = next((part for part in parts if _has_experts(part.fields)), parts[0])
    _check_said_once(content, place, parts)
    rest = [
        part.place
        for part in parts
        if part is not chosen and _has_experts(part.fields) and _sizes(part.fields) != _sizes(chosen.fields)
    ]
    # A part that contains the chosen one repeats it.
    others = tuple(other for other in rest if not chosen.place.startswith(other))
    fields, twice = _of_text(chosen.fields)
    others = (*others, *(f"{chosen.place}/{name}/1 (pictures)" for name in twice[:1]))
    return Part(fields=fields, place=chosen.place, types=chosen.types, others=others)


def _parts(content: Mapping[str, Any], place: str, above: tuple[str, ...], depth: int) -> Iterator[Part]:
    """Yield the config and the configs in it, the language model's before others."""
    kind = content.get("model_type")
    types = ((kind, *above) if isinstance(kind, str) and kind else above)[:DEPTH]
    if depth == 0 or any(content.get(name) is not None for name in (*LAYERS, *BLOCKS)):
        yield Part(fields=_flattened(content), place=place, types=types)
    if depth == DEPTH:
        return
    nested = [name for name, value in content.items() if name.endswith("_config") and isinstance(value, dict)]
    for name in sorted(nested, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        yield from _parts(content[name], f"{place}/{name}", types, depth + 1)


def _flattened(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """DBRX, and Mistral's own ``params.json``, keep the fields of their experts in a part of their own."""
    if is_params(content):
        return renamed(content)
    for name in EXPERTS_PARTS:
        experts = content.get(name)
        if isinstance(experts, dict):
            return {**experts, **content}
    return content


def _of_text(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return the fields for the experts of text, and the names of those that were said for pictures, too.

    ERNIE-4.5-VL has two sets of experts in a layer, each with its own router: ``ernie45_vl_moe.py`` of vLLM.
    """
    if not any(isinstance(fields.get(name), list) for name in ("moe_layer_start_index", "moe_layer_end_index")):
        return fields, []
    twice = [name for name in TWICE if isinstance(fields.get(name), list) and len(fields[name]) == 2]
    return {**fields, **{name: fields[name][0] for name in twice}}, twice


def _has_experts(fields: Mapping[str, Any]) -> bool:
    return any(fields.get(name) is not None for name in EXPERTS) and any(
        fields.get(name) is not None for name in (*LAYERS, *BLOCKS)
    )


def _sizes(fields: Mapping[str, Any]) -> list[Any]:
    """Return layers, experts and top-k: a part that has those of another one, some configs' ``text_config``, is it."""
    return [fields.get(name) for name in (*LAYERS, *EXPERTS, *TOP_K)]


def _check_said_once(content: Mapping[str, Any], place: str, parts: list[Part]) -> None:
    found = Violations()
    for part in parts[1:]:
        if part.place.removeprefix(f"{place}/") not in FIRST or not _has_experts(content):
            continue
        for field in SAID_ONCE:
            values = (content.get(field), part.fields.get(field))
            if None not in values and values[0] != values[1]:
                detail = f"{field} is {values[1]!r:.40} here, but {values[0]!r:.40} at {place}/{field}."
                found.add("fields_differ", f"{part.place}/{field}", detail, "Keep the one that the model uses.")
    found.raise_if_any()
