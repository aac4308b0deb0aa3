"""Where results go: checked before the work begins, so that no search is lost to a wrong path."""

from __future__ import annotations

import tempfile
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
    from traces import Violations

    found = Violations()
    sources = {Path(path).resolve() for path in inputs if path is not None}
    taken: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        target = path.resolve()
        if path.is_dir():
            found.add("is_a_folder", str(path), f"{option} names a folder.", "Name a file in it.")
        elif target in sources:
            found.add("overwrites_input", str(path), f"{option} would overwrite an input.", "Choose another name.")
        elif target in taken:
            found.add(
                "same_output", str(path), f"{option} and {taken[target]} are the same file.", "Choose another name."
            )
        elif reason := _why_not(target.parent):
            remedy = "Choose a folder that exists and is writable."
            found.add("cannot_write", str(path), f"Can't write there: {reason}.", remedy)
        taken[target] = option
    found.raise_if_any()


def _why_not(folder: Path) -> str | None:
    """Return why no file can be made in `folder`; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
