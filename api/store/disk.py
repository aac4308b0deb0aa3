"""Whether the disk of the data folder takes more: asked before a trace is received, and by probes."""

from __future__ import annotations

import os

from api.service.settings import Settings

__all__ = ["disk_problem"]


def disk_problem(settings: Settings) -> str | None:
    """Return why nothing more should be written to the data folder, as a sentence; None if it may be.

    Parameters
    ----------
    settings : Settings
        `data_dir`, `min_free_bytes`.
    """
    try:
        found = os.statvfs(settings.data_dir)
    except OSError as error:
        return f"The data folder can't be used: {error.strerror}."
    if found.f_flag & os.ST_RDONLY:
        return "The disk of the data folder is read-only."
    free = found.f_bavail * found.f_frsize
    if free < settings.min_free_bytes:
        return f"The disk of the data folder has {free} bytes left; {settings.min_free_bytes} are kept free."
    return None
