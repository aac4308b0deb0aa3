"""The layers of the language model in a checkpoint, found by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from placement.checkpoint.files import Checkpoint, Tensor
from placement.checkpoint.roles import has_experts
from traces import ModelLayout, Violations

__all__ = ["Stack", "find_stack"]

LAYER = re.compile(r"^((?:.*?\.)?)(?:layers|blocks|block|h)\.(\d+)\.(.+)$")
MTP = re.compile(r"(?:^|\.)mtp\.$")
OTHER = re.compile(r"(?:^|\.|_)(?:talker|vision|visual|audio|speech|image|code2wav|code_predictor)(?:\.|_)")
NAMED = re.compile(r"(?:^|[._])(?:experts?|routers?|moe)(?:[._]|$)")
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Stack:
    """MoE layers.

    Attributes
    ----------
    layers : dict of int to dict of str to str
        Keys of the tensors of each MoE layer, by layer of the model and name within the layer.
    others : tuple of str
        Where else experts were found: parts of the model that a plan is not for.
    """

    layers: dict[int, dict[str, str]]
    others: tuple[str, ...]


def find_stack(checkpoint: Checkpoint, layout: ModelLayout, found: Violations) -> Stack | None:
    """Return the MoE layers of the language model; None, with a violation, where there are none or too many."""
    tensors = {name: tensor for shard in checkpoint.shards for name, tensor in shard.tensors.items()}
    stacks: dict[str, dict[int, dict[str, str]]] = {}
    for name, prefix, layer, path in _split(tensors):
        stacks.setdefault(prefix, {}).setdefault(layer, {})[path] = name
    moe = {}
    for prefix, layers in stacks.items():
        kept = {layer: paths for layer, paths in layers.items() if _is_moe(paths, tensors)}
        if kept:
            moe[prefix] = kept
    main = [prefix for prefix in moe if not MTP.search(prefix) and not OTHER.search(prefix)]
    if len(main) != 1:
        _refuse(checkpoint, main, found)
        return None
    layers = dict(moe[main[0]])
    for prefix in moe:
        if MTP.search(prefix):
            layers |= {layout.num_layers + layer: paths for layer, paths in moe[prefix].items()}
    inside = {name for paths in stacks.values() for layer in paths.values() for name in layer.values()}
    loose = sorted(name for name in set(tensors) - inside if NAMED.search(name) and not OTHER.search(name))
    for name in loose[:SHOWN]:
        detail = f"{name!r:.120} {list(tensors[name].shape)} belongs to no layer, and its name speaks of experts."
        found.add("tensor_unknown", str(checkpoint.folder), detail, "This version has no rule for this layout.")
    return Stack(layers=layers, others=tuple(sorted(prefix for prefix in moe if OTHER.search(prefix))))


def _split(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str, int, str]]:
    for name in tensors:
        if match := LAYER.match(name):
            yield name, match[1], int(match[2]), match[3]


def _is_moe(paths: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bool:
    return any(has_experts(path, tensors[name]) for path, name in paths.items())


def _refuse(checkpoint: Checkpoint, main: list[str], found: Violations) -> None:
    place = str(checkpoint.folder)
    if not main:
        detail = "No tensor's name shows where the experts of a layer are, listed or stacked."
        remedy = "This version has no rule for this layout; see the documentation for the families that it renumbers."
        found.add("no_experts", place, detail, remedy)
    else:
        names = ", ".join(f"{name}layers" for name in sorted(main))
        detail = f"Several stacks of layers have experts ({names}), and a plan is for one."
        found.add("several_stacks", place, detail, "Models with an encoder and a decoder can't be renumbered.")
