"""Stdout whose failures, on a full disk say, can be told from those of other files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

__all__ = ["OutputError", "stdout_told"]


class OutputError(OSError):
    """Stdout can't be written."""


@contextmanager
def stdout_told() -> Iterator[None]:
    """Raise `OutputError` in this block where stdout can't be written; what it has not written by then is given up."""
    stream = sys.stdout
    if stream is None:  # closed
        yield
        return
    sys.stdout = told = cast("Any", _Stdout(stream))
    try:
        yield
    except OutputError:
        # The interpreter writes what is left in the buffer on its way out, which would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise
    finally:
        if sys.stdout is told:  # typer puts another in its place where the reader has gone
            sys.stdout = stream


class _Stdout:
    """A stream that differs from the one it stands for in its errors only."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _told():
            return int(self._stream.write(text))

    def flush(self) -> None:
        with _told():
            self._stream.flush()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error
