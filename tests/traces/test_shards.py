"""Profiles of many files: the same bits whatever counts them and however they merge, and errors that name the file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces.profile.locations
from traces import InputError, Profile, Trace, load, profile_shards
from traces.profile.locations import list_shards

LAYERS, EXPERTS = 3, 6
SMALL: dict[str, Any] = {"window_tokens": 4, "sample_tokens": 16, "distances": (1, 2)}


def arrays_of(seed: int, tokens: int = 90, head: int = 0) -> dict[str, Any]:
    """Return a trace's arrays; the first `head` tokens are the same for every seed."""
    rng, first = np.random.default_rng(seed), np.random.default_rng(10**6)
    ranks = np.concatenate([first.random((head, LAYERS, EXPERTS)), rng.random((tokens, LAYERS, EXPERTS))])
    return {
        "topk_ids": ranks.argsort(axis=2)[:, :, :2].astype(np.int8),
        "seq_id": np.arange(head + tokens) // 5,
        "source_rank": np.arange(head + tokens) % (1 + seed % 3),
    }


def write_shards(folder: Path, count: int, **options: Any) -> list[Path]:
    """Write traces to files whose names sort by number."""
    paths = [folder / f"part-{number:03}.npz" for number in range(count)]
    for number, path in enumerate(paths):
        np.savez(path, num_experts=np.array(EXPERTS), **arrays_of(number, **options))
    return paths


def saved(profile: Profile, folder: Path) -> dict[str, Any]:
    """Return what `save` keeps of a profile: every array with its dtype, and the header."""
    profile.save(folder / "saved.npz")
    with np.load(folder / "saved.npz") as archive:
        return {name: (archive[name].dtype.str, archive[name].shape, archive[name].tobytes()) for name in archive}


