"""Ids that are no routed experts: refused with what they are, or read as missing entries on request."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.builders.traces import random_ids
from tests.engine_files import npy_bytes
from traces import InputError, LoadCounts, ModelLayout, Profile, Trace, load

EXPERTS, TOP_K, LAYERS = 12, 3, 4
REAL = random_ids(5, 60, LAYERS, EXPERTS, TOP_K).astype(np.int64)


def with_column(value: int, place: int = TOP_K) -> npt.NDArray[Any]:
    """Return the ids with a further id of every token and layer."""
    return np.insert(REAL, place, value, axis=2)


def saved(path: Path, ids: npt.NDArray[Any], **arrays: Any) -> Path:
    """Write an `.npz`, unchecked."""
    np.savez(path, topk_ids=ids, layer_ids=np.arange(ids.shape[1]), **arrays)
    return path


def read(path: Path, **options: Any) -> tuple[Trace, npt.NDArray[Any]]:
    """Load a trace, and read its ids."""
    trace = load(path, **options)
    assert isinstance(trace, Trace)
    return trace, np.concatenate([batch.topk_ids for batch in trace.batches(7)])


def refused(code: str, path: Path, **options: Any) -> str:
    """Load and read, which must fail with `code`; returns the message."""
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert caught.value.violations[0].code == code
    return str(caught.value)


def test_a_fused_shared_expert_is_no_routed_expert(tmp_path: Path) -> None:
    """It is named where it is refused; as none it leaves the load of the routed experts, and K as it is asked for."""
    path = saved(tmp_path / "t.npz", with_column(EXPERTS))
    message = refused("id_out_of_range", path, num_experts=EXPERTS)
    assert "shared expert" in message
    assert "`ids_beyond_experts` none" in message
    trace, ids = read(path, num_experts=EXPERTS, ids_beyond_experts="none")
    assert (trace.num_experts, trace.top_k) == (EXPERTS, TOP_K + 1)
    assert np.array_equal(ids, with_column(-1))
    assert any("Ids from 12 on" in note for note in trace.provenance.notes)
    load_of = np.array([np.bincount(REAL[:, layer].ravel(), minlength=EXPERTS) for layer in range(LAYERS)])
    assert np.array_equal(Profile.of(trace).load, load_of)
    cut, ids = read(path, num_experts=EXPERTS, top_k=TOP_K, ids_beyond_experts="none")
    assert cut.top_k == TOP_K
    assert np.array_equal(ids, REAL)
    assert cut.digest != trace.digest


@pytest.mark.parametrize("place", [0, 1])
def test_missing_entries_are_cut_off_wherever_they_stand(tmp_path: Path, place: int) -> None:
    """The order of the experts that are left stays, and the gate weights stay with them."""
    weights = np.random.default_rng(0).random((60, LAYERS, TOP_K + 1), np.float32)
    path = saved(tmp_path / "t.npz", with_column(EXPERTS + 3, place), gate_weights=weights)
    model = ModelLayout.of(LAYERS, num_experts=EXPERTS, top_k=TOP_K)
    trace, ids = read(path, model=model, ids_beyond_experts="none")
    assert np.array_equal(ids, REAL)
    kept = np.concatenate([batch.gate_weights for batch in trace.batches(7)])
    assert np.array_equal(kept, np.delete(weights, place, axis=2))
    refused("top_k_differ", path, num_experts=EXPERTS, top_k=TOP_K - 1, ids_beyond_experts="none")


def test_zero_experts_leave_tokens_with_fewer(tmp_path: Path) -> None:
    """Ids of several zero-computation experts, also twice in a row, which routed ones can't be."""
    ids = REAL.copy()
    ids[::2, :, 1] = EXPERTS + 1
    ids[::4, :, 2] = EXPERTS + 1
    path = saved(tmp_path / "t.npz", ids)
    assert "zero-computation" in refused("id_out_of_range", path, num_experts=EXPERTS)
    _, read_ids = read(path, num_experts=EXPERTS, ids_beyond_experts="none")
    assert np.array_equal(read_ids, np.where(ids >= EXPERTS, -1, ids))


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("uint16", 65_535), ("int32", 255), ("int64", -1)])
def test_fillers(tmp_path: Path, dtype: str, value: int) -> None:
    """The largest number of an unsigned type is named as the -1 that it was; -1 itself is a missing entry anyway."""
    path = saved(tmp_path / "t.npz", with_column(value).astype(dtype), num_experts=np.int64(EXPERTS))
    if value >= 0:
        assert f"{value} is what -1 becomes" in refused("id_out_of_range", path)
    else:
        refused("option_unused", path, ids_beyond_experts="none")
    trace, ids = read(path, **({"ids_beyond_experts": "none"} if value >= 0 else {}))
    assert np.array_equal(ids, with_column(-1))
    assert trace.num_experts == EXPERTS


