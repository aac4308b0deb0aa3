"""Objects of traces: equal by content, hashable, shown in ten lines, as tables; a trace brings its engine along."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_trace
from traces import Batch, InputError, LoadCounts, ModelLayout, Profile, Provenance, TokenSample, Trace, load, save
from traces.capture.sequences import Placed
from traces.capture.spool import Spool
from traces.profile.windows import WindowedLoad
from traces.statistics import AffinityStrength, EnoughTokens, affinity_strength, enough_tokens
from traces.support.shown import layers_that
from traces.synthetic import Synthetic, generate

TOKENS, LAYERS, EXPERTS = 400, 30, 8


def trace(seed: int = 0) -> Trace:
    """Return a trace with columns and many notes."""
    provenance = Provenance(source="<b>made.npz", format="npz").noting(*(f"Note {number}." for number in range(30)))
    seq_id, rank = np.arange(TOKENS) // 10, np.arange(TOKENS) % 4
    return random_trace(seed, TOKENS, LAYERS, EXPERTS, provenance=provenance, seq_id=seq_id, source_rank=rank)


def batch(seed: int = 0) -> Batch:
    """Return the only batch of a trace."""
    return next(trace(seed).batches())


def profile(seed: int = 0) -> Profile:
    """Return a profile with everything."""
    return Profile.of(trace(seed), distances=(1, 2), window_tokens=64)


def counts(seed: int = 0) -> LoadCounts:
    """Return counts."""
    load = np.random.default_rng(seed).random((LAYERS, EXPERTS))
    return LoadCounts(load=load, layer_ids=np.arange(LAYERS), provenance=trace().provenance, digest=f"sha256:{seed}")


def sample(seed: int = 0) -> TokenSample:
    """Return a sample."""
    found = profile(seed).sample
    assert found is not None
    return found


def windows(seed: int = 0) -> WindowedLoad:
    """Return windows."""
    found = profile(seed).windows
    assert found is not None
    return found


def strength(seed: int = 0) -> AffinityStrength:
    """Return a statistic."""
    return affinity_strength(profile(seed), permutations=2)


def enough(seed: int = 0) -> EnoughTokens:
    """Return another."""
    return enough_tokens(profile(seed))


MAKERS: list[Callable[[int], Any]] = [trace, batch, profile, counts, sample, windows, strength, enough]


@pytest.mark.parametrize("make", MAKERS)
def test_equality_is_by_content(make: Callable[[int], Any]) -> None:
    """The same made twice is equal and has one hash; another content is not; other types are no error."""
    one, same, other = make(0), make(0), make(1)
    assert one is not same
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert {one, same, other} == {one, other}
    assert one != "something else"


def test_a_single_entry_makes_a_difference() -> None:
    """Every array counts, not only those that the hash looks at."""
    one = profile()
    assert one.affinity is not None
    for name in ("affinity", "coactivation", "source_load", "sequence_load"):
        changed = getattr(one, name).copy()
        changed.flat[-1] += 1
        assert one != replace(one, **{name: changed})
    distant = {2: one.distant[2] + 1}
    assert one != replace(one, distant=distant)
    assert one != replace(one, sources=())
    assert one != replace(one, sample=None)


def test_batches_with_and_without_a_column_differ() -> None:
    """A column that is missing is no column of zeros; NaN weights are equal to themselves."""
    whole = batch()
    assert whole != replace(whole, seq_id=None)
    weights = np.full(whole.topk_ids.shape, np.nan)
    assert replace(whole, gate_weights=weights) == replace(whole, gate_weights=weights.copy())
    assert hash(replace(whole, gate_weights=weights)) == hash(replace(whole, gate_weights=weights.copy()))


def test_the_integer_type_of_a_batch_does_not_matter() -> None:
    """What the numbers are counts, not how they are stored."""
    whole = batch()
    wide = replace(whole, topk_ids=whole.topk_ids.astype(np.int64))
    assert whole == wide
    assert hash(whole) == hash(wide)


def test_traces_are_equal_wherever_they_lie(tmp_path: Path) -> None:
    """The name of the file is no content, a selection is."""
    for name in ("a.npz", "b.npz"):
        save(trace(), tmp_path / name)
    one, other = load(tmp_path / "a.npz"), load(tmp_path / "b.npz")
    assert isinstance(one, Trace)
    assert one == other
    fit, held = one.split(0.5)
    assert len({one, fit, held}) == 3
    assert fit == one.split(0.5)[0]


@pytest.mark.parametrize("make", [trace, batch, profile, counts, sample, windows])
def test_ten_lines_tell_what_it_is(make: Callable[[int], Any]) -> None:
    """However many layers, notes and sources there are."""
    text = repr(make(0))
    assert text.startswith(type(make(0)).__name__)
    assert len(text.splitlines()) <= 10
    assert max(map(len, text.splitlines())) <= 100
    assert "array(" not in text


def test_a_profile_of_many_sources_is_shown_in_ten_lines() -> None:
    """The first sources are named, the rest counted."""
    merged = profile(0) + profile(1) + profile(2) + profile(3) + profile(4)
    text = repr(merged)
    assert len(text.splitlines()) <= 10
    assert "2 more" in text
    assert "2,000 tokens" in text


@pytest.mark.parametrize("make", [trace, profile])
def test_notebooks_get_a_table(make: Callable[[int], Any]) -> None:
    """HTML with the same facts; names are escaped."""
    shown = make(0)._repr_html_()
    assert shown.startswith("<table>")
    assert "&lt;b&gt;made.npz" in shown
    assert "<b>" not in shown


def test_frame_of_a_profile() -> None:
    """A row per layer and expert, whose shares add up to one in each layer."""
    pytest.importorskip("pandas")
    counted = profile()
    frame = counted.to_frame()
    assert list(frame.columns) == ["layer", "expert", "load", "share", "load_over_mean"]
    assert frame.load.to_numpy().reshape(LAYERS, EXPERTS).tolist() == counted.load.tolist()
    assert np.allclose(frame.groupby("layer").share.sum(), 1)
    assert np.allclose(frame.groupby("layer").load_over_mean.mean(), 1)
    row = frame[(frame.layer == 7) & (frame.expert == 3)].load.item()
    assert row == counted.load[7, 3]


def test_frames_of_statistics() -> None:
    """A row per layer pair."""
    pytest.importorskip("pandas")
    measured = strength()
    frame = measured.to_frame()
    assert len(frame) == LAYERS - 1
    assert np.allclose(frame.observed - frame.null_mean, frame.strength)
    assert enough().to_frame().reliability.tolist() == enough().reliability_per_pair.tolist()


def test_frames_without_pandas_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pandas is an extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pip install "moe-placement\[frame\]"'):
        profile().to_frame()


def test_an_engine_comes_along(tmp_path: Path) -> None:
    """Through selections, counting, saving and merging; what anything may write belongs to none."""
    ids = np.zeros((60, 4, 2), np.uint8)
    ids[:, :, 1] = 1 + np.arange(60)[:, np.newaxis] % 5
    np.save(tmp_path / "routed.npy", ids)
    routed = load(tmp_path / "routed.npy", model=ModelLayout.of(4, num_experts=8))
    assert isinstance(routed, Trace)
    assert routed.engine == "vllm"
    assert routed.provenance.format == "vllm_routed_experts"
    counted = Profile.of(routed.split(0.5)[0])
    assert counted.engine == "vllm"
    counted.save(tmp_path / "p.npz")
    again = Profile.load_file(tmp_path / "p.npz")
    assert again == counted
    assert again.sources[0].format == "vllm_routed_experts"
    assert (again + counted).engine == "vllm"
    other = Profile.of(replace(routed, provenance=Provenance()))
    assert other.engine is None
    assert (counted + other).engine is None
    assert trace().engine is None


def test_a_saved_profile_names_the_format_of_each_source(tmp_path: Path) -> None:
    """Files of version 1 did not, and are refused."""
    profile().save(tmp_path / "p.npz")
    arrays = dict(np.load(tmp_path / "p.npz"))
    header = json.loads(str(arrays["header"]))
    assert header["sources"][0]["format"] == "npz"
    arrays["header"] = np.array(json.dumps(header | {"profile_version": 1}))
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(InputError, match="Version 1 is not 2"):
        Profile.load_file(tmp_path / "old.npz")


@pytest.mark.parametrize("make", MAKERS)
def test_objects_pickle(make: Callable[[int], Any]) -> None:
    """What comes back is equal, has the same hash, and shows itself alike."""
    one = make(0)
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert repr(again) == repr(one)


def test_arrays_stay_read_only_when_they_are_pickled() -> None:
    """Nobody changes a hashed object by writing to its arrays, here or there."""
    assert not pickle.loads(pickle.dumps(profile())).load.flags.writeable
    assert not pickle.loads(pickle.dumps(trace())).layer_ids.flags.writeable


def test_parts_and_generated_traces_pickle() -> None:
    """A part pickles as the whole and its rule; a generated trace as its parameters."""
    made = generate(Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=4000))
    content = pickle.dumps(made)
    assert len(content) < 2000
    assert pickle.loads(content) == made
    for part in trace().split(0.3):
        again = pickle.loads(pickle.dumps(part))
        assert again == part
        assert list(again.batches()) == list(part.batches())


def test_a_trace_of_a_file_pickles_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path and reading options travel, not the tokens; a relative path holds in another working directory."""
    save(trace(), tmp_path / "t.npz")
    monkeypatch.chdir(tmp_path)
    part, _ = load("t.npz", num_experts=EXPERTS).split(0.5)  # type: ignore[union-attr]  # tokens
    content = pickle.dumps(part)
    monkeypatch.chdir("/")
    assert len(content) < 8000
    again = pickle.loads(content)
    assert repr(again) == repr(part)
    read = list(again.batches())
    monkeypatch.chdir(tmp_path)
    assert read == list(part.batches())


