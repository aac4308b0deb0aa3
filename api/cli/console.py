"""What a command says: results on stdout, everything else on stderr, one JSON document where ``--json`` asks for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "NO_PLAN",
    "Json",
    "error_document",
    "print_json",
    "say",
    "wants_json",
    "write",
]

BAD_INPUT, NO_PLAN, INTERRUPTED = 1, 3, 130
KEY = "moe_placement.json"


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta[KEY] = value  # shared with the group, which reports errors
    return value


Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_remember,
        is_eager=True,
        rich_help_panel="Output",
        help="Print one JSON document on stdout, and nothing else.",
    ),
]


def wants_json(context: typer.Context) -> bool:
    """Whether the running command was asked for JSON."""
    return bool(context.meta.get(KEY))


def write(text: str) -> None:
    """Print a result for people."""
    typer.echo(text)


def say(text: str, kind: str = "") -> None:
    """Print a message on stderr; `kind` is its first word, such as ``note``.

    A note, a warning or a hint may come from the library: the parameters that it names are told as options.
    """
    if kind in ("note", "warning", "hint"):
        from api.cli.errors import words  # reads what is declared, which takes a moment

        text = words(text)
    typer.echo(f"{kind}: {text}" if kind else text, err=True)


def print_json(document: Any) -> None:
    """Print the command's one JSON document."""
    shown = sys.stdout is not None and sys.stdout.isatty()  # None where it is closed
    typer.echo(json.dumps(document, allow_nan=False, indent=2 if shown else None))


def error_document(code: str, violations: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    """Return the JSON document of a command that failed."""
    return {"error": code, "violations": [violation.as_dict() for violation in violations]} | more