def test_the_number_of_experts_must_be_known(tmp_path: Path) -> None:
    """Without it, nothing is beyond; other words and counts are refused as well."""
    path = saved(tmp_path / "t.npz", with_column(EXPERTS))
    refused("num_experts_needed", path, ids_beyond_experts="none")
    refused("unknown_choice", path, ids_beyond_experts="all")
    assert read(path, ids_beyond_experts="refuse")[0].num_experts == EXPERTS + 1
    (tmp_path / "w.csv").write_text("1.5,2\n3,4\n")
    assert isinstance(load(tmp_path / "w.csv", num_experts=2), LoadCounts)
    refused("option_unused", tmp_path / "w.csv", num_experts=2, ids_beyond_experts="none")


def test_a_file_that_counts_them_as_experts(tmp_path: Path) -> None:
    """Where the file's number of experts has the shared ones in it, the caller's smaller one holds."""
    path = saved(tmp_path / "t.npz", with_column(EXPERTS), num_experts=np.int64(EXPERTS + 1))
    refused("num_experts_differ", path, num_experts=EXPERTS)
    assert read(path, num_experts=EXPERTS, ids_beyond_experts="none")[0].num_experts == EXPERTS


def test_responses_have_them_too(tmp_path: Path) -> None:
    """Formats that are read once before look for the largest id; dense layers stay dense."""
    whole = np.zeros((60, LAYERS + 1, TOP_K + 1), np.uint8)
    whole[:, 1:] = with_column(EXPERTS)
    (tmp_path / "r.npy").write_bytes(npy_bytes(whole))
    model = ModelLayout.of(LAYERS + 1, first_moe_layer=1, num_experts=EXPERTS, top_k=TOP_K)
    trace, ids = read(tmp_path / "r.npy", model=model, ids_beyond_experts="none")
    assert (trace.layer_ids.tolist(), trace.top_k) == ([1, 2, 3, 4], TOP_K)
    assert np.array_equal(ids, REAL)
    assert "`ids_beyond_experts`" in refused("num_experts_differ", tmp_path / "r.npy", num_experts=EXPERTS)


def test_zero_experts_that_vllm_writes_as_0(tmp_path: Path) -> None:
    """Two in a row are refused with what they may be; with a model that has such experts, every recording is."""
    ids = REAL + 1
    ids[3, 2] = [5, 0, 0]
    (tmp_path / "r.npy").write_bytes(npy_bytes(ids.astype(np.uint8)))
    assert "zero-computation experts" in refused("duplicate_expert", tmp_path / "r.npy")
    model = ModelLayout(num_layers=LAYERS, moe_layers=tuple(range(LAYERS)), num_experts=EXPERTS + 1, zero_experts=4)
    assert "can't be told from expert 0" in refused("zero_experts_lost", tmp_path / "r.npy", model=model)


def test_captures_of_kernels_that_route_by_themselves(tmp_path: Path) -> None:
    """The buffer of vLLM stays at zero there: it is said which kernels do that."""
    (tmp_path / "r.npy").write_bytes(npy_bytes(np.zeros((9, 3, 2), np.uint8)))
    assert "monolithic" in refused("zero_tokens", tmp_path / "r.npy", drop_dummy_rows=True)
