"""Compressed files, archives and folders: the same trace as the plain file, and nothing beyond the limits."""

import gc
import gzip
import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from tests.builders.traces import random_ids
from traces import InputError, Trace, load, save
from traces.decoding.bundles import Bundle
from traces.decoding.sources import open_path
from traces.formats import UnpackLimits

IDS = random_ids(0, 50, 3, 8)
Packer = Callable[[bytes], bytes]


def tar(*members: tuple[str, bytes], **fields: Any) -> bytes:
    """Pack members; `fields` are set on every header."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zst(content: bytes) -> bytes:
    """Compress with zstandard."""
    return zstandard.ZstdCompressor().compress(content)


PACKERS: dict[str, Packer] = {
    "gz": gzip.compress,
    "zst": zst,
    "tar": lambda content: tar(("deep/trace", content)),
    "tar.gz": lambda content: gzip.compress(tar(("trace", content))),
    "tar.zst": lambda content: zst(tar(("./trace", content))),
}


def plain(folder: Path, suffix: str = ".npz") -> bytes:
    """Return the content of a trace file."""
    save(Trace.of(IDS, num_experts=8), folder / f"plain{suffix}")
    return (folder / f"plain{suffix}").read_bytes()


def refused(code: str, path: Path, content: bytes | None = None, **options: Any) -> str:
    """Load must fail with `code`; returns the message."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load(path, **options)
    assert code in {violation.code for violation in error.value.violations}, str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".jsonl"])
@pytest.mark.parametrize("packer", PACKERS)
def test_packed_files_are_the_trace_that_was_packed(tmp_path: Path, packer: str, suffix: str) -> None:
    """Whatever the packing, tokens and digest are those of the plain file, and errors name the packed one."""
    content = plain(tmp_path, suffix)
    path = tmp_path / "packed.bin"
    path.write_bytes(PACKERS[packer](content))
    trace, original = load(path), load(tmp_path / f"plain{suffix}")
    assert isinstance(trace, Trace)
    assert isinstance(original, Trace)
    assert np.array_equal(next(trace.batches()).topk_ids, IDS)
    assert trace.digest == original.digest
    assert trace.provenance.source == "packed.bin"


def test_a_folder_with_one_trace_is_that_trace(tmp_path: Path) -> None:
    """Hidden files and subfolders are left out, with a note."""
    folder = tmp_path / "dump"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").write_text("x")
    (folder / "trace.gz").write_bytes(gzip.compress(plain(tmp_path)))
    trace = load(folder)
    assert trace.provenance.source == "dump"
    assert any("hidden files" in note for note in trace.provenance.notes)


