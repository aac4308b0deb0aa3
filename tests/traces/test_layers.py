"""Some of the layers: those of one size where routers have different numbers of experts."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from solvers import Study
from tests.builders.service import npz
from traces import InputError, LoadCounts, Profile, Trace, check, load

RNG = np.random.default_rng(0)
SIZES = (8, 8, 16, 16, 8)  # experts of each layer
IDS = np.stack([RNG.permuted(np.tile(np.arange(size), (2000, 1)), axis=1)[:, :2] for size in SIZES], axis=1)
COUNTS = np.array([np.bincount(IDS[:, layer].ravel(), minlength=16) for layer in range(len(SIZES))])
LAYERS = [1, 3, 5, 7, 9]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a trace that does not say how many experts there are."""
    file = tmp_path_factory.mktemp("layers") / "t.npz"
    file.write_bytes(npz(topk_ids=IDS.astype(np.uint8), layer_ids=np.array(LAYERS)))
    return file


def code_of(error: pytest.ExceptionInfo[InputError]) -> str:
    """Return the code of the only violation."""
    (found,) = error.value.violations
    return found.code


def test_before_a_plan_layers_and_experts_are_named(path: Path) -> None:
    """In the one line; the remedy is the option."""
    notes = Study.of(path, "1x4").notes
    assert any("layers 1, 3, 9 use 8 of 16" in note for note in notes)
    (found,) = [one for one in check(path) if one.code == "layer_specific_experts"]
    assert "`layers`" in found.remedy
    assert not any("some layers only" in note for note in Study.of(load(path, layers=[1, 3, 9]), "1x4").notes)


@pytest.mark.parametrize("num_experts", [None, 8])
def test_chosen_layers_have_their_own_experts(path: Path, num_experts: int | None) -> None:
    """Inferred from these layers alone, or said; equal to what these layers alone give."""
    chosen = load(path, layers=[9, 1, 3], num_experts=num_experts)
    assert isinstance(chosen, Trace)
    assert (chosen.layer_ids.tolist(), chosen.num_experts) == ([1, 3, 9], 8)
    assert np.array_equal(Profile.of(chosen).load, COUNTS[[0, 1, 4], :8])
    assert sum("num_experts" in note for note in chosen.provenance.notes) == (num_experts is None)
    again = pickle.loads(pickle.dumps(chosen))
    assert again == chosen
    assert np.array_equal(next(again.batches()).topk_ids, IDS[:, [0, 1, 4]])
    assert chosen.digest != load(path).digest


def test_a_file_that_says_the_experts_of_its_widest_layer(tmp_path: Path) -> None:
    """`num_experts` is that of the chosen layers; too few are refused where the ids are read."""
    weights = RNG.random(IDS.shape).astype(np.float32)
    content = npz(topk_ids=IDS.astype(np.uint8), num_experts=np.array(16), gate_weights=weights)
    (tmp_path / "t.npz").write_bytes(content)
    chosen = load(tmp_path / "t.npz", layers=[0, 4], num_experts=8)
    assert isinstance(chosen, Trace)
    batch = next(chosen.batches())
    assert batch.gate_weights is not None
    assert np.array_equal(batch.gate_weights, weights[: len(batch), [0, 4]])
    with pytest.raises(InputError, match="id_out_of_range"):
        next(load(tmp_path / "t.npz", layers=[0, 2], num_experts=8).batches())  # type: ignore[union-attr]  # a trace
    with pytest.raises(InputError) as error:
        load(tmp_path / "t.npz", num_experts=8)
    assert code_of(error) == "num_experts_differ"


def test_counts_of_chosen_layers(tmp_path: Path) -> None:
    """Over time as well: every dump has these layers."""
    for number in range(3):
        (tmp_path / f"d{number}.json").write_text(json.dumps((COUNTS * (number + 1) % 97).tolist()))
    chosen = load(tmp_path, layers=[0, 1], num_experts=8)
    assert isinstance(chosen, LoadCounts)
    wanted = [COUNTS[:2, :8] * (number + 1) % 97 for number in range(3)]
    assert np.array_equal(chosen.load, np.sum(wanted, axis=0))
    for dumps in (chosen.dumps, pickle.loads(pickle.dumps(chosen.dumps))):
        assert all(np.array_equal(dump.read(), one) for dump, one in zip(dumps, wanted, strict=True))
    with pytest.raises(InputError) as error:
        load(tmp_path, layers=[0, 2], num_experts=8)
    assert code_of(error) == "num_experts_differ"


@pytest.mark.parametrize(("layers", "code"), [([2], "unknown_layers"), ([], "layers_range"), (["a"], "layers_range")])
def test_layers_that_are_not_there(path: Path, layers: list[int], code: str) -> None:
    """Named, with those that are."""
    with pytest.raises(InputError) as error:
        load(path, layers=layers)
    assert code_of(error) == code
