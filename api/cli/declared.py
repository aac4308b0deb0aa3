"""Options of commands, made from the fields that dataclasses declare, and how errors name them.

A field of `solvers.Request`, or of an object inside it, is an option of every command that asks for one, with the
field's help, unit and default: nothing is listed here but the names that differ.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from api.cli.texts import NONE, choice, number, or_none, read_options, whole
from traces.support.declared import Declared, declared
from traces.support.errors import InputError

if TYPE_CHECKING:
    from api.cli.outputs import Checks

__all__ = ["CONSTRAINTS", "ENGINE", "LIMITS", "MACHINE", "OUTPUT", "WHAT", "Asked", "Knob", "asks", "knobs_of"]

# Groups of a command's help, in this order.
WHAT, MACHINE, ENGINE, CONSTRAINTS, LIMITS, OUTPUT = (
    "What is planned",
    "Machine",
    "Engine and objective",
    "Constraints",
    "Search and limits",
    "Output",
)
PANELS = {
    **dict.fromkeys(("topology", "redundant_experts", "slots_per_gpu", "expert_bytes"), MACHINE),
    **dict.fromkeys(("engine", "objective"), ENGINE),
    "constraints": CONSTRAINTS,
    **dict.fromkeys(("limits", "solver", "options", "seed", "seeds", "start"), LIMITS),
}
# Options whose name is not that of the field.
NAMES = {
    "limits.time_s": "time_limit",
    "limits.work": "work_limit",
    "limits.stall_s": "stall",
    "constraints.layer_load_caps": "layer_load_cap",
    "constraints.pins": "pin",
    "constraints.forbidden": "forbid",
    "constraints.groups": "group",
    "options": "option",
    "drop_dummy_rows": "drop_dummy",
    "num_layers": "model_layers",
    "num_mtp_layers": "mtp_layers",
}
METAVARS = {int: "N", float: "X", "bytes": "BYTES", "tokens": "TOKENS", "s": "S"}
METAVARS |= {"topology": "NxG", "model": "FILE", "start": "PLAN", "layer_ids": "IDS", "engine": "NAME[:ALGORITHM]"}
FIELD = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
NAMED = ("solver", "baseline")  # take the name of a solver, where hyphens are as good as underscores


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One option: a field of a dataclass, or of one inside it.

    Attributes
    ----------
    path : tuple of str
        Names of the fields, from the outermost object.
    item : Declared
    """

    path: tuple[str, ...]
    item: Declared

    @property
    def name(self) -> str:
        """Name of the command's parameter."""
        return NAMES.get(".".join(self.path), self.path[-1])

    @property
    def flag(self) -> str:
        """The option as it is written, ``--load-cap``."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def panel(self) -> str:
        """The group of the help that it stands in."""
        return PANELS.get(self.path[0], WHAT)

    @property
    def repeats(self) -> bool:
        """Whether the option may be given several times."""
        return get_origin(self.item.kind) is tuple or self.is_mapping

    @property
    def is_mapping(self) -> bool:
        """Whether it takes ``KEY=VALUE``."""
        origin = get_origin(self.item.kind)
        return inspect.isclass(origin) and issubclass(origin, Mapping)

    def parameter(
        self, flags: Mapping[str, str], default: Any = None, *, required: bool | None = None
    ) -> inspect.Parameter:
        """Return the parameter of a command, annotated for typer.

        Parameters
        ----------
        flags : mapping
            By field: the help names other options by their flags.
        default : object, optional
            Of the command, where it is not the field's; shown in the help.
        required : bool, optional
            Whether it has to be given; as declared if left out.
        """
        needed = self.item.required if required is None else required
        shown = self._shown(default)
        text = FIELD.sub(lambda match: flags.get(match[0], match[0]), self.item.help)
        text = f"{text} Repeatable." if self.repeats else text
        told: dict[str, Any] = {"help": f"{text}  [default: {shown}]" if shown else text}
        told |= {"rich_help_panel": self.panel, "show_default": False}
        kind: Any
        if self.item.kind is bool:
            kind, pair = bool | None, f"{self.flag}/--no-{self.flag[2:]}"
            option = typer.Option(self.flag if self.item.default is False else pair, **told)
        else:
            parse, metavar = self._form()
            kind = list[str] if self.repeats else str
            kind = kind if needed else kind | None
            option = typer.Option(self.flag, parser=parse, metavar=metavar, **told)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if needed and default is None else None,
            annotation=Annotated[kind, option],
        )

    def _shown(self, default: Any) -> str:
        """Return the default in words; empty where the help says it, or where nothing is the default."""
        value = self.item.default if default is None else default
        if isinstance(value, bool):
            return "yes" if value else ""
        if isinstance(value, (int, float)):
            return f"{value:g}"
        return value.replace("_", "-") if isinstance(value, str) else ""

    def _form(self) -> tuple[Callable[[str], Any], str]:
        """Return what reads the option's text, and what the help shows in its place."""
        item = self.item
        kind = get_args(item.kind)[0] if get_origin(item.kind) is tuple else item.kind
        unit = METAVARS.get(item.unit)
        if item.choices:
            parse: Callable[[str], Any] = choice(*item.choices)
            words = "|".join(name.replace("_", "-") for name in item.choices)
            return (parse if "none" in item.choices or not item.optional else or_none(parse)), words
        if self.is_mapping:
            return str, "KEY=VALUE"
        if kind in (int, float):
            parse, metavar = (whole if kind is int else number), unit or METAVARS[kind]
        elif hasattr(kind, "parse") and hasattr(kind, "FORM"):
            parse, metavar = _parser(kind), kind.FORM
        else:
            parse, metavar = str, METAVARS.get(self.path[-1], "NAME")
            if self.path[-1] in NAMED:
                parse = _name
        if not item.optional or self.repeats:
            return parse, metavar
        return or_none(parse), metavar if item.default is None else f"{metavar}|none"


def _name(text: str) -> str:
    return text.strip().replace("-", "_")


def _parser(kind: Any) -> Callable[[str], Any]:
    """Return what reads a value by its class's own `parse`, and tells wrong usage by its error."""

    def parse(text: str) -> Any:
        try:
            return kind.parse(text)
        except InputError as error:
            told = error.violations[0]
            raise typer.BadParameter(f"{told.detail} {told.remedy}") from None

    return parse


@cache
def knobs_of(owner: type[Any]) -> tuple[Knob, ...]:
    """Return the options that a dataclass declares, those of the objects inside it as well."""
    return tuple(_knobs(owner, ()))


def _knobs(owner: type[Any], path: tuple[str, ...]) -> Iterator[Knob]:
    for item in declared(owner).values():
        below = (*path, item.name)
        if is_dataclass(item.kind) and not hasattr(item.kind, "parse"):
            yield from _knobs(item.kind, below)  # type: ignore[arg-type]  # a class, as it is a field's
        else:
            yield Knob(path=below, item=item)


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
                fields[item.name] = checks.run(lambda kind=kind, said=said: kind(**said))
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
