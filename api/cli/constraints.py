"""What the texts of constraints mean: pins, groups, and load caps of single layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from placement.constraints import Group, LayerCap, Pin

__all__ = [
    "read_groups",
    "read_layer_caps",
    "read_pins",
]


def read_pins(texts: Sequence[str], option: str) -> tuple[Pin, ...]:
    """Read ``expert@gpu`` or ``expert@gpu@layer``."""
    from placement import Pin

    pins = []
    for text in texts:
        try:
            expert, gpu, *layer = (int(part) for part in text.split("@"))
            if len(layer) > 1:
                raise ValueError(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not EXPERT@GPU or EXPERT@GPU@LAYER.", param_hint=option) from None
        pins.append(Pin(expert=expert, gpu=gpu, layer_id=layer[0] if layer else None))
    return tuple(pins)


def read_layer_caps(texts: Sequence[str]) -> tuple[LayerCap, ...]:
    """Read ``cap@layer``."""
    from placement import LayerCap

    caps = []
    for text in texts:
        cap, _, layer = text.partition("@")
        try:
            caps.append(LayerCap(layer_id=int(layer), load_cap=float(cap)))
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not RATIO@LAYER, such as 1.1@3.", param_hint="--layer-load-cap"
            ) from None
    return tuple(caps)


def read_groups(texts: Sequence[str]) -> tuple[Group, ...]:
    """Read ``1,2,3`` or ``1,2,3@layer``."""
    from placement import Group

    groups = []
    for text in texts:
        members, at, layer = text.partition("@")
        try:
            experts = tuple(int(part) for part in members.split(","))
            groups.append(Group(experts=experts, layer_id=int(layer) if at else None))
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not EXPERT,EXPERT or EXPERT,EXPERT@LAYER.", param_hint="--group"
            ) from None
    return tuple(groups)
