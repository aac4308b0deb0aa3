"""Profiles: counts against brute force, merging, saving."""

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.traces import load_counts, random_ids
from traces import Batch, InputError, LoadCounts, Profile, Provenance, Trace
from traces.profile.sequences import SEQUENCE_BUCKETS, bucket_of
from traces.statistics import imbalance, summary

LAYERS, EXPERTS = 3, 6
Ids = np.ndarray[Any, np.dtype[np.int8]]


@st.composite
def ids_arrays(draw: st.DrawFn, max_tokens: int = 40, top_k: int | None = None) -> Ids:
    """Distinct ids, some of them missing; every layer has at least one."""
    tokens = draw(st.integers(1, max_tokens))
    k = top_k or draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = random_ids(rng, tokens, LAYERS, EXPERTS, k).astype(np.int8)
    if draw(st.booleans()):
        ids[rng.random(ids.shape) < 0.3] = -1
        ids[0, :, 0] = rng.integers(0, EXPERTS, LAYERS)
        ids[0, :, 1:] = -1
    return ids


def of(ids: Ids, **options: Any) -> Profile:
    """Profile ids with small windows and samples."""
    columns = {name: options.pop(name) for name in ("seq_id", "source_rank") if name in options}
    trace = Trace.of(ids, num_experts=EXPERTS, **columns)
    small: dict[str, Any] = {"window_tokens": 4, "sample_tokens": 16, "distances": (1, 2)}
    return Profile.of(trace, **(small | options))


