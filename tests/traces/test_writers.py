"""Saving and loading again is the identity, for every format."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.traces import full_trace
from traces import Batch, InputError, Trace, load, save

SUFFIXES = [".npz", ".jsonl", ".parquet"]
COLUMNS = ("gate_weights", "seq_id", "token_pos", "phase", "source_rank")


def arrays_of(trace: Trace, step: int = 7) -> dict[str, Any]:
    """Everything that a trace holds, as lists."""
    parts = list(trace.batches(step))
    found: dict[str, Any] = {"layers": trace.layer_ids.tolist(), "E": trace.num_experts, "K": trace.top_k}
    for name in ("topk_ids", "rows", *COLUMNS):
        found[name] = [entry for part in parts if (v := getattr(part, name)) is not None for entry in v.tolist()]
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    tokens=st.integers(1, 40),
    experts=st.integers(3, 400),
    top_k=st.integers(1, 3),
    missing=st.booleans(),
    compress=st.booleans(),
    kept=st.sets(st.sampled_from(COLUMNS)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_round_trip_is_the_identity(
    suffix: str,
    tokens: int,
    experts: int,
    top_k: int,
    missing: bool,
    compress: bool,
    kept: set[str],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Ids, columns, layers and E come back, nothing is inferred, and the count of tokens is known."""
    full = full_trace(seed, tokens, experts, top_k, missing=0.4 if missing else 0.0)
    batch = next(full.batches(100))
    columns = {name: getattr(batch, name) for name in kept}
    trace = Trace.of(batch.topk_ids, num_experts=experts, layer_ids=[1, 4], **columns)
    path = tmp_path_factory.mktemp("trip") / f"trace{suffix}"
    save(trace, path, compress=compress)
    again = load(path)
    assert isinstance(again, Trace)
    assert arrays_of(again) == arrays_of(trace)
    assert (again.num_tokens, again.columns, again.provenance.notes) == (tokens, trace.columns, ())
    assert again.provenance.source == f"trace{suffix}"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_selection_of_unknown_length_is_saved(tmp_path: Path, suffix: str) -> None:
    """Views count their tokens only when read; a saved view starts at row 0."""
    fit, _ = Trace.of(np.zeros((10, 2, 1), int), num_experts=4, seq_id=np.arange(10)).split(0.5)
    assert fit.num_tokens is None
    save(fit, tmp_path / f"fit{suffix}")
    again = load(tmp_path / f"fit{suffix}")
    assert isinstance(again, Trace)
    assert arrays_of(again)["seq_id"] == [0, 2, 4, 6, 8]
    assert arrays_of(again)["rows"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_batches(tmp_path: Path, suffix: str) -> None:
    """Traces longer than a batch are written and read in parts."""
    trace = full_trace(0, 10_000, top_k=3)

    def read(max_tokens: int) -> Iterator[Batch]:
        return trace.read(min(max_tokens, 999))

    save(replace(trace, read=read), tmp_path / f"t{suffix}")
    again = load(tmp_path / f"t{suffix}")
    assert isinstance(again, Trace)
    assert arrays_of(again, 4321) == arrays_of(trace)


@pytest.mark.parametrize(("experts", "missing", "dtype"), [(256, False, "u1"), (257, False, "u2"), (8, True, "i2")])
def test_ids_take_the_smallest_type(tmp_path: Path, experts: int, missing: bool, dtype: str) -> None:
    """One byte up to 256 experts, two above, signed where entries are missing."""
    save(full_trace(0, 50, experts, 3, missing=0.4 if missing else 0.0), tmp_path / "t.npz")
    assert np.load(tmp_path / "t.npz")["topk_ids"].dtype == np.dtype(dtype)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_traces_make_equal_files(tmp_path: Path, suffix: str) -> None:
    """Files don't depend on the time of writing."""
    save(full_trace(0, 20, top_k=3), tmp_path / f"a{suffix}")
    save(full_trace(0, 20, top_k=3), tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_trace_may_replace_its_own_file(tmp_path: Path, suffix: str) -> None:
    """Reading goes on from the old file until the new one is whole."""
    path = tmp_path / f"t{suffix}"
    save(full_trace(0, 20, top_k=3), path)
    trace = load(path)
    assert isinstance(trace, Trace)
    save(trace, path, compress=False)
    again = load(path)
    assert isinstance(again, Trace)
    assert arrays_of(again) == arrays_of(full_trace(0, 20, top_k=3))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bad_trace_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    """What breaks a rule is not written, not even in part."""
    with pytest.raises(InputError):
        save(Trace.of(np.full((5, 2, 1), 9), num_experts=4), tmp_path / f"t{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffix_and_folder_are_refused(tmp_path: Path) -> None:
    """The message lists the suffixes; a missing folder is no traceback."""
    with pytest.raises(InputError, match=r"\.parquet"):
        save(full_trace(0, 20, top_k=3), tmp_path / "t.csv")
    with pytest.raises(InputError, match="folder"):
        save(full_trace(0, 20, top_k=3), tmp_path / "nowhere" / "t.npz")


def test_jsonl_writes_weights_of_missing_entries_as_zero(tmp_path: Path) -> None:
    """JSON has no NaN; the trace rules allow it only where the id is -1."""
    ids = np.array([[[0, -1]]])
    save(Trace.of(ids, num_experts=2, gate_weights=np.array([[[0.5, np.nan]]])), tmp_path / "t.jsonl")
    trace = load(tmp_path / "t.jsonl")
    assert isinstance(trace, Trace)
    assert arrays_of(trace)["gate_weights"] == [[[0.5, 0.0]]]
