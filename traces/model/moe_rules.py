"""The rules by which configs say which layers have experts."""

from __future__ import annotations

import re
from collections.abc import Callable

from traces.model.families import Family
from traces.model.fields import Fields

__all__ = ["Chosen", "block_layers", "moe_layers"]

Chosen = tuple[list[int], str]
"""MoE layers, and the field that says so."""

DENSE_FIRST = (
    "first_k_dense_replace",
    "num_dense_layers",
    "n_dense_layers",
    "moe_layer_num_skipped",
    "dense_mlp_idx",
)
FREQUENCY = ("moe_layer_freq", "moe_layer_frequency", "is_moe_layer", "moe_layer_layout")
# Names that speak of layers with and without experts: where no rule reads one, not every layer need have experts.
SPEAKS = re.compile(
    r"(?=.*(moe|dense|expert|sparse))(?=.*(layer|block|freq|step|interval|pattern|start|every|ind(ex|ices)|period|offset|replace))"
)
SILENT = re.compile(r"norm|loss|drop|scale|width|size|per_tok|per_layer")
WIDTHS = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size_moe", "expert_intermediate_size")


def moe_layers(fields: Fields, layers: int, extra: int, family: Family | None) -> Chosen:
    """Return the MoE layers by the first rule whose field the config has.

    Parameters
    ----------
    fields : Fields
    layers : int
        Layers of the decoder.
    extra : int
        Layers for multi-token prediction, which some lists go on with.
    family : Family or None
        What is known of the model type.
    """
    for rule in RULES:
        chosen = rule(fields, layers, extra)
        if chosen is not None:
            return chosen
    for name in fields.values:
        if not _tells_layers(name, fields.values[name]):
            continue
        detail = "it may say which layers have experts, and no rule reads it."
        fields.unknown("unknown_model_type", name, f"{fields.called} has {name}: {detail}")
    if family is not None:
        return list(range(family.dense_first, layers)), ""
    if fields.has("intermediate_size") and fields.present(WIDTHS):
        detail = (
            f"its config has a width for dense layers and one for experts ({', '.join(fields.present(WIDTHS))}), and no"
            " field that tells which layers are which."
        )
        fields.unknown("unknown_model_type", "model_type", f"{fields.called}: {detail}")
    return list(range(layers)), ""


def _tells_layers(name: str, value: object) -> bool:
    """Whether a field may say which layers have experts: no switch does, and a frequency of 1 is every layer."""
    if value is None or value == [] or isinstance(value, bool | float) or (value == 1 and "freq" in name):
        return False
    return SPEAKS.match(name) is not None and SILENT.search(name) is None


def block_layers(fields: Fields) -> list[bool] | None:
    """Return for each layer whether its only block has experts, None where layers are not told by such a list.

    ZAYA1 and Nemotron-H have one block per layer: a state, attention, a feed-forward network or experts.
    """
    blocks = fields.values.get("block_configs")
    if isinstance(blocks, list) and any(isinstance(block, dict) and "block_type" in block for block in blocks):
        return [isinstance(block, dict) and block.get("block_type") == "moe" for block in blocks]
    mixed = fields.values.get("zaya_layers")  # "a" for attention, else the experts of the layer
    if isinstance(mixed, list) and mixed:
        if any(entry not in ("a", fields.values.get("num_experts")) for entry in mixed):
            fields.unknown("layer_specific", "zaya_layers", "it has entries besides 'a' and the number of experts.")
        return [entry != "a" for entry in mixed]
    pattern = fields.values.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        letters = [letter for letter in pattern if letter != "|"]
        if not set(letters) <= set("ME*-"):
            fields.unknown(
                "field_type", "hybrid_override_pattern", f"{pattern!r:.40} has letters besides M, E, * and -."
            )
        return [letter == "E" for letter in letters]
    for name in ("layers_block_type", "layer_types", "block_types"):
        kinds = fields.values.get(name)
        if isinstance(kinds, list) and any(kind in ("moe", "mlp") for kind in kinds if isinstance(kind, str)):
            words = fields.words(name)
            return None if words is None else [word == "moe" for word in words]
    return None


