"""Help of a command in groups, common options first, with an example at its end."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from api.cli.knobs import CONSTRAINTS, ENGINE, LIMITS, MACHINE, MOVES, OUTPUT, WHAT

__all__ = ["GroupedCommand"]

GROUPS = (WHAT, MACHINE, ENGINE, CONSTRAINTS, MOVES, LIMITS, OUTPUT)


class GroupedCommand(TyperCommand):
    """A command whose options are listed group by group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, each group under its title."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            own = OUTPUT if parameter.name == "help" else "Options"
            group = getattr(parameter, "rich_help_panel", None) or own
            if parameter.param_type_name == "argument":
                group = "Arguments"
            rows.setdefault(group, []).append(record)
        if set(rows) <= {"Arguments", "Options", OUTPUT}:  # too few for groups
            rows["Options"] = rows.pop("Options", []) + rows.pop(OUTPUT, [])
        order = ("Arguments", *GROUPS, "Options")
        for group in sorted(rows, key=order.index):
            with formatter.section(group):
                formatter.write_dl(rows[group])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example as it is, without breaking its lines."""
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")
