"""Mutated files: whatever is changed, loading soon ends in an error or a trace that keeps the rules."""

from __future__ import annotations

import io
import re
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from traces import InputError, LoadCounts, Trace, load

__all__ = ["fuzz", "mutated", "outcome", "peak_bytes", "reset_peak"]

MOST_SECONDS = 5.0  # of CPU, for one file
MOST_BYTES = 1 << 30
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
WORD = re.compile(rb'"[^"\\]{1,200}"')
VALUES = [b"-1", b"0", b"1e308", b"NaN", b"1e999", b"null", b"[]", b"{}", b"true", b'"x"', b"9" * 25, b"9" * 5000]
VALUES += [b"[[1]]", b"-9223372036854775809", b"4294967295", b"0.5"]
BYTES = [b"\x00", b"\xff", b"\x80", b"\x7f", b'"', b"{", b"[", b"\n", b",", b"\xff\xff\xff\x7f", b"\xff" * 8]


def outcome(path: Path, options: Mapping[str, Any]) -> str:
    """Load and read everything: ``error``, or ``valid`` after checking the rules independently."""
    try:
        loaded = load(path, **options)
        parts = loaded.batches(500) if isinstance(loaded, Trace) else iter(())
        for batch in parts:
            assert isinstance(loaded, Trace)
            ids = batch.topk_ids.astype(np.int64)
            assert ids.shape[1:] == (loaded.num_layers, loaded.top_k)
            assert ids.min(initial=0) >= -1
            assert ids.max(initial=0) < loaded.num_experts
            assert all(len(getattr(batch, name)) == len(ids) for name in loaded.columns)
    except InputError as error:
        str(error).encode()  # it can be shown
        return "error"
    if isinstance(loaded, LoadCounts):
        assert loaded.load.shape == (len(loaded.layer_ids), loaded.num_experts)
        assert np.isfinite(loaded.load).all()
        assert (loaded.load >= 0).all()
    return "valid"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a file in one of many ways; inside archives with right checksums, too."""
    if content.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(content)) and rng.random() < 0.7:
        return _repacked(content, rng)
    kind = rng.integers(9)
    place = int(rng.integers(len(content) if rng.random() < 0.5 else min(len(content), 400)))
    length = int(rng.integers(1, 60))
    if kind == 0:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        return bytes(flipped)
    if kind == 1:
        return content[: max(place, 1)]
    if kind == 2:
        return content[:place] + rng.bytes(length) + content[place:]
    if kind == 3:
        return content[:place] + content[place + length :]
    if kind == 4:
        return content[:place] + BYTES[rng.integers(len(BYTES))] + content[place + int(rng.integers(9)) :]
    if kind == 5:
        other = int(rng.integers(len(content)))
        return content[:place] + content[other : other + length] + content[place + length :]
    if kind == 6:
        return content + content[place:]
    return _swapped(content, rng)


def fuzz(path: Path, options: Mapping[str, Any], name: str, folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Load `count` mutations of a file, or of one file of a folder; half of them with the format named.

    Parameters
    ----------
    path : Path
        A valid sample.
    options : mapping
        What `load` needs for it.
    name : str
        Of the format.
    folder : Path
        Where mutations are written. The last one is left there when it fails.
    count : int
    seed : int

    Returns
    -------
    Counter
        Outcomes.

    Raises
    ------
    AssertionError
        For a broken rule, or too much time or memory; whatever else is raised comes through.
    """
    outcomes: Counter[str] = Counter()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    target = folder / "mutated"
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        chosen = files[rng.integers(len(files))]
        changed = mutated(chosen.read_bytes(), rng)
        if path.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target)
            (target / chosen.name).write_bytes(changed)
        else:
            target.write_bytes(changed)
        named = {"format": name} if number % 2 else {}
        before = reset_peak()
        start = time.process_time()
        try:
            outcomes[outcome(target, {**options, **named})] += 1
        except Exception as error:
            error.add_note(f"mutation {number} with seed {seed} of {name}, kept in {target}")
            raise
        taken, grown = time.process_time() - start, peak_bytes() - before
        assert taken < MOST_SECONDS, f"mutation {number} with seed {seed} of {name} took {taken:.1f} s"
        assert grown < MOST_BYTES, f"mutation {number} with seed {seed} of {name} took {grown} bytes"
    return outcomes


def _repacked(content: bytes, rng: np.random.Generator) -> bytes:
    """Change one member of a zip archive, and write it with the checksums that belong to it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as replica:
        infos = archive.infolist()
        sizes = np.array([min(info.file_size, 4000) + 50 for info in infos], dtype=np.float64)
        chosen = rng.choice(len(infos), p=sizes / sizes.sum())
        for index, info in enumerate(infos):
            data = archive.read(info)
            if index == chosen and rng.random() < 0.05:
                continue
            replica.writestr(info.filename, mutated(data, rng) if index == chosen and data else data)
    return packed.getvalue()


def _swapped(content: bytes, rng: np.random.Generator) -> bytes:
    """Put another value in place of a number or a word of a text."""
    pattern = NUMBER if rng.random() < 0.7 else WORD
    start = int(rng.integers(len(content) if rng.random() < 0.5 else min(len(content), 300)))
    match = pattern.search(content, start) or pattern.search(content)
    if match is None:
        return content[:-1]
    words = pattern.findall(content[: 1 << 16]) or VALUES
    value = VALUES[rng.integers(len(VALUES))] if rng.random() < 0.7 else words[rng.integers(len(words))]
    return content[: match.start()] + value + content[match.end() :]


def reset_peak() -> int:
    """Begin to measure the peak of this process's memory; return what it takes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """Return the largest memory of this process since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("there is no VmHWM")
