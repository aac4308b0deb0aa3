"""Constraints on the command line: their options, and what the texts of pins, groups and single layers' caps mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.reading import number_or_none

if TYPE_CHECKING:
    from placement.problem.constraints import Group, LayerCap, Pin

__all__ = [
    "ExtraBytesOption",
    "ExtraReplicasOption",
    "ForbidOption",
    "GroupOption",
    "LayerLoadCapOption",
    "PinOption",
    "read_constraints",
    "read_groups",
    "read_layer_caps",
    "read_pins",
]

LayerLoadCapOption = Annotated[
    list[str] | None,
    typer.Option(metavar="RATIO@LAYER", help="A load cap for one layer, in place of --load-cap; repeatable."),
]
ExtraReplicasOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Replicas beyond one of each expert, in all layers together."),
]
ExtraBytesOption = Annotated[
    int | None,
    typer.Option(metavar="BYTES", help="The same budget in bytes, all GPUs together; needs --expert-bytes."),
]
PinOption = Annotated[
    list[str] | None, typer.Option(metavar="EXPERT@GPU[@LAYER]", help="Keep a replica of an expert there; repeatable.")
]
ForbidOption = Annotated[
    list[str] | None, typer.Option(metavar="EXPERT@GPU[@LAYER]", help="Keep an expert away from there; repeatable.")
]
GroupOption = Annotated[
    list[str] | None, typer.Option(metavar="E,E,..[@LAYER]", help="Keep experts on one node; repeatable.")
]


def read_constraints(
    *,
    load_cap: str,
    layer_load_cap: Sequence[str] | None,
    pin: Sequence[str] | None,
    forbid: Sequence[str] | None,
    group: Sequence[str] | None,
    **numbers: Any,
) -> dict[str, Any]:
    """Return the keyword arguments of `Constraints`; those that are no texts, such as budgets, go in as they are."""
    return {
        "load_cap": number_or_none(load_cap, "--load-cap"),
        "layer_load_caps": read_layer_caps(layer_load_cap or ()),
        "pins": read_pins(pin or (), "--pin"),
        "forbidden": read_pins(forbid or (), "--forbid"),
        "groups": read_groups(group or ()),
        **numbers,
    }


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
