"""Checks on the fields of a JSON object: known, present, of the right type down to the last number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.support.json_files import MAX_INT
from traces import Violations

__all__ = ["check_fields", "check_figures", "check_numbers", "check_texts", "integers"]


def check_fields(
    found: Violations, content: Any, required: Mapping[str, Any], optional: Mapping[str, Any], place: str
) -> None:
    """Record fields that are unknown, missing, of a wrong type or beyond 64 bits.

    Parameters
    ----------
    found : Violations
        Takes what is wrong.
    content : object
        Expected to be a JSON object.
    required, optional : mapping of str to type or tuple of types
        Types of the fields; a boolean is no number.
    place : str
        Pointer to the object.
    """
    if not isinstance(content, dict):
        found.add(
            "not_an_object",
            place or "/",
            f"Expected a JSON object, got {type(content).__name__}.",
            "See docs/formats.md.",
        )
        return
    for name in sorted(set(content) - set(required) - set(optional)):
        found.add("unknown_field", f"{place}/{name}", "There is no such field.", "Remove it, or correct its name.")
    for name in required:
        if name not in content:
            found.add("missing_field", f"{place}/{name}", "The field is missing.", "Add it.")
    for name, kinds in {**required, **optional}.items():
        if name in content and not _is(content[name], kinds):
            found.add(
                "field_type", f"{place}/{name}", f"{type(content[name]).__name__} is not the type of this field.", ""
            )
        elif name in content and name != "provenance" and _exceeds_64_bits(content[name]):
            detail = "A number does not fit 64 bits."
            found.add("number_range", f"{place}/{name}", detail, "Correct the number.")


def integers(found: Violations, value: Any, axes: int, pointer: str) -> npt.NDArray[np.int64]:
    """Return nested lists as integers; ragged rows, floats, texts and booleans are violations."""
    remedy = f"Give {axes} level(s) of lists of integers, all rows equally long."
    if (wrong := _first_not(value, axes, (int,), pointer)) is not None:
        found.add("not_integers", wrong, "This is not an integer, or not as deep in lists as it should be.", remedy)
        return np.zeros((1,) * axes, np.int64)
    try:
        array = np.array(value, dtype=np.int64)
    except ValueError:
        array = np.empty(0, dtype=np.int64)
    if array.ndim != axes or not array.size:
        found.add("not_integers", pointer, "The list is empty, or its rows differ in length.", remedy)
        return np.zeros((1,) * axes, np.int64)
    return array


def check_numbers(found: Violations, value: Any, axes: int, pointer: str) -> None:
    """Record the first entry of nested lists that is a text, a boolean or null instead of a number."""
    if (wrong := _first_not(value, axes, (int, float), pointer)) is not None:
        detail = "This is not a number, or not as deep in lists as it should be."
        found.add("not_numbers", wrong, detail, "Write numbers without quotes.")


def check_figures(found: Violations, score: float | None, bound: float | None, place: str) -> None:
    """Record a score or bound that is not finite, and a bound that is above the score by more than rounding."""
    for name, value in (("score", score), ("bound", bound)):
        if value is not None and not math.isfinite(value):
            found.add("not_finite", f"{place}/{name}", f"{value} is not a finite number.", "Correct it, or use null.")
    if score is None or bound is None or not (math.isfinite(score) and math.isfinite(bound)):
        return
    # Both are sums of many numbers, so they differ by rounding, which near 0 is not relative.
    if bound > score and not math.isclose(bound, score, rel_tol=1e-6, abs_tol=1e-9):
        detail = f"The bound {bound} is above the score {score}: no plan gets below a bound, not even this one."
        found.add("bound_above_score", f"{place}/bound", detail, "Correct score and bound, or use null.")


def check_texts(found: Violations, value: Any, pointer: str) -> None:
    """Record the first entry of a list that is not a text."""
    if (wrong := _first_not(value, 1, str, pointer)) is not None:
        found.add("not_text", wrong, "This is not a text.", "Write texts only.")


def _first_not(value: Any, axes: int, kinds: type | tuple[type, ...], pointer: str) -> str | None:
    """Return the pointer of the first entry that is not of `kinds`, `axes` lists deep; None if there is none."""
    if not isinstance(value, list):
        return pointer
    if axes == 1:
        return next((f"{pointer}/{place}" for place, entry in enumerate(value) if not _is(entry, kinds)), None)
    rows = (_first_not(row, axes - 1, kinds, f"{pointer}/{place}") for place, row in enumerate(value))
    return next((wrong for wrong in rows if wrong is not None), None)


def _is(value: Any, kinds: Any) -> bool:
    """Whether a JSON value has a type; True and False are integers to Python, but not here."""
    return isinstance(value, kinds) and (not isinstance(value, bool) or kinds is bool)


def _exceeds_64_bits(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_exceeds_64_bits, value))
    return isinstance(value, int) and abs(value) > MAX_INT
