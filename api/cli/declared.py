"""Commands that ask for what dataclasses declare: their options are made from the fields, and collected as `Asked`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from api.cli.knobs import knobs_of
from api.cli.texts import NONE, read_options
from traces.support.declared import declared

if TYPE_CHECKING:
    from api.cli.outputs import Checks

__all__ = ["Asked", "asks"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a command was asked for of one declaration.

    Attributes
    ----------
    owner : type
        The dataclass that declares it.
    said : dict
        By path, such as ``("limits", "time_s")``: what was given, and nothing else; None where it was ``none``.
    """

    owner: type[Any]
    said: dict[tuple[str, ...], Any]

    @classmethod
    def of(cls, owner: type[Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Asked:
        """Take from the parameters of a command what a declaration says."""
        said: dict[tuple[str, ...], Any] = {}
        for knob in knobs_of(owner):
            value = given.get(knob.name)
            if value is None or value == []:
                value = defaults.get(knob.name)
            if value is None:
                continue
            if knob.is_mapping:
                value = read_options(value)
            elif knob.repeats:
                value = tuple(value)
            said[knob.path] = None if value is NONE else value
        return cls(owner=owner, said=said)

    def get(self, *path: str) -> Any:
        """Return what was given, None if nothing was."""
        return self.said.get(path)

    def nested(self) -> dict[str, Any]:
        """Return what was given, object by object."""
        whole: dict[str, Any] = {}
        for path, value in self.said.items():
            place = whole
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
        return whole

    def plain(self) -> dict[str, Any]:
        """Return what was given, object by object, as JSON has it: the body of a request to a service."""
        whole: dict[str, Any] = _plain(self.nested())
        return whole

    def build(self, checks: Checks, **apart: Any) -> Any:
        """Build the object; every violation is collected.

        Parameters
        ----------
        checks : Checks
        **apart
            Fields that the command has read itself, in place of what was given.
        """
        fields = self.parts(checks)
        return checks.run(lambda: self.owner(**(fields | apart)))

    def parts(self, checks: Checks) -> dict[str, Any]:
        """Build the objects inside it; what breaks a rule is left out, and collected."""
        fields = self.nested()
        for item in declared(self.owner).values():
            if is_dataclass(item.kind) and isinstance(said := fields.get(item.name), dict):
                kind: Any = item.kind
                fields[item.name] = checks.run(partial(kind, **said))
                if fields[item.name] is None:
                    del fields[item.name]
        return fields


def asks(
    owner: type[Any],
    name: str = "asked",
    *,
    only: tuple[str, ...] | None = None,
    without: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that a dataclass declares, in place of one parameter.

    Parameters
    ----------
    owner : type
    name : str
        The command's parameter that gets an `Asked`.
    only, without : tuple of str
        Parameters to take, or to leave out; all by default.
    defaults : mapping, optional
        What the command assumes in place of the declared default, by parameter; None: an option need not be given,
        even if the field must be.
    """
    own = {} if defaults is None else defaults
    chosen = [knob for knob in knobs_of(owner) if (only is None or knob.name in only) and knob.name not in without]
    flags = {knob.path[-1]: knob.flag for knob in chosen}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        parameters = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name != name:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            for knob in chosen:
                required = False if knob.name in own else None
                parameters.append(knob.parameter(flags, own.get(knob.name), required=required))

        def run(**given: Any) -> Any:
            mine = {knob.name: given.pop(knob.name, None) for knob in chosen}
            return command(**given, **{name: Asked.of(owner, mine, own)})

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: item for name, item in asdict(value).items() if item is not None}
    return value
