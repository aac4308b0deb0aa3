"""Sequences, positions, phases and padding of captures, and their spool: without torch."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces import InputError
from traces.capture.sequences import Call, Generation, Placed, Sequences
from traces.capture.spool import Spool
from traces.provenance import Provenance


class Cache:
    """Stands for a key-value cache: only its identity counts."""


def mask_of(*rows: str) -> Any:
    """Return a mask from rows such as ``.xx``: a dot is padding."""
    return np.array([[letter == "x" for letter in row] for row in rows])


def listed(placed: Placed) -> list[tuple[int, int, int]]:
    """Return (sequence, position, phase) of each token that is kept."""
    return list(zip(placed.seq_id.tolist(), placed.token_pos.tolist(), placed.phase.tolist(), strict=True))


def codes(error: pytest.ExceptionInfo[InputError]) -> set[str]:
    """Return the codes of all violations."""
    return {violation.code for violation in error.value.violations}


def test_padding_is_left_out_wherever_it_is() -> None:
    """Left, right and inner padding: positions count tokens, and `keep` marks them in the flat order of the call."""
    placed = Sequences().place(Call(shape=(3, 3), mask=mask_of("..x", "xx.", "x.x")))
    assert placed.keep.tolist() == [False, False, True, True, True, False, True, False, True]
    assert listed(placed) == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0)]


def test_decoding_goes_on_with_the_sequences_of_the_cache() -> None:
    """Rows keep their sequence while others start in between; single tokens are decode, further turns prefill."""
    sequences, cache, other = Sequences(), Cache(), Cache()
    sequences.place(Call(shape=(2, 2), mask=mask_of(".x", "xx"), cache=cache))
    step = Call(shape=(2, 1), mask=mask_of(".xx", "xxx"), past=2, cache=cache)
    assert listed(sequences.place(step)) == [(0, 1, 1), (1, 2, 1)]
    assert listed(sequences.place(Call(shape=(1, 1), cache=other))) == [(2, 0, 0)]
    turn = Call(shape=(2, 2), mask=mask_of(".xxx.", "xxxxx"), past=3, cache=cache)
    assert listed(sequences.place(turn)) == [(0, 2, 0), (1, 3, 0), (1, 4, 0)]


def test_an_empty_cache_starts_anew() -> None:
    """A cache that was reset has other sequences than before."""
    sequences, cache = Sequences(), Cache()
    sequences.place(Call(shape=(1, 2), cache=cache))
    assert listed(sequences.place(Call(shape=(1, 1), cache=cache))) == [(1, 0, 0)]


def test_a_cache_that_was_returned_is_adopted() -> None:
    """The first call had no cache; the one it returned leads on."""
    sequences, cache = Sequences(), Cache()
    sequences.place(Call(shape=(1, 2)))
    sequences.adopt(cache)
    assert listed(sequences.place(Call(shape=(1, 1), past=2, cache=cache))) == [(0, 2, 1)]


def test_ended_rows_stay_ended_until_the_next_turn() -> None:
    """In generate(), a row is dropped from its end token on; a call with more tokens than one takes it up again."""
    sequences, cache, run = Sequences(), Cache(), Generation(ends=frozenset({9}))

    def call(past: int, *rows: list[int]) -> list[tuple[int, int, int]]:
        tokens = np.array(rows)
        return listed(sequences.place(Call(shape=tokens.shape, past=past, cache=cache, tokens=tokens, generation=run)))

    assert len(call(0, [9, 9], [5, 9])) == 4  # in a prompt it is a token like others
    assert call(2, [9], [5]) == [(1, 2, 1)]
    assert call(3, [0], [6]) == [(1, 3, 1)]
    assert call(4, [5], [9]) == []
    assert call(5, [7, 7], [7, 7]) == [(0, 2, 0), (0, 3, 0), (1, 4, 0), (1, 5, 0)]


def test_a_crop_is_allowed_only_by_what_was_not_recorded() -> None:
    """A step after all rows had ended may be taken back; recorded tokens may not."""
    sequences, cache, run = Sequences(), Cache(), Generation(ends=frozenset({9}))
    sequences.place(Call(shape=(1, 2), cache=cache, generation=run))
    end = Call(shape=(1, 1), past=2, cache=cache, generation=run, tokens=np.array([[9]]))
    assert listed(sequences.place(end)) == []
    assert listed(sequences.place(Call(shape=(1, 2), past=2, cache=cache))) == [(0, 2, 0), (0, 3, 0)]
    with pytest.raises(InputError) as error:
        sequences.place(Call(shape=(1, 1), past=3, cache=cache))
    assert codes(error) == {"cache_changed"}


def test_another_number_of_rows_is_refused() -> None:
    """Which row is which sequence would be a guess."""
    sequences, cache = Sequences(), Cache()
    sequences.place(Call(shape=(2, 2), cache=cache))
    with pytest.raises(InputError) as error:
        sequences.place(Call(shape=(1, 1), past=2, cache=cache))
    assert codes(error) == {"cache_changed"}


def test_masks_must_cover_cache_and_call() -> None:
    """A mask of the call alone leaves open what the cache holds."""
    with pytest.raises(InputError) as error:
        Sequences().place(Call(shape=(1, 2), past=3, cache=Cache(), mask=mask_of("xx")))
    assert codes(error) == {"mask_shape"}


def test_without_cache_earlier_positions_are_not_counted_twice() -> None:
    """generate(use_cache=False) computes the whole row in every step; a new run starts new sequences."""
    sequences, run = Sequences(), Generation()
    assert len(listed(sequences.place(Call(shape=(1, 3), mask=mask_of(".xx"), generation=run)))) == 2
    placed = sequences.place(Call(shape=(1, 4), mask=mask_of(".xxx"), generation=run))
    assert (listed(placed), placed.keep.tolist()) == ([(0, 2, 1)], [False, False, False, True])
    assert listed(sequences.place(Call(shape=(1, 1), generation=Generation()))) == [(1, 0, 0)]


def test_a_cache_that_cannot_be_seen_is_refused() -> None:
    """In a run of generate(), a step that does not hold the whole row and has no cache has one under another name."""
    sequences, run = Sequences(), Generation()
    sequences.place(Call(shape=(2, 9), generation=run))
    with pytest.raises(InputError) as error:
        sequences.place(Call(shape=(2, 1), generation=run))
    assert codes(error) == {"cache_hidden"}


def test_caches_are_forgotten_when_they_are_gone() -> None:
    """The next object at the same address is another cache."""
    sequences, cache = Sequences(), Cache()
    sequences.place(Call(shape=(1, 2), cache=cache))
    assert sequences.caches() == [cache]
    del cache
    gc.collect()
    assert sequences.caches() == []


@given(st.data())
def test_any_chunks_give_the_same_tokens(data: st.DataObject) -> None:
    """However a padded batch is cut into calls, each row's positions are 0, 1, 2, ... and none is lost."""
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    mask = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=rows, max_size=rows))
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, width - 1)))) if width > 1 else []
    sequences, cache = Sequences(), Cache()
    found: list[tuple[int, int, int]] = []
    for start, end in zip([0, *cuts], [*cuts, width], strict=True):
        placed = sequences.place(Call(shape=(rows, end - start), mask=mask[:, :end], past=start, cache=cache))
        assert placed.keep.tolist() == mask[:, start:end].reshape(-1).tolist()
        found += listed(placed)
    for row in range(rows):
        assert [position for sequence, position, _ in found if sequence == row] == list(range(int(mask[row].sum())))


