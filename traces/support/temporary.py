"""Temporary folders that do not stay behind, not even when their process is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["HeldFolder", "held_folder", "sweep_folders"]

PREFIX = "moe-placement-held-"
LOCK = ".held"


class HeldFolder:
    """A folder that is removed when it is closed or forgotten, or when Python ends.

    What a killed process leaves behind goes when the next folder is made: every folder has a file that its process
    holds locked, and the system frees the lock with the process, however it ends. Process ids would not do: containers
    that share a folder do not share them.
    """

    def __init__(self) -> None:
        sweep_folders()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Locked before it has its name: who finds the name free may remove the folder.
        unnamed = self.path / f"{LOCK}.new"
        try:
            handle = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            unnamed.rename(self.path / LOCK)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        self.close = weakref.finalize(self, _remove, str(self.path), handle)


@contextmanager
def held_folder() -> Iterator[Path]:
    """Make a `HeldFolder` for a block."""
    folder = HeldFolder()
    try:
        yield folder.path
    finally:
        folder.close()


def sweep_folders() -> list[Path]:
    """Remove the folders of processes that are gone, and return them.

    Only one's own, with a lock that nobody holds: anything else with such a name stays.
    """
    swept = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            kind = folder.lstat()
            if not stat.S_ISDIR(kind.st_mode) or kind.st_uid != os.getuid():
                continue
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                continue
            _remove(str(folder), handle)
            swept.append(folder)
    return swept


def _remove(path: str, handle: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(handle)
