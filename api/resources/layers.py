"""The model's layers, as requests tell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from api.http.problems import ProblemError
from traces import InputError, ModelLayout, Violation

__all__ = ["LAYER_LIST", "MoeLayers", "check_layers", "layout", "read_layers"]

MAX_LAYER = 1_000_000
LAYER_LIST = r"^[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*$"
MoeLayers = Annotated[
    str | None,
    Query(
        pattern=LAYER_LIST,
        max_length=20_000,
        description="Layers with experts, such as 1,3,5-47, where others lie between them; with `model_layers`.",
    ),
]


def read_layers(field: str, text: str | None) -> list[int] | None:
    """Read ``1,2,5-27``.

    Raises
    ------
    ProblemError
        If the list is too long.
    """
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        layers.extend(range(int(first), int(last or first) + 1))
        if len(layers) > MAX_LAYER:
            raise _refused(f"{field}_range", field, "The list names too many layers.", "Check the ranges.")
    return layers


def check_layers(model_layers: int | None, **parts: object) -> None:
    """Refuse query parameters on the model's layers that have no effect, or say the same thing twice.

    Raises
    ------
    ProblemError
    """
    try:
        _check(model_layers, {name: value for name, value in parts.items() if value is not None})
    except InputError as error:
        first = error.violations[0]
        raise _refused(first.code, first.pointer.lstrip("/"), first.detail, first.remedy) from None


def layout(
    model_layers: int | None,
    first_moe_layer: int | None,
    moe_layers: Sequence[int] | None,
    mtp_layers: int | None = None,
) -> ModelLayout | None:
    """Return the model's layers; None where nobody says how many there are.

    Raises
    ------
    InputError
    """
    parts = {"first_moe_layer": first_moe_layer, "moe_layers": moe_layers, "mtp_layers": mtp_layers}
    _check(model_layers, {name: value for name, value in parts.items() if value is not None})
    if model_layers is None:
        return None
    return ModelLayout.of(
        model_layers,
        first_moe_layer=first_moe_layer or 0,
        moe_layers=moe_layers,
        num_mtp_layers=mtp_layers or 0,
    )


def _check(model_layers: int | None, parts: dict[str, object]) -> None:
    if model_layers is None and parts:
        name = next(iter(parts))
        raise InputError.of(f"{name}_range", f"/{name}", "It needs model_layers.", "Give both, or leave it out.")
    if {"first_moe_layer", "moe_layers"} <= set(parts):
        detail = "first_moe_layer says it already."
        raise InputError.of("moe_layers_twice", "/moe_layers", detail, "Give one of them.")


def _refused(code: str, field: str, detail: str, remedy: str) -> ProblemError:
    violation = Violation(code=code, pointer=f"?{field}", detail=detail, remedy=remedy)
    return ProblemError("invalid-request", detail, [violation])
