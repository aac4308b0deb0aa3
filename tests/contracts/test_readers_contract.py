"""What every reader promises, whatever its format; a new reader joins by adding its example here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traces import LoadCounts, Profile, Trace, load, save
from traces.readers import READERS, Reader
from traces.readers.base import Hints
from traces.readers.files import TraceFile

TOKENS = 1200


def _trace() -> Trace:
    rng = np.random.default_rng(0)
    ids = rng.random((TOKENS, 3, 8)).argsort(axis=2)[:, :, :1]
    return Trace.of(ids, num_experts=8, seq_id=np.arange(TOKENS) // 10)


def _saved(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        if suffix == ".parquet":
            pytest.importorskip("pyarrow")
        save(_trace(), folder / f"example{suffix}")
        return folder / f"example{suffix}"

    return write


def _exflow(folder: Path) -> Path:
    np.save(folder / "example.npy", next(_trace().batches()).topk_ids[:, :, 0])
    return folder / "example.npy"


def _eplb(folder: Path) -> Path:
    (folder / "example.json").write_text(json.dumps(np.ones((3, 8)).tolist()))
    return folder / "example.json"


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "npz": _saved(".npz"),
    "parquet": _saved(".parquet"),
    "jsonl": _saved(".jsonl"),
    "exflow": _exflow,
    "eplb": _eplb,
}


@pytest.fixture(params=READERS, ids=lambda reader: reader.name)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Reader, Path]:
    """Each registered reader with a file of its format."""
    reader: Reader = request.param
    return reader, EXAMPLES[reader.name](tmp_path)


def content(trace: Trace, step: int) -> dict[str, Any]:
    """All tokens, read `step` at a time."""
    parts = list(trace.batches(step))
    assert all(len(part) <= step for part in parts)
    names = ("topk_ids", "rows", *sorted(trace.columns))
    return {name: np.concatenate([getattr(part, name) for part in parts]).tolist() for name in names}


def test_names_are_unique_and_have_examples() -> None:
    """Every reader has its own name and is covered below."""
    assert [reader.name for reader in READERS] == list(EXAMPLES)


def test_only_its_own_reader_recognises_a_file(example: tuple[Reader, Path]) -> None:
    """Sniffing is exclusive, so the order of the registry does not matter."""
    reader, path = example
    assert [other.name for other in READERS if other.sniff(TraceFile.of(path))] == [reader.name]


def test_load_and_format_name_agree(example: tuple[Reader, Path]) -> None:
    """Sniffed or named, the same reader opens the file and says so."""
    reader, path = example
    for loaded in (load(path), load(path, format=reader.name), reader.open(TraceFile.of(path), Hints())):
        assert loaded.provenance.format == reader.name
        assert loaded.provenance.source == path.name


def test_reading_is_repeatable_and_independent_of_batches(example: tuple[Reader, Path]) -> None:
    """Every pass gives the same tokens; rows count from 0; ids and rows are plain integers."""
    _, path = example
    trace = load(path)
    if isinstance(trace, LoadCounts):
        assert np.array_equal(load(path).load, trace.load)  # type: ignore[union-attr]  # counts again, as above
        return
    whole = content(trace, 1 << 20)
    assert content(trace, 7) == content(trace, 500) == whole
    assert whole["rows"] == list(range(TOKENS))
    assert trace.num_tokens == TOKENS


def test_batches_are_fresh_arrays(example: tuple[Reader, Path]) -> None:
    """A batch stays as it is while the next one is read."""
    _, path = example
    trace = load(path)
    if isinstance(trace, LoadCounts):
        assert not trace.load.flags.writeable
        return
    first, *_ = parts = list(trace.batches(100))
    assert not any(np.shares_memory(first.topk_ids, part.topk_ids) for part in parts[1:])
    assert first.topk_ids.flags.writeable


def test_caller_may_name_the_layers(example: tuple[Reader, Path]) -> None:
    """Layer ids are stated by the file, or taken from the caller."""
    reader, path = example
    layers = [0, 1, 2] if reader.name in ("npz", "parquet", "jsonl") else [3, 5, 8]
    assert load(path, layer_ids=layers).layer_ids.tolist() == layers


def test_profiles_agree_across_formats(example: tuple[Reader, Path]) -> None:
    """The same tokens give the same load, whatever the file."""
    _, path = example
    loaded = load(path)
    profile = Profile.of(loaded)
    if isinstance(loaded, LoadCounts):
        assert profile.affinity is None
    else:
        assert np.array_equal(profile.load, Profile.of(_trace()).load)
    assert profile.digest.startswith("sha256:")


def test_an_open_trace_holds_no_file(example: tuple[Reader, Path]) -> None:
    """Files are open only while they are read, and closed when reading stops early."""
    _, path = example
    trace = load(path)
    if isinstance(trace, Trace):
        batches = trace.batches(10)
        next(batches)
        del batches
    opened = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not any(link.exists() and link.resolve() == path.resolve() for link in opened)
