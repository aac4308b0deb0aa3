"""Where results go: checked before the work begins, so that no search is lost to a wrong path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar, cast

__all__ = ["Checks", "check_outputs"]

Result = TypeVar("Result")


class Checks:
    """Collects the violations of several steps and raises once, when its block ends."""

    def __init__(self) -> None:
        from traces import Violations

        self._found = Violations()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None:
            self._found.raise_if_any()

    def run(self, step: Callable[[], Result]) -> Result:
        """Return what `step` returns; if it raises InputError, nothing of use, as the block's end raises."""
        from traces import InputError

        try:
            return step()
        except InputError as error:
            self._found.extend(error)
            return cast("Result", None)


def check_outputs(outputs: dict[str, Path | None], inputs: tuple[str | Path | None, ...]) -> None:
    """Check that every output can be written and is no input, nor the same file as another output.

    Parameters
    ----------
    outputs : mapping of str to Path or None
        By option, such as ``--output``.
    inputs : tuple of path

    Raises
    ------
    InputError
        With one violation per output at fault.
    """
    from traces import InputError, Violations
    from traces.support.atomic import check_writable

    found = Violations()
    sources = {Path(os.path.realpath(path)) for path in inputs if path is not None}
    taken: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        try:
            target = check_writable(path, option)
        except InputError as error:
            found.extend(error)
            continue
        if target in sources:
            found.add("overwrites_input", str(path), f"{option} would overwrite an input.", "Choose another name.")
        elif target in taken:
            found.add(
                "same_output", str(path), f"{option} and {taken[target]} are the same file.", "Choose another name."
            )
        taken[target] = option
    found.raise_if_any()