def content(profile: Profile, *, tokens_only: bool = False) -> dict[str, Any]:
    """Everything in a profile as plain values; `tokens_only` leaves out what depends on the source."""
    plain: dict[str, Any] = {}
    for item in fields(profile):
        value = getattr(profile, item.name)
        if item.name in ("windows", "sample") and value is not None:
            if tokens_only:
                continue
            value = {part.name: np.asarray(getattr(value, part.name)).tolist() for part in fields(value)}
        elif item.name == "distant":
            value = {distance: counts.tolist() for distance, counts in value.items()}
        elif item.name == "sources" and tokens_only:
            continue
        plain[item.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return plain


def brute_pairs(ids: Ids, distance: int) -> np.ndarray[Any, Any]:
    """Pairs at a layer distance, token by token; distance 0 gives all ordered pairs within a layer."""
    counts = np.zeros((LAYERS - distance, EXPERTS, EXPERTS), np.int64)
    for token in ids:
        for layer in range(LAYERS - distance):
            for i in token[layer]:
                for j in token[layer + distance]:
                    if i >= 0 and j >= 0:
                        counts[layer, i, j] += 1
    return counts


@given(ids=ids_arrays())
def test_matrices_equal_brute_force(ids: Ids) -> None:
    """Load, affinity, coactivation and distance 2 are what loops over tokens count, missing entries left out."""
    profile = of(ids)
    together = brute_pairs(ids, 0)
    assert np.array_equal(profile.load, together.diagonal(axis1=1, axis2=2))
    assert profile.affinity is not None
    assert np.array_equal(profile.affinity, brute_pairs(ids, 1))
    assert profile.coactivation is not None
    assert np.array_equal(profile.coactivation, together)
    assert np.array_equal(profile.distant[2], brute_pairs(ids, 2))


@given(ids=ids_arrays())
def test_windows_equal_brute_force(ids: Ids) -> None:
    """Window w counts the rows 4 w to 4 w + 3."""
    windows = of(ids).windows
    assert windows is not None
    assert windows.index.tolist() == list(range(-(-len(ids) // 4)))
    for number, load in zip(windows.index, windows.load, strict=True):
        part = ids[number * 4 : number * 4 + 4]
        expected = [np.bincount(part[:, layer][part[:, layer] >= 0], minlength=EXPERTS) for layer in range(LAYERS)]
        assert np.array_equal(load, expected)


@given(ids=ids_arrays(), ranks=st.integers(1, 5), seed=st.integers(0, 99))
def test_source_load_equals_brute_force(ids: Ids, ranks: int, seed: int) -> None:
    """Each source rank has its own load; tokens of unknown rank count for none."""
    source = np.random.default_rng(seed).integers(-1, ranks, len(ids))
    profile = of(ids, source_rank=source)
    assert profile.source_load is not None
    expected = np.zeros((source.max() + 1, LAYERS, EXPERTS), np.int64)
    for rank, token in zip(source, ids, strict=True):
        for layer in range(LAYERS):
            for i in token[layer]:
                if rank >= 0 and i >= 0:
                    expected[rank, layer, i] += 1
    assert np.array_equal(profile.source_load, expected)


@given(ids=ids_arrays(max_tokens=200), seed=st.integers(0, 99), sequences=st.integers(1, 300))
def test_sequence_load_keeps_sequences_together(ids: Ids, seed: int, sequences: int) -> None:
    """Each bucket holds the tokens of whole sequences, every token once; parts of a trace add up to it."""
    seq_id = np.random.default_rng(seed).integers(0, sequences, len(ids)) << 40
    found = of(ids, seq_id=seq_id).sequence_load
    assert found is not None
    expected = np.zeros_like(found)
    for sequence in set(seq_id.tolist()):
        alone = ids[seq_id == sequence]
        if (alone >= 0).any():
            bucket = int(bucket_of(np.array([sequence]))[0])
            for layer in range(LAYERS):
                np.add.at(expected[bucket, layer], alone[:, layer][alone[:, layer] >= 0], 1)
    assert np.array_equal(found, expected)


def test_sequences_are_spread_over_allbucket_of() -> None:
    """Ids that are multiples of a large power of two do not share a bucket: 64 buckets of about 100."""
    count = np.bincount(bucket_of(np.arange(6400) << 20), minlength=SEQUENCE_BUCKETS)
    assert len(count) == SEQUENCE_BUCKETS
    assert 50 < count.min() <= count.max() < 150


@given(ids=ids_arrays(max_tokens=200), workers=st.integers(1, 3), size=st.integers(1, 90))
def test_result_depends_neither_on_workers_nor_on_batches(ids: Ids, workers: int, size: int) -> None:
    """However the source cuts its batches, the profile is the same, bit for bit."""
    trace = Trace.of(ids, num_experts=EXPERTS)

    def read(max_tokens: int) -> Iterator[Batch]:
        return trace.read(min(size, max_tokens))

    options: dict[str, Any] = {"window_tokens": 4, "sample_tokens": 16}
    cut = Profile.of(replace(trace, read=read), workers=workers, **options)
    assert content(cut) == content(Profile.of(trace, workers=1, **options))


@given(first=ids_arrays(top_k=2), second=ids_arrays(top_k=2))
def test_sum_counts_like_the_concatenation(first: Ids, second: Ids) -> None:
    """Merged matrices are those of one pass over both traces."""
    merged = of(first) + of(second)
    whole = of(np.concatenate([first, second]))
    assert content(merged, tokens_only=True) == content(whole, tokens_only=True)


@given(ids=ids_arrays(max_tokens=200), cut=st.integers(0, 199))
def test_parts_of_a_source_merge_to_its_windows_and_sample(ids: Ids, cut: int) -> None:
    """Windows and samples of two parts of one source join to those of the whole."""
    from traces.profile.sample import SampleBuilder, TokenSample
    from traces.profile.windows import WindowedLoad

    whole = of(ids)
    assert whole.windows is not None
    assert whole.sample is not None
    key = int(whole.windows.source[0])
    (batch,) = Trace.of(ids, num_experts=EXPERTS).read(1000)
    samples = []
    for part in (batch.select(slice(0, cut)), batch.select(slice(cut, None))):
        builder = SampleBuilder(16, key)
        builder.add(part)
        samples.append(builder.finish())
    merged = TokenSample.union([sample for sample in samples if sample is not None])
    assert merged.rows.tolist() == whole.sample.rows.tolist()
    middle = len(whole.windows) // 2
    halves = [
        WindowedLoad(
            window_tokens=whole.windows.window_tokens,
            limit=whole.windows.limit,
            **{name: getattr(whole.windows, name)[piece] for name in ("source", "index", "tokens", "load")},
        )
        for piece in (slice(0, middle), slice(middle, None))
    ]
    assert np.array_equal(WindowedLoad.union(halves[::-1]).load, whole.windows.load)


@given(traces=st.tuples(*[ids_arrays(max_tokens=30, top_k=2)] * 3))
def test_sum_is_commutative_and_associative(traces: tuple[Ids, Ids, Ids]) -> None:
    """The order of merging changes nothing, windows, sample, sources and digest included."""
    a, b, c = (of(ids, source_rank=np.arange(len(ids)) % 3, seq_id=np.arange(len(ids)) // 4) for ids in traces)
    assert content(a + b) == content(b + a)
    assert content((a + b) + c) == content(a + (b + c))
    assert (a + b + c).digest == (c + b + a).digest


def test_profiles_of_different_models_do_not_merge() -> None:
    """All differences are named at once."""
    ids = np.zeros((4, LAYERS, 1), np.int8)
    other = Profile.of(Trace.of(ids, num_experts=EXPERTS + 1, layer_ids=[3, 4, 5]), window_tokens=6)
    with pytest.raises(InputError) as error:
        of(ids) + other
    assert {item.pointer for item in error.value.violations} == {"/num_experts", "/layer_ids", "/distant", "/windows"}


@pytest.mark.parametrize("name", ["affinity", "windows", "source_load", "sequence_load", "sample"])
def test_statistics_of_one_side_only_do_not_merge(name: str) -> None:
    """What one profile lacks is not dropped from the sum in silence."""
    whole = of(np.zeros((4, LAYERS, 1), np.int8), source_rank=np.zeros(4, int), seq_id=np.zeros(4, int))
    lacking: dict[str, Any] = {name: None}
    with pytest.raises(InputError) as error:
        whole + replace(whole, **lacking)
    assert [item.pointer for item in error.value.violations] == [f"/{name}"]


@given(ids=ids_arrays())
@settings(max_examples=25)
def test_saved_profile_reads_back_whole(ids: Ids, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Saving loses nothing, of single and of merged profiles."""
    path = tmp_path_factory.mktemp("profile") / "p.npz"
    columns = {"source_rank": np.arange(len(ids)) % 2, "seq_id": np.arange(len(ids)) // 3}
    profile = of(ids, **columns) + of(ids[::-1].copy(), **columns)
    profile.save(path)
    assert content(Profile.load_file(path)) == content(profile)


def test_profile_of_counts_has_loads_only(tmp_path: Path) -> None:
    """A weight matrix gives loads, and what needs tokens is refused."""
    counts = LoadCounts(
        load=np.ones((2, 4)), layer_ids=np.arange(2), provenance=Provenance(source="w.npy"), digest="sha256:0"
    )
    profile = Profile.of(counts)
    profile.save(tmp_path / "p.npz")
    assert content(Profile.load_file(tmp_path / "p.npz")) == content(profile)
    with pytest.raises(InputError, match="counts per expert"):
        _ = profile.conditional


def test_conditional_rows_are_distributions() -> None:
    """Rows of the conditional affinity sum to 1, or to 0 for experts that no token used."""
    ids = np.array([[[0], [1], [2]], [[0], [2], [2]]], np.int8)
    conditional = of(ids).conditional
    assert conditional[0, 0].tolist() == [0, 0.5, 0.5, 0, 0, 0]
    assert set(conditional.sum(axis=2).ravel().tolist()) == {0.0, 1.0}


def test_a_selection_without_tokens_is_refused() -> None:
    """A profile of nothing is an error, not zeros."""
    trace = Trace.of(np.zeros((4, 2, 1), int), num_experts=2)
    with pytest.raises(InputError, match="no tokens"):
        Profile.of(trace.where(lambda batch: batch.rows > 10, "none"))


def test_a_layer_without_tokens_is_refused() -> None:
    """A layer that nobody routed to is named."""
    with pytest.raises(InputError, match=r"layer\(s\) \[1\]"):
        of(np.array([[[0], [-1], [2]]], np.int8))


def test_duplicates_are_found_while_counting() -> None:
    """An expert listed twice stops the count, with its row."""
    ids = np.tile(np.array([0, 1], np.int8), (300, LAYERS, 1))
    ids[222, 1] = 4
    with pytest.raises(InputError, match="row 222, layer 1, k 1"):
        of(ids)


@pytest.mark.parametrize(
    "options", [{"distances": (0,)}, {"distances": (3,)}, {"window_tokens": 0}, {"sample_tokens": -1}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """Distances, windows and samples have ranges."""
    with pytest.raises(InputError):
        of(np.zeros((4, LAYERS, 1), np.int8), **options)


def test_counts_that_cannot_fit_memory_are_refused() -> None:
    """Absurd axes fail with a message instead of exhausting the machine."""
    ids = np.zeros((1, 30_000, 1), np.int16)
    with pytest.raises(InputError, match="GiB"):
        Profile.of(Trace.of(ids, num_experts=32_767))


def test_single_layer_has_no_pairs() -> None:
    """One layer gives loads and an empty affinity."""
    profile = Profile.of(Trace.of(np.zeros((4, 1, 1), int), num_experts=2))
    assert profile.affinity is not None
    assert profile.affinity.shape == (0, 2, 2)


@pytest.mark.parametrize("change", ["version", "no_header", "shape", "dtype", "windows", "list"])
def test_other_archives_are_no_profile(tmp_path: Path, change: str) -> None:
    """A wrong version or structure is refused by name."""
    path = tmp_path / "p.npz"
    of(np.zeros((4, LAYERS, 1), np.int8)).save(path)
    arrays = dict(np.load(path))
    header = json.loads(str(arrays["header"]))
    if change == "version":
        header["profile_version"] = 99
    elif change == "shape":
        arrays["affinity"] = arrays["affinity"][:1]
    elif change == "dtype":
        arrays["load"] = arrays["load"].astype("U5")
    elif change == "windows":
        header["windows"] = [1]
    arrays["header"] = np.array(json.dumps([1] if change == "list" else header))
    if change == "no_header":
        del arrays["header"]
    np.savez(path, **arrays)
    with pytest.raises(InputError):
        Profile.load_file(path)


@pytest.mark.parametrize("value", [1e308, 1e99, 5e-324, 1e-102])
def test_loads_whose_shares_float64_cannot_hold_are_refused(value: float) -> None:
    """Sums of a layer lie between 1e-100 and 1e100; the layer is named, and numpy has nothing to warn of."""
    load = np.ones((3, 20))
    load[1] = value
    counts = load_counts(load)
    with np.errstate(all="raise"), pytest.raises(InputError) as error:
        Profile.of(counts)
    assert [(item.code, item.pointer) for item in error.value.violations] == [("load_range", "/load/1")]


@pytest.mark.parametrize("value", [1e98, 1e-100])
def test_loads_at_the_ends_of_the_range_have_exact_shares(value: float) -> None:
    """Neither squares nor shares lose anything there."""
    load = np.full((2, 20), value)
    counts = load_counts(load)
    assert imbalance(Profile.of(counts)).tolist() == pytest.approx([1, 1], rel=1e-15)


def test_counts_have_no_pairs_of_distant_layers() -> None:
    """Distances that can't be counted are refused, not ignored."""
    counts = load_counts(np.ones((3, 4)))
    with pytest.raises(InputError, match="counts_only"):
        Profile.of(counts, distances=(1, 2))
    assert Profile.of(counts, distances=(1,)).distant == {}


def test_a_trace_that_is_counted_twice_is_noted() -> None:
    """The summary tells equal contents by their digests; other traces have no note."""
    one = of(np.zeros((4, LAYERS, 1), np.int8))
    other = of(np.ones((4, LAYERS, 1), np.int8))
    notes = [item["notes"] for item in summary(one + other + one)["sources"]]
    assert sum("counted again" in " ".join(item) for item in notes) == 1
    assert not any("counted again" in " ".join(item["notes"]) for item in summary(one + other)["sources"])
