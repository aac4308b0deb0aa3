"""Arguments of another type than is declared are refused like any other wrong input: place, rule, remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache, wraps
from inspect import Parameter, Signature, signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from traces.support.errors import InputError, Violations

__all__ = ["check_names", "checked"]

P = ParamSpec("P")
R = TypeVar("R")

WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "truth value (True or False)",
    str: "text",
    Path: "path",
    Mapping: "mapping",
    dict: "mapping",
    tuple: "sequence",
    list: "sequence",
    Sequence: "sequence",
    Callable: "function",
}
LOOSE: dict[Any, type[Any]] = {int: Integral, float: Real, Path: os.PathLike, dict: Mapping}  # what also goes
SEQUENCES = (tuple, list, Sequence, Collection)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a public function against its annotations before it runs.

    Classes, unions of them, numbers, texts, paths, mappings with their values, and sequences are checked. A class whose
    `MADE_BY` says how to get an object of it is named with that. Under `@classmethod` where there is one.

    Raises
    ------
    InputError
        When the function is called: with every argument of another type, or with the call that it takes where one is
        missing or unknown.
    """
    form = signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = form.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise _miscalled(function.__name__, form, error) from None
        found = Violations()
        for name, hint in _hints(function):
            if name in given:
                _check(found, f"/{name}", given[name], hint)
        if form.parameters and (last := [*form.parameters.values()][-1]).kind is Parameter.VAR_KEYWORD:
            for name, value in given.get(last.name, {}).items():
                _check(found, f"/{name}", value, _looked_up(last.annotation, function))
        found.raise_if_any()
        return function(*args, **kwargs)

    return call


def check_names(given: Collection[str], owner: type[Any] | Sequence[str], of: str) -> None:
    """Refuse names that are no fields of a dataclass; the one that is meant, most likely, is named.

    Parameters
    ----------
    given : collection of str
    owner : type or sequence of str
        A dataclass, or the names.
    of : str
        What the fields are of, such as ``a request``.

    Raises
    ------
    InputError
        With every such name.
    """
    known = list(owner) if isinstance(owner, Sequence) else [item.name for item in fields(owner)]
    found = Violations()
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Fields are {', '.join(known)}."
            found.add("unknown_field", f"/{name}", f"There is no field {name!r} of {of}.", remedy)
    found.raise_if_any()


@cache
def _hints(function: Any) -> tuple[tuple[str, Any], ...]:
    """Return the annotations of the parameters but ``*args`` and ``**kwargs``."""
    several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    items = [item for item in signature(function).parameters.values() if item.kind not in several]
    return tuple((item.name, _looked_up(item.annotation, function)) for item in items)


def _looked_up(hint: Any, function: Any) -> Any:
    """Return what an annotation stands for; Any where it was imported for types alone."""
    if isinstance(hint, str):
        try:
            hint = eval(hint, function.__globals__)  # noqa: S307  our own source
        except NameError:
            return Any
    kinds = [get_origin(kind) or kind for kind in _kinds(hint)]
    if any(getattr(kind, "_is_protocol", False) and kind.__module__.startswith("numpy") for kind in kinds):
        return Any  # what numpy makes an array of differs between its versions, and those who make one check it
    return Any if hint is Parameter.empty else hint


def _check(found: Violations, place: str, value: Any, hint: Any) -> None:
    if _is(value, hint):
        of = next((get_args(kind)[1] for kind in _kinds(hint) if get_origin(kind) is Mapping), Any)
        for name, entry in value.items() if of is not Any and isinstance(value, Mapping) else ():
            _check(found, f"{place}/{name}", entry, of)
        return
    kinds = [get_origin(kind) or kind for kind in _kinds(hint)]
    nouns = [WORDS.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds]
    ways = [kind.MADE_BY for kind in kinds if hasattr(kind, "MADE_BY")]
    rest = [_with_article(noun) for noun, kind in zip(nouns, kinds, strict=True) if not hasattr(kind, "MADE_BY")]
    remedy = " ".join([*ways, *([f"{'Or give' if ways else 'Give'} {' or '.join(rest)}."] if rest else [])])
    found.add("wrong_type", place, f"{type(value).__name__} is no {' or '.join(nouns)}.", remedy)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield what a union is of; None is not told."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        for kind in get_args(hint):
            yield from _kinds(kind)
    elif hint is not NoneType:
        yield hint


def _is(value: Any, hint: Any) -> bool:
    if value is None:
        return hint is None or NoneType in get_args(hint) or hint is Any
    return any(_is_one(value, kind) for kind in _kinds(hint))


def _is_one(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Literal or not isinstance(origin, type):  # a function tells its choices itself
        return origin is not Callable or callable(value)
    if origin in SEQUENCES:
        return not isinstance(value, str | bytes) and hasattr(value, "__iter__")
    if origin.__name__ == "ndarray":  # lists of numbers do
        return not isinstance(value, str | bytes | Mapping) and hasattr(value, "__len__")
    if origin is bool:
        return type(value).__name__ in ("bool", "bool_")  # NumPy's as well
    try:
        return isinstance(value, LOOSE.get(origin, origin))
    except TypeError:  # a protocol that is for types alone
        return True


def _miscalled(name: str, form: Signature, error: TypeError) -> InputError:
    shown = [item for item in form.parameters.values() if item.name not in ("self", "cls")]
    bare = [item.replace(annotation=Parameter.empty) for item in shown]
    remedy = f"Call it as {name}{Signature(bare)}."
    return InputError.of("wrong_call", f"/{name}", f"{str(error)[:1].upper()}{str(error)[1:]}.", remedy)