def test_the_spool_reads_back_what_was_appended(tmp_path: Path) -> None:
    """In batches of any size, with a digest of its own; its folder goes with the last reader."""
    rng = np.random.default_rng(0)
    ids = rng.random((10, 2, 5)).argsort(axis=2)[:, :, :3].astype(np.int16)
    weights = rng.random(ids.shape).astype(np.float32)
    spool = Spool(tmp_path, 2, 3, True)
    for part in (slice(0, 4), slice(4, 4), slice(4, 10)):
        count = len(ids[part])
        placed = Placed(
            keep=np.ones(count, dtype=bool),
            seq_id=np.arange(10)[part],
            token_pos=np.arange(10)[part] * 2,
            phase=np.ones(count, dtype=np.uint8),
        )
        spool.append(ids[part], weights[part], placed)
    spool.close()
    trace = spool.trace(num_experts=5, layer_ids=np.array([1, 3]), provenance=Provenance())
    del spool
    batches = list(trace.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate([batch.topk_ids for batch in batches]), ids)
    assert np.array_equal(np.concatenate([np.asarray(batch.gate_weights) for batch in batches]), weights)
    assert np.concatenate([np.asarray(batch.token_pos) for batch in batches]).tolist() == list(range(0, 20, 2))
    assert (trace.num_tokens, len(trace.digest), len(list(tmp_path.iterdir()))) == (10, 71, 1)
    del trace, batches
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_importing_needs_no_torch() -> None:
    """`import traces`, and even `traces.capture`, loads neither torch nor transformers."""
    code = "import sys, traces, traces.capture; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
