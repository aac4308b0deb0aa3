"""The command line in the tests' own process."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from api.cli import app

__all__ = ["command", "document", "invoke"]


def invoke(*arguments: object) -> Result:
    """Run a command; whatever it raises is in the result."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def command(*arguments: object) -> Result:
    """Run a command, and fail on any exception but an exit."""
    result = invoke(*arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(*arguments: object) -> Any:
    """Run a command with ``--json`` and return the one document on its stdout."""
    result = command(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
