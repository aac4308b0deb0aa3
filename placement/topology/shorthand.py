"""Topologies in a word: ``4x8``, ``8+8+4``, ``hgx_h100:4``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from placement.topology.links import MAX_GPUS, PRESETS, Link
from traces import InputError

__all__ = ["Shorthand", "is_shorthand", "parse_shorthand"]

COUNT = r"\d{1,12}"  # what is more is no size of anything


@dataclass(frozen=True, kw_only=True)
class Shorthand:
    """What a shorthand says; arguments of `Topology.of`, under their names."""

    gpus_per_node: tuple[int, ...]
    name: str | None = None
    intra: Link | None = None
    inter: Link | None = None
    memory_gb: float | None = None
    gpus_per_host: int | None = None


def parse_shorthand(text: str) -> Shorthand:
    """Read a shorthand; see `Topology.parse`.

    Raises
    ------
    InputError
    """
    cleaned = text.strip().lower()
    if match := re.fullmatch(rf"({COUNT})x({COUNT})", cleaned):
        nodes, size = int(match[1]), int(match[2])
        _check_size(text, nodes * size)
        return Shorthand(gpus_per_node=(size,) * nodes)
    if re.fullmatch(rf"{COUNT}(\+{COUNT})+", cleaned):
        sizes = tuple(int(size) for size in cleaned.split("+"))
        _check_size(text, sum(sizes))
        return Shorthand(gpus_per_node=sizes)
    preset, _, count = cleaned.replace("-", "_").partition(":")
    if preset in PRESETS and re.fullmatch(rf"({COUNT})?", count):
        known, nodes = PRESETS[preset], int(count or 1)
        _check_size(text, nodes * known.gpus_per_node)
        # One scale for all sizes of a preset, as `inter` is given even for a single node.
        return Shorthand(
            gpus_per_node=(known.gpus_per_node,) * nodes,
            name=f"{preset}:{nodes}",
            intra=known.intra,
            inter=known.inter,
            memory_gb=known.memory_gb,
            gpus_per_host=known.gpus_per_host,
        )
    raise InputError.of(
        "topology_syntax",
        "/topology",
        f"Can't read the topology {text[:60]!r}{'...' * (len(text) > 60)}.",
        f"Write NODESxGPUS (4x8), node sizes (8+8+4), PRESET:NODES with a preset of {sorted(PRESETS)}, or a file.",
    )


def is_shorthand(text: str) -> bool:
    """Whether a text is a shorthand of some topology."""
    try:
        parse_shorthand(text)
    except InputError as error:
        return error.violations[0].code != "topology_syntax"
    return True


def _check_size(text: str, gpus: int) -> None:
    """Refuse a shorthand before anything is made from it."""
    if 1 <= gpus <= MAX_GPUS:
        return
    shown = f"{text[:60]}{'...' * (len(text) > 60)}"
    detail = f"{shown!r} has no GPU." if gpus < 1 else f"{shown!r} has {gpus} GPUs; the most are {MAX_GPUS}."
    remedy = f"Name between 1 and {MAX_GPUS} GPUs in all, as in 4x8: 4 nodes of 8."
    raise InputError.of("topology_size", "/topology", detail, remedy)
