"""Ctrl-C ends a search even where the exception that it raises is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solvers.searching.search import Search

__all__ = ["ctrl_c_cancels"]


@contextmanager
def ctrl_c_cancels(search: Search) -> Iterator[None]:
    """Let Ctrl-C cancel a search before it raises KeyboardInterrupt, which stays as it is.

    The exception is raised in whatever Python code runs next. Where that is a callback or a finaliser, it is printed at
    most, and the search would go on to its time limit. Only for the main thread, where signals arrive, and where nobody
    has another way to take them.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def cancel(number: int, frame: FrameType | None) -> None:
        search.cancel()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
