"""Bodies of requests, made from the one declaration of their fields, and back: from a body to the library's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic import BaseModel, Field, create_model

from traces import InputError, Violations
from traces.support.declared import Declared, declared

__all__ = ["body_model", "build"]

INT64 = (1 << 63) - 1
MAX_ITEMS = 100_000
MAX_TEXT = 200


def body_model(owner: Any, base: type[BaseModel], skip: frozenset[str] = frozenset()) -> type[BaseModel]:
    """Return the model of a dataclass's fields: strict, with their help, ranges and defaults; nested as they are.

    Parameters
    ----------
    owner : type
        Dataclass whose fields are declared as `traces.support.declared` says.
    base : type
        Model to inherit from.
    skip : frozenset of str
        Fields that the caller declares: references to what the service keeps, say.
    """
    return _model(owner, base, skip)


@cache
def _model(owner: Any, base: Any, skip: frozenset[str]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        item.name: _field(item, base) for item in declared(owner).values() if item.name not in skip
    }
    text = (owner.__doc__ or "").strip().split("\n\n", 1)[0]
    model: type[BaseModel] = create_model(f"{owner.__name__}Body", __base__=base, __doc__=text, **fields)
    return model


def _field(item: Declared, base: type[BaseModel]) -> tuple[Any, Any]:
    kind = _kind(item.kind, base)
    limits: dict[str, Any] = {}
    if item.kind in (int, float):
        limits = {
            "gt" if item.open_low else "ge": item.low,
            "lt" if item.open_high else "le": item.high,
        }
        if item.kind is int and item.high is None:
            limits["le"] = INT64  # what no array can hold is refused before one is made
        if item.kind is float:
            limits["allow_inf_nan"] = False
    if item.kind is str:
        limits["max_length"] = MAX_TEXT
    kind = Annotated[kind, Field(**{name: value for name, value in limits.items() if value is not None})]
    text = item.help + (f" In {item.unit}." if item.unit else "")
    if item.required:
        return kind, Field(description=text)
    if is_dataclass(item.kind) and not item.optional:
        return kind, Field(default_factory=body_model(item.kind, base), description=text)
    if get_origin(item.kind) is tuple:
        return kind, Field(default_factory=list, description=text)
    default = item.default if isinstance(item.default, (bool, int, float, str)) else None
    return kind | None if default is None or item.optional else kind, Field(default=default, description=text)


def _kind(kind: Any, base: type[BaseModel]) -> Any:
    """Return the type of a JSON value."""
    if is_dataclass(kind):
        return body_model(kind, base)
    if get_origin(kind) is tuple:
        member = _kind(get_args(kind)[0], base)
        if member is int:
            member = Annotated[int, Field(ge=0, le=INT64)]
        return Annotated[list[member], Field(max_length=MAX_ITEMS)]  # type: ignore[valid-type]  # made from values
    return kind


def build(owner: type[Any], body: Mapping[str, Any], pointer: str, found: Violations, **given: Any) -> Any:
    """Return the object of what a body says; what it leaves out is as the declaration has it.

    Parameters
    ----------
    owner : type
    body : mapping
        Only what was said (``model_dump(exclude_unset=True)``).
    pointer : str
        Of the body.
    found : Violations
        Takes all violations.
    **given
        Fields that are made already.

    Returns
    -------
    object or None
        None if it breaks a rule.
    """
    known, values, broken = declared(owner), dict(given), found.count
    for name, value in body.items():
        if name in given or name not in known:
            continue
        kind = known[name].kind
        if is_dataclass(kind) and value is not None:
            made = build(cast("type[Any]", kind), value, f"{pointer}/{name}", found)
            if made is not None:
                values[name] = made
        elif get_origin(kind) is tuple:
            member = get_args(kind)[0]
            values[name] = tuple(
                build(cast("type[Any]", member), each, f"{pointer}/{name}/{number}", found)
                if is_dataclass(member)
                else each
                for number, each in enumerate(value)
            )
        else:
            values[name] = value
    if found.count > broken:
        return None
    try:
        return owner(**values)
    except InputError as error:
        found.extend(error)
        return None
