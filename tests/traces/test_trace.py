"""Traces: batches, columns, checks, splitting."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.traces import random_ids
from traces import InputError, Trace


def rows_of(trace: Trace) -> list[int]:
    """Return the rows of all tokens of `trace`."""
    return [int(row) for batch in trace.batches() for row in batch.rows]


def codes(error: pytest.ExceptionInfo[InputError]) -> set[str]:
    """Return the codes of all violations."""
    return {violation.code for violation in error.value.violations}


def test_batches_join_to_the_arrays() -> None:
    """Whatever the batch size, the batches put together are the arrays."""
    ids = random_ids(0, 100, 3, 8)
    trace = Trace.of(ids, num_experts=8, seq_id=np.arange(100))
    parts = list(trace.batches(7))
    assert np.array_equal(np.concatenate([part.topk_ids for part in parts]), ids)
    assert np.concatenate([part.seq_id for part in parts if part.seq_id is not None]).tolist() == list(range(100))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">u4", "int64", "uint64"])
def test_ids_of_any_integer_type_and_byte_order(dtype: str) -> None:
    """Ids are read in native byte order."""
    trace = Trace.of(random_ids(0, 10, 3, 8).astype(dtype), num_experts=8)
    batch = next(trace.batches())
    assert batch.topk_ids.dtype.isnative
    assert np.array_equal(batch.topk_ids, random_ids(0, 10, 3, 8))


def test_columns_are_held_in_their_types() -> None:
    """Columns are converted once, where nothing is lost."""
    ids = random_ids(0, 4, 3, 8)
    trace = Trace.of(
        ids, num_experts=8, phase=np.array([0, 1, 0, 1], np.int64), gate_weights=np.ones(ids.shape, np.float16)
    )
    batch = next(trace.batches())
    assert batch.phase is not None
    assert batch.phase.dtype == np.uint8
    assert batch.gate_weights is not None
    assert batch.gate_weights.dtype == np.float32


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"phase": [0, 1, 2, 0]}, "phase_range"),
        ({"phase": [0, 1, -1, 0]}, "phase_range"),
        ({"phase": [0, 1, 256, 0]}, "phase_range"),
        ({"seq_id": [0, -1, 0, 0]}, "seq_id_range"),
        ({"token_pos": [0, -5, 0, 0]}, "token_pos_range"),
        ({"source_rank": [0, -2, 0, 0]}, "source_rank_range"),
        ({"source_rank": [0, 1 << 40, 0, 0]}, "source_rank_range"),
        ({"seq_id": np.array([0, 1 << 63, 0, 0], np.uint64)}, "seq_id_range"),
        ({"seq_id": [0.0, 1, 2, 3]}, "column_dtype"),
        ({"seq_id": [0, 1]}, "column_shape"),
        ({"gate_weights": np.full((4, 3, 2), np.nan)}, "gate_weight_not_finite"),
        ({"gate_weights": np.full((4, 3, 2), -1.0)}, "gate_weight_not_finite"),
        ({"gate_weights": np.full((4, 3, 2), 1e300)}, "gate_weight_not_finite"),
        ({"gate_weights": np.ones((4, 3))}, "column_shape"),
        ({"sequence": [0, 1, 2, 3]}, "unknown_column"),
    ],
)
def test_bad_columns_are_refused(columns: dict[str, Any], code: str) -> None:
    """Each rule of the columns has its own code."""
    with pytest.raises(InputError) as error:
        list(Trace.of(random_ids(0, 4, 3, 8), num_experts=8, **columns).batches())
    assert codes(error) == {code}


@pytest.mark.parametrize(
    ("entry", "code"),
    [(8, "id_out_of_range"), (-2, "id_out_of_range"), (70_000, "id_out_of_range"), (3, "duplicate_expert")],
)
def test_bad_ids_are_refused_with_row_and_layer(entry: int, code: str) -> None:
    """The error names row, layer (the model's number, not the axis index) and k of the entry."""
    ids = random_ids(0, 50, 3, 8).astype(np.int64)
    ids[31, 2] = [3, entry]
    layer_ids = 3 + 2 * np.arange(ids.shape[1])
    with pytest.raises(InputError) as error:
        list(Trace.of(ids, num_experts=8, layer_ids=layer_ids).batches(20))
    assert codes(error) == {code}
    assert "row 31, layer 7, k 1" in error.value.violations[0].pointer


def test_missing_entries_may_repeat() -> None:
    """-1 stands for no expert, as often as needed, with any weight."""
    ids = np.full((2, 1, 3), -1)
    trace = Trace.of(ids, num_experts=4, gate_weights=np.full(ids.shape, np.nan))
    assert sum(len(batch) for batch in trace.batches()) == 2


@pytest.mark.parametrize(
    ("ids", "experts"),
    [
        (np.zeros((3, 2)), 4),
        (np.zeros((3, 2, 1)), 4),
        (np.zeros((3, 0, 1), int), 4),
        (np.zeros((3, 2, 0), int), 4),
        (np.zeros((3, 2, 5), int), 4),
        (np.zeros((3, 2, 1), int), 0),
        (np.zeros((3, 2, 1), int), 40_000),
        (np.zeros((3, 2, 1), bool), 4),
    ],
)
def test_impossible_axes_are_refused(ids: np.ndarray[Any, Any], experts: int) -> None:
    """Wrong ranks, types, empty axes and more choices than experts are no trace."""
    with pytest.raises(InputError):
        Trace.of(ids, num_experts=experts)


@pytest.mark.parametrize("layers", [[0, 1], [0, 1, 1], [2, 1, 0], [-1, 0, 1], [0.0, 1.0, 2.0]])
def test_layer_ids_must_name_each_layer_once(layers: list[int]) -> None:
    """Layer ids rise, one per layer axis entry."""
    with pytest.raises(InputError):
        Trace.of(random_ids(0, 3, 3, 8), num_experts=8, layer_ids=layers)


def test_half_split_holds_out_odd_sequences() -> None:
    """Share 0.5 fits on even and holds out odd sequences."""
    seq_id = np.repeat([4, 7, 2, 9, 0], 3)
    fit, held = Trace.of(random_ids(0, 15, 3, 8), num_experts=8, seq_id=seq_id).split(0.5)
    assert set(seq_id[rows_of(fit)]) == {0, 2, 4}
    assert set(seq_id[rows_of(held)]) == {7, 9}


def test_split_without_sequences_uses_blocks() -> None:
    """Blocks of 64 tokens take the place of sequences, and the provenance says so."""
    fit, held = Trace.of(random_ids(0, 300, 3, 8), num_experts=8).split(0.5)
    assert {row // 64 for row in rows_of(held)} == {1, 3}
    assert "blocks of 64" in fit.provenance.notes[-1]


@given(
    share=st.floats(0.001, 0.999),
    seq_id=st.lists(st.integers(0, 2**40), min_size=1, max_size=60),
    size=st.integers(1, 70),
)
def test_split_is_disjoint_and_complete(share: float, seq_id: list[int], size: int) -> None:
    """Every row is in exactly one part, and no sequence in both, for any share."""
    trace = Trace.of(random_ids(0, len(seq_id), 3, 8), num_experts=8, seq_id=seq_id)
    parts = [[int(row) for batch in part.batches(size) for row in batch.rows] for part in trace.split(share)]
    assert sorted(parts[0] + parts[1]) == list(range(len(seq_id)))
    assert not {seq_id[row] for row in parts[0]} & {seq_id[row] for row in parts[1]}


@given(share=st.floats(0.01, 0.99))
def test_split_holds_out_the_share(share: float) -> None:
    """Of n consecutive sequences, n f within one are held out."""
    _, held = Trace.of(random_ids(0, 500, 3, 8), num_experts=8, seq_id=np.arange(500)).split(share)
    assert abs(len(rows_of(held)) - 500 * share) <= 1


def held_ids(seq_id: Any, share: float) -> set[int]:
    """Return the sequences that are held out, without the checks, which refuse negative ids."""
    ids = np.asarray(seq_id, np.int64)
    _, held = Trace.of(random_ids(0, len(ids), 3, 8), num_experts=8, seq_id=ids).split(share)
    return {int(value) for batch in held.read(1000) for value in np.asarray(batch.seq_id)}


@given(
    share=st.floats(0.001, 0.999) | st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 0.5, 2 / 3, 0.7, 0.9]),
    seq_id=st.lists(
        st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-1, 0, 2**53, 2**63 - 1]), min_size=1, max_size=20
    ),
)
def test_split_is_exact_for_any_64_bit_id(share: float, seq_id: list[int]) -> None:
    """The rule as written, in rational arithmetic; shares above 2^-11 have no digits below 2^-64."""
    f, shift = Fraction(share), Fraction(int(1e-9 * 2**64), 2**64)
    expected = {s for s in seq_id if math.floor((s + 1) * f + shift) > math.floor(s * f + shift)}
    assert held_ids(seq_id, share) == expected


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.9])
def test_small_ids_are_held_out_as_floating_point_says(share: float) -> None:
    """For ids that products of floats can tell apart, the integers give what the plain formula gives."""
    ids = np.arange(-5000, 5000)
    plain = np.floor((ids + 1) * share + 1e-9) > np.floor(ids * share + 1e-9)
    assert held_ids(ids, share) == set(ids[plain].tolist())


