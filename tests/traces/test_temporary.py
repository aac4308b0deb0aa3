"""Temporary folders: gone with their process, however it ends, and never while it lives."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from traces.support.temporary import PREFIX, HeldFolder, held_folder, sweep_folders

KEEP = """
import sys, time
from traces.support.temporary import HeldFolder
folder = HeldFolder()
(folder.path / "unpacked").write_bytes(bytes(1000))
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a temporary folder of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_killed_process_leaves_nothing_for_long() -> None:
    """The folder of a running process stays; after a SIGKILL the next one that is made sweeps it."""
    process = subprocess.Popen([sys.executable, "-c", KEEP], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert not sweep_folders()
    assert (left / "unpacked").exists()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert left.exists()
    with held_folder() as folder:
        assert folder.exists()
        assert not left.exists()


def test_forgotten_folder_goes(own_tmp: Path) -> None:
    """A folder goes with its block, or with the last thing that knows it, and its lock with it."""
    with held_folder() as folder:
        (folder / "file").touch()
    kept = HeldFolder()
    assert list(own_tmp.iterdir()) == [kept.path]
    handles = open_files()
    del kept
    gc.collect()
    assert not list(own_tmp.iterdir())
    assert open_files() == handles - 1


def test_what_is_not_ours_stays(own_tmp: Path) -> None:
    """A folder without the lock, a file, and a link of that name are left alone, and so is where the link leads."""
    (own_tmp / f"{PREFIX}folder").mkdir()
    (own_tmp / f"{PREFIX}file").touch()
    elsewhere = own_tmp / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".held").touch()
    (own_tmp / f"{PREFIX}link").symlink_to(elsewhere)
    locked = own_tmp / f"{PREFIX}linked-lock"
    locked.mkdir()
    (locked / ".held").symlink_to(elsewhere / ".held")
    before = sorted(own_tmp.rglob("*"))
    assert not sweep_folders()
    assert sorted(own_tmp.rglob("*")) == before
