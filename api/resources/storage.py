"""What is refused when the disk of the data folder is nearly full: files first, then what is kept in the database."""

from __future__ import annotations

from api.http.problems import ProblemError
from api.settings.settings import Settings
from api.store.disk import disk_problem

__all__ = ["refuse_file_when_full", "refuse_when_full", "storage_problem"]

# Of `min_free_bytes`: room that is left for the plans that run and for changes of what is kept already.
RESERVED_PART = 4


def refuse_file_when_full(settings: Settings) -> None:
    """Refuse a file before it is sent, if it would leave plans too little room on the disk.

    Raises
    ------
    ProblemError
    """
    _refuse(settings, settings.min_free_bytes)


def refuse_when_full(settings: Settings) -> None:
    """Refuse what would be kept in the database, if the last part of the room is reached.

    Raises
    ------
    ProblemError
    """
    _refuse(settings, settings.min_free_bytes // RESERVED_PART)


def storage_problem(error: OSError) -> ProblemError:
    """Return what a client is told when the disk does not take a file."""
    return ProblemError("storage-full", f"The file can't be written: {error.strerror or 'disk error'}.")


def _refuse(settings: Settings, free_bytes: int) -> None:
    if (reason := disk_problem(settings.data_dir, free_bytes)) is not None:
        raise ProblemError("storage-full", reason)
