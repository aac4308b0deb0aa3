"""What is given for a trace by mistake: a model's config, an engine's answers without routed experts, a wrong name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from traces.decoding.files import TraceFile
from traces.decoding.json_objects import first_keys
from traces.formats.reader import Reader
from traces.formats.shared.answers import is_answers, routed_fields
from traces.support.errors import InputError

__all__ = ["RECORD_ROUTED", "no_such_format", "refuse_by_layer", "refuse_config", "refuse_unrouted", "unknown_content"]

CONFIG_KEYS = frozenset({"num_hidden_layers", "architectures", "hidden_size", "text_config"})
RECORD_ROUTED = (
    "Let the engine return routed experts and record again: `enable_return_routed_experts` of vLLM's server, "
    "`return_routed_experts` in a request to SGLang or LMDeploy, routed_experts among `nvext.extra_fields` of Dynamo."
)
SHOWN_BYTES = 24
LAYER_KEY = re.compile(r"(?:(?:model\.)?layers?[_ .:-]?)?\d{1,5}", re.IGNORECASE)


def refuse_config(file: TraceFile) -> None:
    """Refuse the ``config.json`` of a model.

    Raises
    ------
    InputError
    """
    if not _is_json(file):
        return
    keys = first_keys(file)
    if "topk_ids" not in keys and "model_type" in keys and keys & CONFIG_KEYS:
        detail = "This is the config of a model: it says which layers have experts, not what tokens chose."
        remedy = "Give the recorded trace, and this file as `model` beside it."
        raise InputError.of("is_a_config", file.name, detail, remedy)


def refuse_by_layer(file: TraceFile) -> None:
    """Refuse an object that has an entry per layer: it may hold counts of experts, or ids of tokens.

    Raises
    ------
    InputError
    """
    if file.head.lstrip()[:1] != b"{":
        return
    keys = first_keys(file)
    if keys and all(LAYER_KEY.fullmatch(key) for key in keys):
        detail = "This object has an entry per layer, which is no known format: of counts, or of ids, nothing says."
        remedy = 'Write counts as {"logical_count": [[...], ...]}, a row per layer, or as a table layer,expert,count; '
        remedy += "ids of tokens as arrays (tokens, layers, top-k) in .npz."
        raise InputError.of("by_layer", file.name, detail, remedy)


def refuse_unrouted(file: TraceFile) -> None:
    """Refuse answers of an engine that have no routed experts, or have them in a form that nobody reads.

    Raises
    ------
    InputError
    """
    if not is_answers(file):
        return
    if fields := sorted(routed_fields(file)):
        detail = f"Its routed experts are in no known place or form: {', '.join(map(' as '.join, fields[:4]))}."
        remedy = "Give the answers as the engine sent them."
        raise InputError.of("routed_form", file.name, detail, remedy)
    detail = "These are answers of an engine, and they have no routed experts."
    raise InputError.of("no_routed_experts", file.name, detail, RECORD_ROUTED)


def no_such_format(name: str, readers: Sequence[Reader]) -> InputError:
    """Return the error for a format that nobody reads; the name of an engine gets the formats of that engine."""
    names = [reader.name for reader in readers]
    asked = name.strip().lower().replace("_", "-")
    of_engine = [reader.name for reader in readers if reader.engine == asked]
    if of_engine:
        detail = f"There is no format {name!r:.60}: it is an engine, which writes {', '.join(of_engine)}."
        return InputError.of("unknown_format", "/format", detail, "Leave `format` out: the content tells it.")
    near = get_close_matches(asked.replace("-", "_"), names, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    remedy = f"{guess}Leave `format` out: the content tells it. Formats are {', '.join(names)}."
    return InputError.of("unknown_format", "/format", f"There is no format {name!r:.60}.", remedy)


def unknown_content(file: TraceFile, readers: Sequence[Reader]) -> InputError:
    """Return the error for a file that no reader knows."""
    if file.head.lstrip()[:6] in (b"data: ", b"data:{", b"event:"):
        detail = "This is a stream as the server sent it (server-sent events), with `data:` before each answer."
        remedy = "Keep the answers, one per line, without it and without [DONE]: sed -n 's/^data: *{/{/p' FILE."
        return InputError.of("unknown_format", file.name, detail, remedy)
    detail = f"The content is no known trace format; it begins with {file.head[:SHOWN_BYTES]!r}."
    remedy = f"Give the file as it was recorded. Formats are {', '.join(reader.name for reader in readers)}."
    return InputError.of("unknown_format", file.name, detail, remedy)


def _is_json(file: TraceFile) -> bool:
    return file.head.lstrip()[:1] in (b"{", b"[")
