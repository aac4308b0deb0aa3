"""Fields that are declared once: what is read from an annotation, and what is checked by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt, Unit, doc

from traces.support.declared import check_declared, declared
from traces.support.errors import Violations


@dataclass(frozen=True, kw_only=True)
class Oven:
    """Fields of every kind."""

    shelves: Annotated[int, Ge(1), Le(5), doc("How many shelves.")]
    heat: Annotated[float, Gt(0), Lt(300), Unit("°C"), doc("How hot.")] = 180.0
    fan: Annotated[bool, doc("Whether it blows.")] = False
    mode: Annotated[Literal["top", "bottom"] | None, doc("Where the heat is.")] = None
    timer: Annotated[float | None, Ge(0), Unit("s")] = None
    load: Annotated[int | str, doc("A number or a name.")] = 0
    trays: tuple[str, ...] = ()
    extras: dict[str, Any] = field(default_factory=dict)
    serial: int = field(init=False, default=7)


@dataclass(frozen=True, kw_only=True)
class Bakery(Oven):
    """Declares one more."""

    rooms: Annotated[int, Ge(1)] = 1


def found(value: Any, **options: Any) -> list[tuple[str, str]]:
    """Return codes and pointers of what an object breaks."""
    violations = Violations()
    check_declared(value, "/oven", violations, **options)
    return [(item.code, item.pointer) for item in violations.found]


def test_fields_of_the_constructor_are_declared_in_order() -> None:
    """What the class makes itself is not asked for."""
    assert list(declared(Oven)) == ["shelves", "heat", "fan", "mode", "timer", "load", "trays", "extras"]
    assert list(declared(Bakery))[-1] == "rooms"


@pytest.mark.parametrize(
    ("name", "kind", "optional"),
    [
        ("shelves", int, False),
        ("heat", float, False),
        ("fan", bool, False),
        ("mode", Literal["top", "bottom"], True),
        ("timer", float, True),
        ("load", int | str, False),
        ("trays", tuple[str, ...], False),
    ],
)
def test_kinds_are_without_none_and_marks(name: str, kind: Any, optional: bool) -> None:
    """None is told apart from the type."""
    assert declared(Oven)[name].kind == kind
    assert declared(Oven)[name].optional is optional


def test_defaults() -> None:
    """Without one a field is required; what a factory makes has none to show."""
    found = declared(Oven)
    assert [name for name, item in found.items() if item.required] == ["shelves"]
    assert (found["heat"].default, found["fan"].default) == (180.0, False)
    assert found["extras"].default is None


def test_help_and_units() -> None:
    """Empty where nothing is said."""
    found = declared(Oven)
    assert (found["heat"].help, found["heat"].unit) == ("How hot.", "°C")
    assert (found["timer"].help, found["timer"].unit) == ("", "s")
    assert found["shelves"].unit == ""


def test_choices_are_the_words_of_a_literal() -> None:
    """Optional or not."""
    assert declared(Oven)["mode"].choices == ("top", "bottom")
    assert declared(Oven)["fan"].choices == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [("shelves", "at least 1 and at most 5"), ("heat", "above 0 and below 300"), ("timer", "at least 0"), ("fan", "")],
)
def test_ranges_in_words(name: str, words: str) -> None:
    """As they stand in a remedy."""
    assert declared(Oven)[name].range == words


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [
        ("shelves", 1, True),
        ("shelves", 5, True),
        ("shelves", 6, False),
        ("heat", 0, False),
        ("heat", 300, False),
        ("heat", 299.9, True),
        ("timer", float("inf"), False),
        ("heat", float("nan"), False),
    ],
)
def test_ends_of_a_range(name: str, value: float, holds: bool) -> None:
    """In or out as the mark says; infinity and NaN are in no range."""
    assert declared(Oven)[name].holds(value) is holds


def test_what_keeps_everything_is_fine() -> None:
    """Optional fields may be None, and NumPy's numbers are numbers."""
    whole: Any = np.int64(3)
    assert found(Oven(shelves=2)) == []
    assert found(Oven(shelves=whole, heat=float(np.float32(20.5)), fan=True, mode="top", timer=0)) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"shelves": 2.5}, "wrong_type"),
        ({"shelves": "2"}, "wrong_type"),
        ({"shelves": True}, "wrong_type"),
        ({"shelves": float("inf")}, "wrong_type"),
        ({"shelves": None}, "wrong_type"),
        ({"shelves": 6}, "shelves_range"),
        ({"heat": 0}, "heat_range"),
        ({"heat": [1]}, "wrong_type"),
        ({"heat": float("nan")}, "heat_range"),
        ({"fan": 1}, "wrong_type"),
        ({"fan": "yes"}, "wrong_type"),
        ({"mode": "left"}, "unknown_choice"),
    ],
)
def test_each_rule_has_a_code_and_a_place(change: dict[str, Any], code: str) -> None:
    """Types, ranges and choices."""
    assert found(Oven(**{"shelves": 2, **change})) == [(code, f"/oven/{next(iter(change))}")]


def test_all_violations_are_collected() -> None:
    """In the order of the fields."""
    wrong: dict[str, Any] = {"shelves": 0, "heat": "hot", "fan": None, "mode": "left", "timer": -1}
    assert found(Oven(**wrong)) == [
        ("shelves_range", "/oven/shelves"),
        ("wrong_type", "/oven/heat"),
        ("wrong_type", "/oven/fan"),
        ("unknown_choice", "/oven/mode"),
        ("timer_range", "/oven/timer"),
    ]


def test_ranges_can_have_one_code_together() -> None:
    """Types keep their own."""
    wrong: dict[str, Any] = {"shelves": 0, "heat": "hot"}
    assert found(Oven(**wrong), code="oven_range") == [("oven_range", "/oven/shelves"), ("wrong_type", "/oven/heat")]


def test_the_owner_says_which_fields_are_checked() -> None:
    """A subclass checks its own later."""
    assert found(Bakery(shelves=2, rooms=0), owner=Oven) == []
    assert found(Bakery(shelves=2, rooms=0)) == [("rooms_range", "/oven/rooms")]


def test_remedies_say_what_is_right() -> None:
    """The range or the type in words."""
    violations = Violations()
    wrong: Any = "2"
    check_declared(Oven(shelves=9), "", violations)
    check_declared(Oven(shelves=wrong), "", violations)
    assert [item.remedy for item in violations.found] == [
        "Give a number at least 1 and at most 5.",
        "Give a whole number.",
    ]