@given(share=st.floats(0.02, 0.98), bits=st.integers(16, 63), seed=st.integers(0, 2**32))
def test_split_holds_out_the_share_of_random_ids(share: float, bits: int, seed: int) -> None:
    """Hashes of any length: of 4000 ids, the share within six standard deviations."""
    ids = np.random.default_rng(seed).integers(0, 1 << bits, 4000)
    _, held = Trace.of(np.zeros((4000, 1, 1), np.uint8), num_experts=1, seq_id=ids).split(share)
    assert abs(len(rows_of(held)) / 4000 - share) < 6 * math.sqrt(share * (1 - share) / 4000)


def test_half_split_holds_out_odd_hashes() -> None:
    """Share 0.5 looks at the last bit, however large the id."""
    assert held_ids([2**53, 2**53 + 1, 2**62 + 1, 2**63 - 2, 2**63 - 1], 0.5) == {2**53 + 1, 2**62 + 1, 2**63 - 1}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_split_refuses_other_shares(share: float) -> None:
    """A share lies between 0 and 1."""
    with pytest.raises(InputError):
        Trace.of(random_ids(0, 3, 3, 8), num_experts=8).split(share)


def test_digest_changes_with_content_and_selection() -> None:
    """Digests tell apart ids, columns, axes and selections."""
    ids = random_ids(0, 10, 3, 8)
    plain = Trace.of(ids, num_experts=8)
    others = [
        Trace.of(ids[::-1].copy(), num_experts=8),
        Trace.of(ids, num_experts=9),
        Trace.of(ids, num_experts=8, layer_ids=[1, 2, 3]),
        Trace.of(ids, num_experts=8, seq_id=np.zeros(10, int)),
        *plain.split(0.5),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 7
    assert plain.digest == Trace.of(ids.copy(), num_experts=8).digest