def fold(paths: list[Path]) -> Profile:
    """Merge from left to right, as a plain loop does."""
    merged = Profile.of(load(paths[0]), **SMALL)
    for path in paths[1:]:
        merged += Profile.of(load(path), **SMALL)
    return merged


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=7),
    head=st.sampled_from([0, 64]),
    cuts=st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_any_tree_of_neighbours_gives_the_same_bits(
    sizes: list[int], head: int, cuts: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The shape of the tree changes nothing, even of traces that begin alike and so share a key of their source."""
    parts = [
        Profile.of(Trace.of(num_experts=EXPERTS, **arrays_of(seed, tokens, head)), **SMALL)
        for seed, tokens in enumerate(sizes)
    ]

    def tree(few: list[Profile]) -> Profile:
        if len(few) == 1:
            return few[0]
        cut = cuts.randrange(1, len(few))
        return tree(few[:cut]) + tree(few[cut:])

    left = parts[0]
    for part in parts[1:]:
        left += part
    folder = tmp_path_factory.mktemp("tree")
    assert saved(tree(parts), folder) == saved(left, folder)


@pytest.mark.parametrize("count", [1, 8, 21])
def test_executors_and_threads_give_the_same_bits(tmp_path: Path, count: int) -> None:
    """Whoever counts the shards, the saved profile is that of a plain loop."""
    paths = write_shards(tmp_path, count)
    plain = saved(fold(paths), tmp_path)
    assert saved(profile_shards(paths, **SMALL), tmp_path) == plain
    with ThreadPoolExecutor(3) as pool:
        assert saved(profile_shards(paths, pool, **SMALL), tmp_path) == plain
        assert pool.submit(int).result() == 0, "an executor that was given stays open"


def test_matrices_are_those_of_the_concatenation(tmp_path: Path) -> None:
    """Counts do not know where one shard ends and the next begins."""
    merged = profile_shards(write_shards(tmp_path, 11), **SMALL)
    columns = [arrays_of(seed) for seed in range(11)]
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    whole = Profile.of(Trace.of(num_experts=EXPERTS, **joined), **SMALL)
    assert merged.tokens == whole.tokens
    for name in ("load", "affinity", "coactivation", "source_load", "sequence_load"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name)), name
    assert np.array_equal(merged.distant[2], whole.distant[2])


def test_sums_of_weights_do_not_depend_on_who_adds_them(tmp_path: Path) -> None:
    """Weights are no integers, so the order of additions shows; it is the same everywhere."""
    rng = np.random.default_rng(0)
    for number in range(19):
        np.save(tmp_path / f"{number:02}.npy", rng.random((3, 8)) * 10.0 ** rng.integers(-9, 9))
    here = profile_shards([tmp_path / "*.npy"])
    with ThreadPoolExecutor(4) as pool:
        there = profile_shards([tmp_path / "*.npy"], pool)
    assert here.load.tobytes() == there.load.tobytes()


def test_saved_profiles_and_traces_mix(tmp_path: Path) -> None:
    """A shard may be a profile that was saved before."""
    paths = write_shards(tmp_path, 3)
    whole = saved(fold(paths), tmp_path)
    Profile.of(load(paths[1]), **SMALL).save(paths[1])
    assert saved(profile_shards(paths, **SMALL), tmp_path) == whole


class Mortal(Executor):
    """A pool that breaks at its n-th task, with all that is on its way, as pools of processes do."""

    def __init__(self, breaks_at: int | None) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._left = breaks_at
        self._max_workers = 2
        self._futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise BrokenExecutor("a worker died")
            if self._left == 0:
                future: Future[Any] = Future()
                future.set_exception(BrokenExecutor("a worker died"))
                return future
        return self._pool.submit(fn, *arguments, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def test_a_dead_worker_changes_nothing(tmp_path: Path) -> None:
    """A pool that breaks is made anew, and what was lost is counted again."""
    paths = write_shards(tmp_path, 50, tokens=20)
    pools = [Mortal(None), Mortal(1), Mortal(3)]
    merged = profile_shards(paths, pools.pop, **SMALL)
    assert not pools
    assert saved(merged, tmp_path) == saved(fold(paths), tmp_path)


def test_workers_that_always_die_are_told_with_the_shards(tmp_path: Path) -> None:
    """Giving up names what was counted."""
    paths = write_shards(tmp_path, 3, tokens=20)
    with pytest.raises(InputError, match="worker_died") as error:
        profile_shards(paths, lambda: Mortal(1), **SMALL)
    assert error.value.violations[0].pointer == f"{paths[0]} to {paths[2]}"
    with pytest.raises(InputError, match="worker_died"):
        profile_shards(paths, Mortal(1), **SMALL)


def test_few_results_are_on_their_way(tmp_path: Path) -> None:
    """Memory does not grow with the number of shards: at most two tasks per worker are ahead of the merge."""
    paths = write_shards(tmp_path, 200, tokens=2)
    waiting, most, lock = 0, 0, threading.Lock()

    class Counted(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
            nonlocal waiting, most
            with lock:
                waiting += 1
                most = max(most, waiting)
            future = super().submit(fn, *arguments, **options)
            result = future.result

            def taken(timeout: float | None = None) -> Any:
                nonlocal waiting
                with lock:
                    waiting -= 1
                return result(timeout)

            future.result = taken  # type: ignore[method-assign]
            return future

    with Counted(2) as pool:
        profile_shards(paths, pool, **SMALL)
    assert most <= 4


def test_errors_name_the_shard(tmp_path: Path) -> None:
    """A shard that breaks a rule is named in full, with the place in it; so are two that do not go together."""
    paths = write_shards(tmp_path, 4)
    np.savez(paths[2], topk_ids=np.full((2, LAYERS, 2), 7, np.int8), num_experts=np.array(EXPERTS))
    with pytest.raises(InputError) as error:
        profile_shards(paths, **SMALL)
    assert error.value.violations[0].pointer.startswith(f"{paths[2]}#row 0, layer 0")
    np.savez(paths[2], topk_ids=np.zeros((2, 1, 1), np.int8), num_experts=np.array(EXPERTS))
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError) as error:
        profile_shards(paths, pool)
    assert {item.code for item in error.value.violations} == {"profiles_differ"}
    assert error.value.violations[0].pointer == f"{paths[0]} to {paths[1]} and {paths[2]}: /top_k"
    paths[1].unlink()
    with pytest.raises(InputError, match="file_missing") as error:
        profile_shards(paths)
    assert error.value.violations[0].pointer == str(paths[1])


def test_patterns_are_sorted_and_must_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns stand for files in the order of their names; one that stands for none is an error, as is no source."""
    paths = write_shards(tmp_path, 3, tokens=2)
    odd = tmp_path / "odd[1].npz"
    paths[0].rename(odd)
    monkeypatch.chdir(tmp_path)
    assert list_shards(["part-*.npz", odd.name]) == [str(odd), *map(str, paths[1:])]
    with pytest.raises(InputError) as error:
        list_shards(["no-*.npz", "neither-*.npz"])
    assert [item.pointer for item in error.value.violations] == ["no-*.npz", "neither-*.npz"]
    with pytest.raises(InputError, match="no_shards"):
        profile_shards([])


def test_progress_counts_the_shards(tmp_path: Path) -> None:
    """Progress ends with all of them."""
    paths = write_shards(tmp_path, 11, tokens=2)
    here: list[tuple[int, int]] = []
    there: list[tuple[int, int]] = []
    profile_shards(paths, progress=lambda *news: here.append(news), **SMALL)
    with ThreadPoolExecutor(1) as pool:
        profile_shards(paths, pool, progress=lambda *news: there.append(news), **SMALL)
    assert here == [(number, 11) for number in range(1, 12)]
    assert there == [(8, 11), (11, 11)]


@pytest.fixture
def bucket(tmp_path: Path) -> Any:
    """Return an object store in memory with three shards, `memory://traces/part-*.npz`."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec, which reads URLs, is not installed")
    store = fsspec.filesystem("memory")
    for path in write_shards(tmp_path, 3):
        store.pipe_file(f"/traces/{path.name}", path.read_bytes())
    yield store
    store.rm("/traces", recursive=True)


def test_urls_are_counted_like_files(bucket: Any, tmp_path: Path) -> None:
    """Objects behind a pattern give what files of the same names give."""
    merged = profile_shards(["memory://traces/part-*.npz"], **SMALL)
    assert saved(merged, tmp_path) == saved(profile_shards([tmp_path / "part-*.npz"], **SMALL), tmp_path)
    assert [item.source for item in merged.sources if item.source.startswith("part-")] != []


def test_a_store_that_stutters_is_asked_again(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading goes on after a failure; the last failure is told with the address."""
    monkeypatch.setattr(traces.profile.locations, "PAUSE_S", 0.0)
    failures = [OSError("reset by peer")] * 3
    opened = type(bucket).open

    def stuttering(self: Any, *arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return opened(self, *arguments, **options)

    monkeypatch.setattr(type(bucket), "open", stuttering)
    address = "memory://traces/part-001.npz"
    assert profile_shards([address], **SMALL).tokens == 90
    failures += [OSError("reset by peer")] * 4
    with pytest.raises(InputError, match="reset by peer") as error:
        profile_shards([address], **SMALL)
    assert error.value.violations[0].pointer == address


def test_urls_that_cannot_be_read_are_refused(bucket: Any) -> None:
    """An unknown scheme, a missing object and a pattern without a match each name the address."""
    for address, code in (
        ("gopher://host/x.npz", "no_such_store"),
        ("memory://traces/none.npz", "file_missing"),
        ("memory://traces/none-*.npz", "no_shards"),
    ):
        with pytest.raises(InputError) as error:
            profile_shards([address])
        assert [(item.code, item.pointer) for item in error.value.violations] == [(code, address)]


def test_signatures_of_addresses_are_not_kept(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query of an http address is no pattern, and the profile keeps the file's name only."""
    address = "https://host/traces/part-000.npz?signature=secret"
    monkeypatch.setattr(
        traces.profile.locations, "_store", lambda url: (bucket, "/traces/part-000.npz") if url == address else None
    )
    merged = profile_shards([address], **SMALL)
    assert [item.source for item in merged.sources] == ["part-000.npz"]


def test_tokens_are_told_as_they_are_read(tmp_path: Path) -> None:
    """Whoever waits hears how many tokens were read, and they add up to all of them."""
    told: list[int] = []
    found = profile_shards(write_shards(tmp_path, 3), read=told.append, **SMALL)
    assert len(told) >= 3
    assert sum(told) == found.tokens


def test_ids_beyond_the_experts_in_some_shards_only(tmp_path: Path) -> None:
    """A shard without any is read as it is; if no shard has one, the option has no effect, and is refused."""
    arrays = arrays_of(1)
    np.savez(tmp_path / "a.npz", num_experts=EXPERTS, **arrays)
    both = np.insert(arrays["topk_ids"], 2, 99, axis=2)
    np.savez(tmp_path / "c.npz", num_experts=EXPERTS, **arrays | {"topk_ids": both})
    np.savez(tmp_path / "d.npz", num_experts=EXPERTS, **arrays_of(2))
    options: dict[str, Any] = {"ids_beyond_experts": "none", "top_k": 2}
    merged = profile_shards([tmp_path / "c.npz", tmp_path / "d.npz"], num_experts=EXPERTS, **options)
    alone = [Profile.of(load(tmp_path / name)) for name in ("a.npz", "d.npz")]
    assert np.array_equal(merged.load, alone[0].load + alone[1].load)
    with pytest.raises(InputError) as error:
        profile_shards([tmp_path / "a.npz", tmp_path / "d.npz"], num_experts=EXPERTS, **options)
    assert error.value.violations[0].code == "option_unused"
