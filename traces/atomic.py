"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from traces.errors import InputError

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an error.

    Parameters
    ----------
    path : path
    mode : str
        ``wb``, or ``w+b`` for writers that read back.

    Raises
    ------
    InputError
        If the folder does not exist or can't be written.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError.of(
            "cannot_write",
            str(target),
            f"Can't write there: {error.strerror}.",
            "Choose a folder that exists and is writable.",
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
