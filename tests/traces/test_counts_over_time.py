"""Dumps of counts over time are one recording; and counts are written as engines load them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.reading import refused
from tests.torch_files import torch_bytes
from traces import InputError, LoadCounts, ModelLayout, load, save_counts

DUMPS = np.random.default_rng(7).integers(1, 900, (4, 3, 8))  # times, layers, experts


def merged(path: Any, **options: Any) -> LoadCounts:
    """Load counts that were dumped several times."""
    loaded = load(path, **options)
    assert isinstance(loaded, LoadCounts)
    return loaded


def written(folder: Path, dumps: Any = DUMPS, names: str = "d_{}.json") -> Path:
    """Write a JSON matrix per dump."""
    folder.mkdir(exist_ok=True)
    for number, counts in enumerate(dumps):
        (folder / names.format(8 + number)).write_text(json.dumps({"logical_count": counts.tolist()}))
    return folder


def check(counts: LoadCounts, dumps: Any) -> None:
    """Compare the sum, and each dump in order."""
    assert np.array_equal(counts.load, np.sum(dumps, axis=0))
    assert [dump.read().tolist() for dump in counts.dumps] == np.asarray(dumps).tolist()


def test_a_folder_a_pattern_and_paths_are_one_recording(tmp_path: Path) -> None:
    """Ordered by name, numbers by value: d_8, d_9, d_10, d_11."""
    folder = written(tmp_path / "dumps")
    for path in (folder, f"{folder}/d_*.json", sorted(folder.iterdir())):
        counts = merged(path)
        check(counts, DUMPS)
        assert [dump.name for dump in counts.dumps] == ["d_8.json", "d_9.json", "d_10.json", "d_11.json"]
        assert "4 dumps over time, in order by name" in counts.provenance.notes[0]
    assert merged(folder) == merged(folder)
    assert merged(folder / "d_8.json").dumps == ()
    assert merged(f"{folder}/d_8*").dumps == ()
    refused("file_missing", f"{folder}/x_*.json")


def test_a_recording_of_dumps_pickles(tmp_path: Path) -> None:
    """In another process, it is opened again where a dump is read."""
    counts = merged(f"{written(tmp_path / 'dumps')}/*.json")
    check(pickle.loads(pickle.dumps(counts)), DUMPS)


def test_sglang_dumps_are_ordered_by_the_time_in_their_names(tmp_path: Path) -> None:
    """Only rank 0 writes; the name ends with the time."""
    for number, counts in enumerate(DUMPS):
        name = f"expert_distribution_recorder_{1_800_000_009 + number - (number == 3) * 900}.25.pt"
        (tmp_path / name).write_bytes(torch_bytes({"rank": 0, "logical_count": counts[np.newaxis]}))
    counts = merged(tmp_path)
    check(counts, DUMPS[[3, 0, 1, 2]])
    assert counts.engine == "sglang"
    assert counts.dumps[1].time == 1_800_000_009.25


def test_running_sums_are_taken_apart(tmp_path: Path) -> None:
    """A recorder that is never reset dumps sums: each dump has the counts of those before."""
    counts = merged(written(tmp_path / "d", np.cumsum(DUMPS, axis=0)))
    check(counts, DUMPS)
    assert any("running sums" in note for note in counts.provenance.notes)
    two = merged(written(tmp_path / "two", np.cumsum(DUMPS, axis=0)[:2]))
    check(two, np.cumsum(DUMPS, axis=0)[:2])
    assert any("if they are running sums" in note for note in two.provenance.notes)


def test_a_dump_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """An idle engine dumps the same counts again."""
    counts = merged(written(tmp_path / "d", DUMPS[[0, 1, 1, 2]]))
    check(counts, DUMPS[:3])


def test_layers_without_counts_at_some_time_are_kept(tmp_path: Path) -> None:
    """A layer counts if any dump has it; one that none has is missing in the recording."""
    dumps = DUMPS.copy()
    dumps[0, 2] = 0
    dumps[:, 1] = 0
    counts = merged(written(tmp_path / "d", dumps))
    assert counts.layer_ids.tolist() == [0, 2]
    assert counts.unrecorded == (1,)
    check(counts, dumps[:, [0, 2]])
    assert sum("missing in the recording" in note for note in counts.provenance.notes) == 1


def test_dumps_of_several_models_or_formats_are_refused(tmp_path: Path) -> None:
    """Every dump that differs is named."""
    folder = written(tmp_path / "d")
    (folder / "d_9.json").write_text(json.dumps({"logical_count": [[1, 2]] * 3}))
    assert "d_9.json" in refused("dumps_differ", folder)
    (folder / "d_9.json").write_text("[[1, 2], [3, 4]]")
    refused("is_a_folder", folder)
    (folder / "d_9.json").write_text('{"logical_count": [[1, -2]]}')
    assert "d_9.json" in refused("load_not_finite", folder)
    refused("paths", [folder / "d_8.json", folder / "d_8.json"])


MODEL = ModelLayout.of(5, first_moe_layer=2, num_experts=8)


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_logical_counts_are_written_and_read_again(tmp_path: Path, suffix: str) -> None:
    """A row for every layer of the model; dense ones are zero."""
    counts = LoadCounts.of(DUMPS[0], layer_ids=[2, 3, 4])
    path = tmp_path / f"counts{suffix}"
    assert save_counts(counts, path, format="logical_count", model=MODEL) == ()
    again = merged(path, model=MODEL)
    assert np.array_equal(again.load, DUMPS[0])
    assert again.layer_ids.tolist() == [2, 3, 4]
    assert merged(path).unrecorded == (0, 1)
    before = path.read_bytes()
    save_counts(counts, path, format="logical_count", model=MODEL)
    assert path.read_bytes() == before


def test_torch_loads_the_counts(tmp_path: Path) -> None:
    """As SGLang does, with weights_only."""
    torch = pytest.importorskip("torch")
    for load_ in (DUMPS[0], DUMPS[0] / 7):
        save_counts(LoadCounts.of(load_), tmp_path / "c.pt", format="logical_count")
        found = torch.load(tmp_path / "c.pt", weights_only=True)
        assert np.array_equal(found["logical_count"].numpy(), load_)


def test_lmdeploy_statistics_are_written(tmp_path: Path) -> None:
    """A matrix with a row per layer of the model."""
    save_counts(
        LoadCounts.of(DUMPS[0], layer_ids=[2, 3, 4]), tmp_path / "s.json", format="lmdeploy_statistics", model=MODEL
    )
    rows = json.loads((tmp_path / "s.json").read_text())
    assert rows == [[0] * 8, [0] * 8, *DUMPS[0].tolist()]
    assert np.array_equal(merged(tmp_path / "s.json", model=MODEL).load, DUMPS[0])


def test_writing_counts_needs_the_layers_and_a_suffix(tmp_path: Path) -> None:
    """All that is wrong is told at once."""
    counts = LoadCounts.of(DUMPS[0], layer_ids=[2, 3, 4])
    with pytest.raises(InputError) as error:
        save_counts(counts, tmp_path / "s.pt", format="lmdeploy_statistics")
    assert {violation.code for violation in error.value.violations} == {"output_suffix", "model_unknown"}
    with pytest.raises(InputError, match="no MoE layers"):
        save_counts(counts, tmp_path / "s.json", format="logical_count", model=ModelLayout.of(9, first_moe_layer=4))
    notes = save_counts(counts, tmp_path / "s.json", format="logical_count", model=ModelLayout.of(7, first_moe_layer=2))
    assert "[5, 6] have no counts" in notes[0]
