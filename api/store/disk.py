"""Whether the disk of the data folder has room; asked before a trace is received, and by readiness probes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["disk_problem"]


def disk_problem(folder: Path, min_free_bytes: int) -> str | None:
    """Return why nothing more should be written to the data folder, as a sentence; None if it may be.

    Parameters
    ----------
    folder : Path
    min_free_bytes : int
        Room that is left to plans.
    """
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return f"The data folder can't be used: {error.strerror}."
    if found.f_flag & os.ST_RDONLY:
        return "The disk of the data folder is read-only."
    free = found.f_bavail * found.f_frsize
    if free < min_free_bytes:
        return f"The disk of the data folder has {free} bytes left; {min_free_bytes} are kept free."
    return None