def test_bundles_are_sorted_and_hashed_with_their_names(tmp_path: Path) -> None:
    """The same files under other names are another bundle."""
    digests = set()
    for names in (("a", "b"), ("b", "a"), ("a", "c")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name, content in zip(names, ("one", "two"), strict=True):
            (folder / name).write_text(content)
        bundle = open_path(folder, UnpackLimits())
        assert isinstance(bundle, Bundle)
        assert list(bundle.members) == sorted(names)
        assert [base for base, _ in bundle.matching("[ab]")] == sorted({"a", "b"} & {*names})
        digests.add(bundle.sha256())
    assert len(digests) == 3


def test_several_files_of_no_known_format_are_refused(tmp_path: Path) -> None:
    """A trace and something else are not one, nor are two copies of a trace."""
    content = plain(tmp_path)
    refused("files_alike", tmp_path / "t.tar", tar(("a", content), ("b", content)))
    refused("files_alike", tmp_path / "t.tar", format="npz")
    refused("is_a_folder", tmp_path / "t.tar", tar(("a", content), ("b", b"nothing known")))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (tar(("../up", b"x")), "tar_name"),
        (tar(("/etc/passwd", b"x")), "tar_name"),
        (tar(("a/../../b", b"x")), "tar_name"),
        (tar(("a", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"), "tar_member"),
        (tar(("a", b""), type=tarfile.LNKTYPE, linkname="b"), "tar_member"),
        (tar(("a", b""), type=tarfile.CHRTYPE), "tar_member"),
        (tar(("a", b""), type=tarfile.FIFOTYPE), "tar_member"),
        (tar(("a", b"x"), ("a", b"y")), "duplicate_member"),
        (tar(("a", b"x"), ("./a", b"y")), "duplicate_member"),
        (tar(("a", b"")), "empty_file"),
        (tar(("a", b""), type=tarfile.DIRTYPE), "empty_archive"),
        (tar(), "empty_archive"),
        (gzip.compress(tar()), "empty_archive"),
        (tar(("a", gzip.compress(b"x"))), "nested_archive"),
        (tar(("a", tar(("b", b"x")))), "nested_archive"),
        (gzip.compress(gzip.compress(b"x")), "nested_archive"),
        (zst(gzip.compress(b"x")), "nested_archive"),
        (gzip.compress(b""), "empty_file"),
        (gzip.compress(b"content of a file")[:-9], "damaged_file"),
        (zst(b"content of a file" * 100)[:-9], "damaged_file"),
        (tar(("a", bytes(5000)))[:3000], "damaged_file"),
        (tar(("a", b"{}"), ("b", bytes(5000)))[:3000], "damaged_file"),
    ],
)
def test_hostile_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, code: str) -> None:
    """Names that lead out, links, archives in archives and cut-off ones are refused; nothing is left behind."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    message = refused(code, tmp_path / "t", content)
    assert message.startswith("t")
    gc.collect()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["scratch", "t"]


@pytest.mark.parametrize("pack", [gzip.compress, zst, lambda content: gzip.compress(tar(("a", content)))])
def test_bombs_stop_at_the_ratio(tmp_path: Path, pack: Packer) -> None:
    """What unpacks to far more than its size ends at 64 MiB, and a higher ratio lets it pass to the format's reader."""
    path = tmp_path / "bomb"
    path.write_bytes(pack(bytes(80 << 20)))
    assert "unpack=" in refused("unpacks_too_large", path)
    refused("unknown_format", path, unpack=UnpackLimits(max_ratio=1e6))


def test_bombs_stop_at_the_size(tmp_path: Path) -> None:
    """The absolute limit holds for what is written, not for what a header says."""
    refused("unpacks_too_large", tmp_path / "t", gzip.compress(bytes(5000)), unpack=UnpackLimits(max_bytes=4999))
    refused("unknown_format", tmp_path / "t", unpack=UnpackLimits(max_bytes=5000))
    refused(
        "unpacks_too_large", tmp_path / "t", tar(("a", bytes(20)), ("b", bytes(20))), unpack=UnpackLimits(max_bytes=39)
    )


def test_arrays_that_are_compressed_without_end_are_refused(tmp_path: Path) -> None:
    """An npz is not unpacked to a disk, but reading it takes time: the same limits hold."""
    np.savez_compressed(tmp_path / "t.npz", topk_ids=np.zeros((80 << 20, 1, 1), np.uint8))
    refused("unpacks_too_large", tmp_path / "t.npz")
    trace = load(tmp_path / "t.npz", unpack=UnpackLimits(max_ratio=2000))
    assert isinstance(trace, Trace)
    assert trace.num_tokens == 80 << 20


def test_tar_headers_of_any_length_are_not_read(tmp_path: Path) -> None:
    """An extended header is read as a whole by the standard library, so its length is bounded."""
    content = tar(("a", bytes(6 << 20)), type=tarfile.XHDTYPE)
    refused("damaged_file", tmp_path / "t", content)


def test_limits_are_checked() -> None:
    """No limit below one."""
    with pytest.raises(InputError, match="max_ratio"):
        UnpackLimits(max_ratio=float("nan"))


def test_unpacked_files_are_gone_with_the_trace(tmp_path: Path) -> None:
    """The temporary folder lives as long as the trace, and no longer."""
    (tmp_path / "t").write_bytes(gzip.compress(plain(tmp_path)))
    file = open_path(tmp_path / "t", UnpackLimits())
    assert not isinstance(file, Bundle)
    unpacked = file.path
    assert unpacked.exists()
    del file
    gc.collect()
    assert not unpacked.exists()
