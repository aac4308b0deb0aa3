"""One option per field that a dataclass declares: its name, its group in the help, and what reads its text.

A field of `solvers.Request`, or of an object inside it, is an option of every command that asks for one, with the
field's help, unit and default: nothing is listed here but the names that differ.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import typer

from api.cli.texts import choice, number, or_none, whole
from traces.support.declared import Declared, declared
from traces.support.errors import InputError

__all__ = ["CONSTRAINTS", "ENGINE", "LIMITS", "MACHINE", "MOVES", "OUTPUT", "WHAT", "Knob", "knobs_of"]

# Groups of a command's help, in this order.
WHAT, MACHINE, ENGINE, CONSTRAINTS, MOVES, LIMITS, OUTPUT = (
    "What is planned",
    "Machine",
    "Engine and objective",
    "Constraints",
    "Moves",
    "Search and limits",
    "Output",
)
PANELS = {
    **dict.fromkeys(("machine", "time", "topology", "redundant_experts", "slots_per_gpu", "expert_bytes"), MACHINE),
    **dict.fromkeys(("dead_gpus", "checkpoint_gb_s"), MACHINE),
    **dict.fromkeys(("horizon_s", "stall_ms", "max_moves", "step_experts", "step_bytes", "staging_experts"), MOVES),
    **dict.fromkeys(("window_passes", "horizon_windows", "alpha"), MOVES),
    **dict.fromkeys(("resident", "memory_gb", "tiers", "cold", "host_gb_s", "host_tflops"), MACHINE),
    **dict.fromkeys(("engine", "objective"), ENGINE),
    "constraints": CONSTRAINTS,
    **dict.fromkeys(("limits", "solver", "options", "seed", "seeds", "start"), LIMITS),
    **dict.fromkeys(("fill_missing", "without_mtp", "layer"), OUTPUT),
    **dict.fromkeys(("model_class", "mtp_model_class", "model_name", "pipeline_stages"), OUTPUT),
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
    "horizon_s": "horizon",
    "num_layers": "model_layers",
    "tiers": "tier",
    "num_mtp_layers": "mtp_layers",
}
METAVARS = {int: "N", float: "X", "bytes": "BYTES", "tokens": "TOKENS", "s": "S"}
METAVARS |= {
    "topology": "NxG",
    "model": "FILE",
    "start": "PLAN",
    "plan": "PLAN",
    "machine": "GPU:NxG",
    "rest_ms": "MS",
    "stall_ms": "MS",
    "checkpoint_gb_s": "GB/S",
    "layer_ids": "IDS",
    "layers": "LAYERS",
    "moe_layers": "IDS",
    "engine": "NAME[:ALGORITHM]",
    "pipeline_stages": "N,N",
}
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


def knobs_of(owner: type[Any]) -> tuple[Knob, ...]:
    """Return the options that a dataclass declares, those of the objects inside it as well."""
    key: Any = owner  # mypy takes no class for hashable
    return _all_knobs(key)


@cache
def _all_knobs(owner: Any) -> tuple[Knob, ...]:
    return tuple(_knobs(owner, ()))


def _knobs(owner: type[Any], path: tuple[str, ...]) -> Iterator[Knob]:
    for item in declared(owner).values():
        below = (*path, item.name)
        if is_dataclass(item.kind) and not hasattr(item.kind, "parse"):
            yield from _knobs(item.kind, below)  # type: ignore[arg-type]  # a class, as it is a field's
        else:
            yield Knob(path=below, item=item)
