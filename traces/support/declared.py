"""Fields that are declared once: type, range, unit and help in one annotation, read by every door.

A field of a request is ``name: Annotated[type, Ge(0), Unit("s"), doc("What it is.")] = default``, with the markers of
the library `annotated_types`. Python checks ranges by them, the command line makes options of them, REST makes schemas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import DocInfo, Ge, Gt, Le, Lt, Unit

from traces.support.errors import InputError, Violations

__all__ = ["Declared", "check_declared", "check_word", "declared"]

SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What is declared of a field.

    Attributes
    ----------
    name : str
    kind : type or other annotation
        Without None and without markers.
    optional : bool
        Whether None is a value.
    required : bool
        Whether there is no default.
    default : object
        None where there is none, or where it is made by a factory.
    help : str
        A sentence or two.
    unit : str
        Empty where it has none.
    choices : tuple of str
        The words of a `Literal`; empty otherwise.
    low, high : float or None
    open_low, open_high : bool
        Whether the ends themselves are out.
    """

    name: str
    kind: Any
    optional: bool
    required: bool
    default: Any
    help: str
    unit: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    open_low: bool
    open_high: bool

    @property
    def range(self) -> str:
        """The range in words; empty where there is none."""
        words = []
        if self.low is not None:
            words.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high is not None:
            words.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        return " and ".join(words)

    def holds(self, value: Any) -> bool:
        """Whether a number is in the range, and finite."""
        try:
            if not math.isfinite(value):
                return False
        except OverflowError:  # an integer beyond every float
            return False
        low = self.low is None or (value > self.low if self.open_low else value >= self.low)
        high = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return low and high


def declared(owner: type[Any]) -> Mapping[str, Declared]:
    """Return what is declared of the fields of a dataclass that its constructor takes, by name."""
    key: Any = owner  # mypy takes no class for hashable
    return _read(key)


@cache
def _read(owner: Any) -> Mapping[str, Declared]:
    hints = get_type_hints(owner, include_extras=True)
    return {item.name: _declared(item, hints[item.name]) for item in fields(owner) if item.init}


def _declared(item: Any, hint: Any) -> Declared:
    marks = list(_marks(hint))
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    optional = False
    if get_origin(bare) in (Union, UnionType):
        kinds = [kind for kind in get_args(bare) if kind is not NoneType]
        optional = len(kinds) < len(get_args(bare))
        bare = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007  # made from values, not written down
    found: dict[str, Any] = {"low": None, "high": None, "open_low": False, "open_high": False, "help": "", "unit": ""}
    for mark in marks:
        match mark:
            case Ge(low):
                found |= {"low": low}
            case Gt(low):
                found |= {"low": low, "open_low": True}
            case Le(high):
                found |= {"high": high}
            case Lt(high):
                found |= {"high": high, "open_high": True}
            case DocInfo(documentation=text):
                found["help"] = text
            case Unit(unit):
                found["unit"] = unit
            case _:
                pass
    return Declared(
        name=item.name,
        kind=bare,
        optional=optional,
        required=item.default is MISSING and item.default_factory is MISSING,
        default=None if item.default is MISSING else item.default,
        choices=get_args(bare) if get_origin(bare) is Literal else (),
        **found,
    )


def _marks(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Annotated:
        yield from get_args(hint)[1:]


def check_declared(
    value: Any, pointer: str, found: Violations, *, code: str = "", owner: type[Any] | None = None
) -> None:
    """Add a violation for every field of a dataclass whose value is of another type, or out of its range.

    Parameters
    ----------
    value : dataclass
    pointer : str
        JSON pointer of the object; its fields are below.
    found : Violations
    code : str
        Of ranges; ``NAME_range`` by default.
    owner : type, optional
        The class that declares the fields, if it is not that of `value`.
    """
    for item in declared(owner or type(value)).values():
        given, place = getattr(value, item.name), f"{pointer}/{item.name}"
        if given is None and item.optional:
            continue
        if item.choices:
            if given not in item.choices:
                detail = f"{given!r} is not one of {list(item.choices)}."
                found.add("unknown_choice", place, detail, "Choose one of them.")
            continue
        if item.kind not in (int, float, bool):
            kind = get_origin(item.kind) or item.kind
            if (kind in (str, Mapping) or is_dataclass(kind)) and not isinstance(given, kind):
                words = {str: "text", Mapping: "mapping"}.get(kind, kind.__name__)
                found.add("wrong_type", place, f"{type(given).__name__} is no {words}.", f"Give {words}.")
            continue
        number = isinstance(given, (int, float)) or hasattr(given, "__index__") or hasattr(given, "__float__")
        if item.kind is bool or isinstance(given, bool) or not number:
            if not (item.kind is bool and isinstance(given, bool)):
                words = {int: "a whole number", float: "a number", bool: "True or False"}[item.kind]
                found.add("wrong_type", place, f"{given!r} is not {words}.", f"Give {words}.")
        elif item.kind is int and not isinstance(given, int) and given != int(given if math.isfinite(given) else 0):
            found.add("wrong_type", place, f"{given!r} is not a whole number.", "Give a whole number.")
        elif not item.holds(given):
            words = item.range or "finite"
            found.add(
                code or f"{item.name}_range", place, f"{str(given)[:SHOWN]} is out of range.", f"Give a number {words}."
            )


def check_word(name: str, word: str | None, kind: Any) -> str | None:
    """Return the word of a parameter, None where it is left out; InputError if its `Literal` has no such word."""
    if word is not None and word not in get_args(kind):
        detail = f"{word!r:.60} is not one of {list(get_args(kind))}."
        raise InputError.of("unknown_choice", f"/{name}", detail, "Choose one of them, or leave it out.")
    return word
