"""Files appear whole or not at all, at their own place, and what prevents it is bad input."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_ids
from traces import InputError, Profile, Trace, save
from traces.support.atomic import atomic_write, check_writable


def code_of(error: pytest.ExceptionInfo[InputError]) -> str:
    """Return the code of the one violation."""
    (violation,) = error.value.violations
    return violation.code


def write(path: Path, content: bytes = b"new") -> None:
    """Write a file."""
    with atomic_write(path) as file:
        file.write(content)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failing_step_is_an_input_error_and_leaves_the_old_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk may show late; the last file stays whole and no temporary one is left."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "plan.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(InputError, match="No space left") as error:
        write(path)
    monkeypatch.undo()
    assert code_of(error) == "cannot_write"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["t.npz", "t.jsonl", "t.parquet", "profile"])
def test_no_writer_lets_a_full_disk_escape(name: str, tmp_path: Path) -> None:
    """Every format, whose libraries write on their own and again when they close."""
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    trace = Trace.of(random_ids(rng, 5000, 3, 16), num_experts=16)
    profile = Profile.of(trace)
    list(trace.batches())  # compiles what is needed before the limit, as compiled code is kept in files
    write_it = partial(profile.save, tmp_path / "p.npz") if name == "profile" else partial(save, trace, tmp_path / name)
    with pytest.raises(InputError, match="File too large") as error, file_size_limit(1000):
        write_it()
    assert code_of(error) == "cannot_write"
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    """The temporary file does not have the target's name in its own."""
    path = tmp_path / ("n" * 255)
    write(path)
    assert path.read_bytes() == b"new"
    with pytest.raises(InputError, match="too long") as error:
        write(tmp_path / ("n" * 256))
    assert code_of(error) == "cannot_write"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(exists: bool, tmp_path: Path) -> None:
    """Also across folders, through a second link, and where the target is yet to be made."""
    (tmp_path / "far").mkdir()
    target, first, second = tmp_path / "far" / "target", tmp_path / "first", tmp_path / "second"
    if exists:
        target.write_bytes(b"old")
    first.symlink_to("far/target")
    second.symlink_to(first)
    write(second)
    assert second.is_symlink()
    assert first.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert list((tmp_path / "far").iterdir()) == [target]


@pytest.mark.parametrize("check", [write, check_writable])
def test_only_regular_files_are_replaced(check: Any, tmp_path: Path) -> None:
    """Pipes, folders, links to them, and links in a loop stay what they are."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "nowhere").symlink_to("none/file")
    before = sorted(tmp_path.iterdir())
    for name, code in {
        "pipe": "not_a_file",
        "link": "not_a_file",
        "folder": "is_a_folder",
        "loop": "cannot_write",
        "nowhere": "cannot_write",
        "none/file": "cannot_write",
        "n" * 300: "cannot_write",
    }.items():
        with pytest.raises(InputError) as error:
            check(tmp_path / name)
        assert code_of(error) == code, name
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="empty"):
        check(Path())


def test_a_device_is_no_file_to_write() -> None:
    """Only checked, as a superuser's test could harm the device."""
    with pytest.raises(InputError) as error:
        check_writable("/dev/null")
    assert code_of(error) == "not_a_file"


def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    """It returns the file behind the links, and makes none."""
    (tmp_path / "link").symlink_to("target")
    assert check_writable(tmp_path / "link") == tmp_path.resolve() / "target"
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