def _kinds(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Read a word per layer: dense or sparse; DeepSeek-V4 has hash_moe, which routes by a fixed table, and moe."""
    words = fields.words("mlp_layer_types")
    if words is None:
        return None
    unknown = sorted({word for word in words if not (_is_moe(word) or word in ("dense", "mlp"))})
    if unknown:
        fields.unknown("field_type", "mlp_layer_types", f"layers are called {', '.join(map(repr, unknown[:4]))}.")
    elif len(words) not in (layers, layers + extra):
        fields.unknown("field_type", "mlp_layer_types", f"it has {len(words)} entries for {layers} layers.")
    return [layer for layer, word in enumerate(words[:layers]) if _is_moe(word)], "mlp_layer_types"


def _is_moe(word: str) -> bool:
    return word == "sparse" or "moe" in word.split("_")


def _listed(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Llama 4 lists layers, Step 3 writes the list as a text."""
    for name in ("moe_layers", "moe_layers_enum"):
        listed = fields.wholes(name, layers + extra)
        if listed is not None:
            return [layer for layer in listed if layer < layers], name
    return None


def _frequencies(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """MiMo, EXAONE: 0 or 1 per layer, in a field that may be a step elsewhere; first layers are dense as ever."""
    name = next((name for name in FREQUENCY if isinstance(fields.values.get(name), list)), None)
    if name is None:
        return None
    flags = fields.values[name]
    if not all(flag in (0, 1) for flag in flags) or len(flags) not in (layers, layers + extra):
        fields.unknown("field_type", name, f"this is no 0 or 1 for each of {layers} layers.")
        return [], name
    first = fields.whole(DENSE_FIRST, 0)
    return [layer for layer in range(first, layers) if flags[layer]], name


def _sparse_step(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Qwen: every ``decoder_sparse_step``-th layer, but for those in ``mlp_only_layers``."""
    present = fields.present(("decoder_sparse_step", "mlp_only_layers"))
    if not present:
        return None
    step = fields.whole(("decoder_sparse_step",), 1, least=1)
    dense = set(fields.wholes("mlp_only_layers", layers) or [])
    return [layer for layer in range(layers) if (layer + 1) % step == 0 and layer not in dense], present[0]


def _interval(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """ERNIE 4.5: every ``moe_layer_interval``-th layer between two."""
    present = fields.present(("moe_layer_interval", "moe_layer_start_index", "moe_layer_end_index"))
    if not present:
        return None
    step = fields.whole(("moe_layer_interval",), 1, least=1)
    first = fields.whole(("moe_layer_start_index",), 0)
    last = fields.values.get("moe_layer_end_index")
    end = layers - 1 if last in (None, -1) else fields.whole(("moe_layer_end_index",))
    chosen = [layer for layer in range(first, min(end, layers - 1) + 1) if (layer + 1) % step == 0]
    return chosen, present[0]


def _interleaved(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Llama 4: every ``interleave_moe_layer_step``-th layer."""
    if not fields.has("interleave_moe_layer_step"):
        return None
    step = fields.whole(("interleave_moe_layer_step",), least=1)
    return list(range(step - 1, layers, step)), "interleave_moe_layer_step"


def _offset(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Jamba: every ``expert_layer_period``-th layer from an offset."""
    if not fields.present(("expert_layer_period", "expert_layer_offset")):
        return None
    period = fields.whole(("expert_layer_period",), least=1)
    offset = fields.whole(("expert_layer_offset",))
    return [layer for layer in range(layers) if layer % period == offset], "expert_layer_period"


def _dense_first(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """DeepSeek: the first layers are dense, of the others each whose number ``moe_layer_freq`` divides is not."""
    present = fields.present(DENSE_FIRST)
    if not present:
        return None
    first = fields.whole(DENSE_FIRST)
    step = fields.whole(("moe_layer_freq",), 1, least=1)
    return [layer for layer in range(first, layers) if layer % step == 0], present[0]


def _frequency(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Arctic: every ``moe_layer_frequency``-th layer."""
    if not fields.has("moe_layer_frequency"):
        return None
    step = fields.whole(("moe_layer_frequency",), least=1)
    return list(range(step - 1, layers, step)), "moe_layer_frequency"


def _beside(fields: Fields, layers: int, extra: int) -> Chosen | None:
    """Grok-2: a dense network stands beside the experts of every layer, which is why there is a width of both."""
    return (list(range(layers)), "residual_moe") if fields.values.get("residual_moe") is True else None


# What lists layers comes before what counts them: code that has both goes by the list.
RULES: tuple[Callable[[Fields, int, int], Chosen | None], ...] = (
    _kinds,
    _listed,
    _frequencies,
    _sparse_step,
    _interval,
    _interleaved,
    _offset,
    _dense_first,
    _frequency,
    _beside,
)
