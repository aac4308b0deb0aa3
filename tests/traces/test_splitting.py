"""Held out by time and by source, beside by sequence: what a plan for one task is worth on another."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solvers import Study
from solvers.sources.source import part_of
from tests.builders.service import npz
from traces import InputError, LoadCounts, Profile, Trace, load, save

TOKENS = 600
SOURCE = np.repeat([4, 0, 7], 200)
# Each source has its own favourites out of 16 experts.
FIRST = np.arange(TOKENS) % 4 + 4 * np.repeat([0, 1, 3], 200)
IDS = np.stack([FIRST, (FIRST + 4) % 16], 1)


def trace_of(**columns: Any) -> Trace:
    """Return 600 tokens of two layers."""
    ids = np.repeat(IDS[:, np.newaxis], 2, axis=1)
    return Trace.of(ids, num_experts=16, seq_id=np.arange(TOKENS) // 10, **columns)


def rows_of(trace: Trace) -> list[int]:
    """Return the rows of the tokens."""
    return [int(row) for batch in trace.batches(64) for row in batch.rows]


@pytest.mark.parametrize(("share", "fitted"), [(0.5, 300), (0.1, 540), (0.999, 1), (0.001, 599)])
def test_the_end_of_the_recording_is_held_out(share: float, fitted: int) -> None:
    """In order, at least a token in each part."""
    fit, held = trace_of().split(share, "time")
    assert (rows_of(fit), rows_of(held)) == (list(range(fitted)), list(range(fitted, TOKENS)))
    assert f"first {fitted}" in fit.provenance.notes[-1]
    assert rows_of(pickle.loads(pickle.dumps(held))) == rows_of(held)


def test_time_of_a_selection_is_that_of_its_own_tokens() -> None:
    """Half of the tokens that are left, not half of the recording."""
    late = trace_of().where(lambda batch: batch.rows >= 400, "late")
    fit, held = late.split(0.25, "time")
    assert (rows_of(fit), rows_of(held)) == (list(range(400, 550)), list(range(550, 600)))


@pytest.mark.parametrize(("share", "held"), [(0.3, [7]), (0.5, [4, 7]), (0.9, [4, 7])])
def test_whole_sources_are_held_out(share: float, held: list[int]) -> None:
    """The last ones by number, at least one of each part."""
    fit, later = trace_of(data_source=SOURCE).split(share, "source")
    assert rows_of(later) == np.flatnonzero(np.isin(SOURCE, held)).tolist()
    assert rows_of(fit) == np.flatnonzero(~np.isin(SOURCE, held)).tolist()


def test_a_plan_for_one_task_is_told_on_another() -> None:
    """By sequence, the parts are alike; by source, the held-out figures show what the plan is not made for."""
    found = {}
    for by in ("sequence", "source"):
        study = Study.of(trace_of(data_source=SOURCE), "1x4", hold_out=0.5, hold_out_by=by, engine="vllm")
        plan = study.solve("load_balance").plan
        parts = study.compare(plan=plan)["plan"].parts
        fit, held = (parts[name].evaluation.imbalance_max_over_mean for name in ("fit", "held_out"))
        found[by] = held - fit
        assert study.request.hold_out_by == by
    assert abs(found["sequence"]) < 0.2
    assert found["source"] > found["sequence"] + 0.2


def test_a_column_says_the_source(tmp_path: Any) -> None:
    """It is kept in every format that we write."""
    for suffix in ("npz", "parquet", "jsonl"):
        save(trace_of(data_source=SOURCE), tmp_path / f"t.{suffix}")
        loaded = load(tmp_path / f"t.{suffix}")
        assert isinstance(loaded, Trace)
        read = next(loaded.batches()).data_source
        assert read is not None
        assert np.array_equal(read, SOURCE)


@pytest.mark.parametrize(
    ("source", "asked", "code", "pointer"),
    [
        (trace_of(), {"hold_out_by": "source"}, "no_sources", "/hold_out_by"),
        (trace_of(data_source=np.ones(TOKENS, int)), {"hold_out_by": "source"}, "no_sources", "/hold_out_by"),
        (trace_of(), {"hold_out_by": "time", "hold_out": 0}, "hold_out_unused", "/hold_out_by"),
        (trace_of(), {"hold_out_by": "task"}, "unknown_choice", "/hold_out_by"),
        (LoadCounts.of(np.ones((2, 16))), {"hold_out_by": "sequence"}, "hold_out_by_counts", "/hold_out_by"),
        (LoadCounts.of(np.ones((2, 16))), {"hold_out_by": "time"}, "hold_out_counts", "/hold_out"),
        (Profile.of(trace_of()), {"hold_out_by": "time"}, "hold_out_counts", "/hold_out_by"),
    ],
)
def test_what_can_not_be_held_out_is_refused(source: Any, asked: dict[str, Any], code: str, pointer: str) -> None:
    """Naming the parameter."""
    with pytest.raises(InputError) as error:
        Study.of(source, "1x4", **asked)
    assert [(item.code, item.pointer) for item in error.value.violations] == [(code, pointer)]


def test_everything_is_replayed_without_parts() -> None:
    """What the share is of has no effect then."""
    with pytest.raises(InputError, match="hold_out_unused"):
        part_of(trace_of(), "all", None, "t", "time")
    held, _ = part_of(trace_of(), "held_out", None, "t", "time")
    assert isinstance(held, Trace)
    assert rows_of(held) == list(range(300, 600))


def test_sources_are_checked(tmp_path: Any) -> None:
    """A number below 0 is none."""
    (tmp_path / "t.npz").write_bytes(npz(topk_ids=IDS[:, np.newaxis].astype(np.uint8), data_source=-SOURCE))
    with pytest.raises(InputError, match="data_source_range"):
        Profile.of(load(tmp_path / "t.npz"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files, a task each, whose sequences have the same numbers."""
    path = tmp_path_factory.mktemp("tasks")
    for number, name in enumerate(("a", "b", "c")):
        part = slice(200 * number, 200 * number + 200)
        ids = np.repeat(IDS[part, np.newaxis], 2, axis=1)
        save(Trace.of(ids, num_experts=16, seq_id=np.arange(200) // 10), path / f"{name}.npz")
    return path


def test_files_of_tokens_are_sources_of_one_trace(folder: Path) -> None:
    """In the order of their names; equal numbers of sequences stay apart; it pickles as its path."""
    whole = load(folder)
    assert isinstance(whole, Trace)
    assert whole.num_tokens == TOKENS
    assert rows_of(whole) == list(range(TOKENS))
    batches = list(whole.batches(64))
    assert np.array_equal(np.concatenate([batch.topk_ids[:, 0] for batch in batches]), IDS)
    sources = np.concatenate([np.asarray(batch.data_source) for batch in batches])
    assert np.array_equal(sources, np.repeat([0, 1, 2], 200))
    sequences = np.concatenate([np.asarray(batch.seq_id) for batch in batches])
    assert len(np.unique(sequences)) == 60
    fit, held = whole.split(0.5, "source")
    assert (len(rows_of(fit)), len(rows_of(held))) == (200, 400)
    assert rows_of(pickle.loads(pickle.dumps(held))) == rows_of(held)
    assert len(rows_of(whole.split(0.5)[0])) == TOKENS // 2


def test_files_of_other_models_are_no_sources(folder: Path, tmp_path: Path) -> None:
    """Every file that differs is named."""
    for name, experts, layers in (("a", 16, 2), ("b", 16, 3), ("c", 32, 2)):
        ids = np.repeat(IDS[:, np.newaxis], layers, axis=1)
        save(Trace.of(ids, num_experts=experts), tmp_path / f"{name}.npz")
    with pytest.raises(InputError) as error:
        load(tmp_path)
    assert [item.pointer.rpartition("/")[2] for item in error.value.violations] == ["b.npz", "c.npz"]
