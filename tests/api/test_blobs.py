"""Blobs: content-addressed, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from api.store.blobs import Blobs, Incoming


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """Return an empty folder of blobs."""
    return Blobs(tmp_path)


def receive(blobs: Blobs, content: bytes) -> Incoming:
    """Receive `content` in two parts."""
    incoming = blobs.receive()
    incoming.write(content[:3])
    incoming.write(content[3:])
    incoming.finish()
    return incoming


def test_name_is_the_digest(blobs: Blobs) -> None:
    """A blob is named by the SHA-256 of its content, and has that content."""
    incoming = receive(blobs, b"content")
    blobs.keep(incoming)
    assert incoming.blob_id == "sha256:" + hashlib.sha256(b"content").hexdigest()
    assert blobs.path(incoming.blob_id).read_bytes() == b"content"
    assert not incoming.path.exists()


def test_same_content_is_kept_once(blobs: Blobs, tmp_path: Path) -> None:
    """Keeping the same content again leaves one file, and no unfinished one."""
    for _ in range(2):
        blobs.keep(receive(blobs, b"content"))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_discarded_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    """A file that is not kept disappears."""
    incoming = blobs.receive()
    incoming.write(b"half")
    incoming.discard()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_other_digests_on_request(blobs: Blobs) -> None:
    """Digests that a client states are computed on the way."""
    incoming = blobs.receive(["sha-512"])
    incoming.write(b"content")
    assert incoming.digest("sha-512") == hashlib.sha512(b"content").digest()
    incoming.discard()


def test_sweep_removes_leftovers(blobs: Blobs) -> None:
    """After a crash, unfinished and unknown files go, known ones stay, and missing ones are named."""
    known, unknown = receive(blobs, b"known"), receive(blobs, b"unknown")
    blobs.keep(known)
    blobs.keep(unknown)
    unfinished = blobs.receive()
    missing = "sha256:" + "0" * 64
    assert blobs.sweep({known.blob_id, missing}) == [missing]
    assert blobs.path(known.blob_id).exists()
    assert not blobs.path(unknown.blob_id).exists()
    assert not unfinished.path.exists()
    unfinished.discard()


@pytest.mark.parametrize("name", ["sha256:../../etc/passwd", "", "sha256:" + "A" * 64, "sha256:" + "0" * 63])
def test_only_digests_are_names(blobs: Blobs, name: str) -> None:
    """A name that is no digest never becomes a path."""
    with pytest.raises(ValueError, match="not the name of a blob"):
        blobs.path(name)


def test_unfinished_files_go_when_they_are_old(blobs: Blobs) -> None:
    """What a killed process has begun to receive goes; what is being written, and what was kept, stays."""
    blobs.keep(kept := receive(blobs, b"content"))
    old, new = blobs.receive(), blobs.receive()
    os.utime(old.path, (1000.0, 1000.0))
    assert blobs.drop_unfinished(2000.0) == [old.path]
    assert new.path.exists()
    assert blobs.exists(kept.blob_id)
    new.discard()
