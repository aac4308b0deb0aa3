"""One thread per relaxation: linear algebra must not start threads of its own inside the workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["single_threaded"]

_lock = threading.Lock()
_users = 0
_limits: Any = None


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep BLAS and LAPACK to one thread while any thread of the process is inside.

    Their own threads wait for each other, which on small matrices and busy cores takes ten times as long as the work.
    The limit holds for the whole process: it is set by the first to come in and lifted by the last to leave.
    """
    import scipy.linalg.cython_lapack  # noqa: F401 - a library that is loaded later would not be limited
    from threadpoolctl import threadpool_limits

    global _users, _limits
    with _lock:
        if _users == 0:
            _limits = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limits.restore_original_limits()
                _limits = None