def test_a_pickled_path_that_holds_another_trace_is_refused(tmp_path: Path) -> None:
    """Layers, experts and tokens were pickled; a file that has others by now is not read in their place."""
    path = tmp_path / "t.npz"
    save(trace(), path)
    content = pickle.dumps(load(path))
    save(random_trace(0, 50, LAYERS, EXPERTS), path)
    with pytest.raises(InputError, match="source_changed"):
        pickle.loads(content)
    path.unlink()
    with pytest.raises(InputError, match="file_missing"):
        pickle.loads(content)


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([0], "Layer 0 holds filler."),
        ([0, 3], "Layers 0, 3 hold filler."),
        (range(10), "Layers 0, 1, 2, 3, 4, 5, 6, 7"),
    ],
)
def test_one_layer_holds_and_two_hold(layers: list[int], told: str) -> None:
    """The verb follows the number; long lists are cut."""
    assert f"{layers_that(layers, 'holds', 'hold')} filler.".startswith(told)


def test_an_unsaved_recording_says_how_to_pickle_it(tmp_path: Path) -> None:
    """Its tokens lie in a temporary folder that goes with the process."""
    spool = Spool(tmp_path, 2, 1, weights=False)
    places = np.arange(3)
    placed = Placed(keep=np.ones(3, bool), seq_id=places, token_pos=places, phase=np.zeros(3, np.uint8))
    spool.append(np.zeros((3, 2, 1), np.int64), None, placed)
    spool.close()
    recorded = spool.trace(num_experts=2, layer_ids=np.arange(2), provenance=Provenance())
    assert len(list(recorded.batches())) == 1
    with pytest.raises(InputError, match=r"temporary folder.*traces\.save"):
        pickle.dumps(recorded)


def test_the_digest_is_taken_anew(tmp_path: Path) -> None:
    """A digest is no part of a pickle: the file may have changed."""
    path = tmp_path / "t.npz"
    save(trace(0), path)
    one = load(path)
    assert one.digest
    content = pickle.dumps(one)
    save(trace(1), path)
    assert pickle.loads(content).digest == load(path).digest != one.digest
