"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from traces.support.errors import InputError

__all__ = ["atomic_write", "check_writable"]

PREFIX = ".moe-placement-"  # of temporary files: short, whatever the length of the target's name


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an error.

    Where `path` is a symbolic link, the file that it points to is replaced, and the link stays.

    Parameters
    ----------
    path : path
    mode : str
        ``wb``, or ``w+b`` for writers that read back.

    Raises
    ------
    InputError
        If `path` is something else than a regular file, or can't be written: a folder that does not exist, a full
        disk. Nothing is left behind then.
    """
    target = _target(path, "The output")
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=PREFIX, dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
        temporary.replace(target)
        temporary = None
    except OSError as error:
        raise _cannot_write(path, error, "The output") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def check_writable(path: str | Path, what: str = "The output") -> Path:
    """Return the file that `atomic_write` would make or replace, after a trial in its folder.

    Parameters
    ----------
    path : path
    what : str
        What errors call it, such as ``plan.json``.

    Raises
    ------
    InputError
    """
    target = _target(path, what)
    try:
        with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=target.parent):
            return target
    except OSError as error:
        raise _cannot_write(path, error, what) from error


def _target(path: str | Path, what: str) -> Path:
    """Follow symbolic links to the file that is to be written; refuse folders, pipes and devices."""
    shown = str(path)
    if shown in ("", "."):
        raise InputError.of(
            "is_a_folder", shown, f"{what} is an empty name, or the current folder.", "Name a file to write."
        )
    try:
        kind = Path(path).stat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG  # what it will be
    except (OSError, ValueError) as error:  # a name that is too long, links in a loop
        raise _cannot_write(path, error, what) from error
    if stat.S_ISDIR(kind):
        raise InputError.of("is_a_folder", shown, f"{what} names a folder.", "Name a file in it.")
    if not stat.S_ISREG(kind):
        detail = f"{what} names a pipe or a device, which can't be replaced by a whole file."
        raise InputError.of("not_a_file", shown, detail, "Name a regular file.")
    return Path(os.path.realpath(path))


def _cannot_write(path: str | Path, error: OSError | ValueError, what: str) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "Choose a name in a folder that exists, is writable and has room."
    return InputError.of("cannot_write", str(path), f"{what} can't be written: {reason}.", remedy)
