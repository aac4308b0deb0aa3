"""One profile of many files: each is counted by itself, here or wherever an executor runs it, and the results merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traces.batch import Batch
from traces.counts import LoadCounts
from traces.formats import load
from traces.formats.shared.beyond import READ_AS_NONE, UNUSED
from traces.profile.locations import as_file, list_shards, naming
from traces.profile.profile import Profile
from traces.profile.saved import is_profile
from traces.support.errors import InputError, Violations
from traces.support.parallel import map_executor
from traces.trace import Trace

__all__ = ["profile_shards"]

BEYOND = "/ids_beyond_experts"
RUN = 8  # neighbours that one task counts one after the other; part of the shape of the tree, so the same everywhere
Make = Callable[[], Executor]


@dataclass(frozen=True, kw_only=True)
class _Counting:
    """How shards are counted; pickles."""

    workers: int | None
    distances: tuple[int, ...]
    window_tokens: int
    sample_tokens: int
    load_options: tuple[tuple[str, Any], ...]
    several: bool  # some of several shards may have no ids beyond the experts

    def shard(self, shard: str, read: Callable[[int], None] | None = None) -> Profile:
        """Count one shard; `read` is told how many tokens more were read."""
        with naming(shard), as_file(shard) as path:
            options = dict(self.load_options)
            if is_profile(path):
                return self._saved(path, options)
            try:
                return self._of(load(path, **options), read)
            except InputError as error:
                if not self.several or {one.pointer for one in error.violations} != {BEYOND}:
                    raise
                return self._of(load(path, **options | {"ids_beyond_experts": None}), read)

    def _of(self, source: Trace | LoadCounts, read: Callable[[int], None] | None) -> Profile:
        if read is not None and isinstance(source, Trace):
            source = _watched(source, read)
        return Profile.of(
            source,
            workers=self.workers,
            distances=self.distances,
            window_tokens=self.window_tokens,
            sample_tokens=self.sample_tokens,
        )

    def run(self, shards: tuple[str, ...]) -> Counted:
        """Count neighbours, and merge them from left to right."""
        merged = Counted(first=shards[0], last=shards[0], profile=self.shard(shards[0]))
        for shard in shards[1:]:
            merged = merge(merged, Counted(first=shard, last=shard, profile=self.shard(shard)))
        return merged

    def _saved(self, path: Path, options: dict[str, Any]) -> Profile:
        if given := sorted(name for name, value in options.items() if value is not None):
            listed = ", ".join(f"`{name}`" for name in given)
            detail = f"A saved profile takes no {listed}: it is counted already."
            raise InputError.of("profile_options", f"/{given[0]}", detail, "Leave that out.")
        profile = Profile.load_file(path)
        if lacking := sorted(set(self.distances) - {1, *profile.distant}):
            detail = f"{path.name} is a saved profile without pairs of layers that are {lacking} apart."
            remedy = "Leave `distances` out, or name the trace that it was made from."
            raise InputError.of("profile_options", "/distances", detail, remedy)
        return profile


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The profile of a run of shards, with the names of its ends."""

    first: str
    last: str
    profile: Profile


def merge(left: Counted, right: Counted) -> Counted:
    """Merge neighbours; InputError, with both names, if their profiles don't go together."""
    try:
        profile = left.profile + right.profile
    except InputError as error:
        found = Violations()
        found.extend(error, f"{_range(left.first, left.last)} and {_range(right.first, right.last)}: ")
        raise found.error() from None
    return Counted(first=left.first, last=right.last, profile=profile)


def profile_shards(
    sources: Sequence[str | Path],
    executor: Executor | Make | None = None,
    *,
    workers: int | None = None,
    distances: tuple[int, ...] = (1,),
    window_tokens: int = 512,
    sample_tokens: int = 32_768,
    progress: Callable[[int, int], None] | None = None,
    read: Callable[[int], None] | None = None,
    **load_options: Any,
) -> Profile:
    """Count many files of one model and merge their profiles, to the same bits whatever runs it.

    Neighbours merge in a tree whose shape depends on the number of shards alone. For traces the shape does not matter
    either: merging is associative. Matrices, loads and tokens are those of the shards put one after the other; windows
    and sampled tokens keep to their own shard, whose rows count from 0.

    Parameters
    ----------
    sources : sequence of path or str
        See `list_shards`.
    executor : Executor or callable, optional
        Anything of ``concurrent.futures``, such as a pool of processes, or what makes one: then it is made anew when a
        worker has died, and shut down in the end. One with a method ``reduce``, such as
        `api.jobs.cluster.ClusterExecutor`, merges where the workers are. Workers read the files themselves. By default,
        this process counts one shard at a time, with threads.
    workers : int, optional
        Threads that count a shard; all available cores by default, or one if there is an executor.
    distances, window_tokens, sample_tokens
        See `Profile.of`. Saved profiles keep their own windows and sample.
    progress : callable, optional
        Called with the number of shards that are counted and that there are.
    read : callable, optional
        Called with the number of tokens whenever some more were read, by a thread that reads; not with an executor.
    **load_options
        See `traces.load`: format, num_experts, layer_ids.

    Returns
    -------
    Profile

    Raises
    ------
    InputError
        If a shard breaks a rule, shards don't go together, nothing is found, or workers die again and again; it names
        the shards.
    """
    shards = list_shards(sources)
    counting = _Counting(
        workers=workers if workers is not None or executor is None else 1,
        distances=tuple(distances),
        window_tokens=window_tokens,
        sample_tokens=sample_tokens,
        load_options=tuple(sorted(load_options.items())),
        several=len(shards) > 1,
    )
    profile = _counted(shards, counting, executor, progress or _silent, read)
    taken = any(READ_AS_NONE in note for source in profile.sources for note in source.notes)
    if load_options.get("ids_beyond_experts") == "none" and not taken:
        detail = "No shard has an id beyond the experts."
        raise InputError.of(UNUSED, BEYOND, detail, "Leave it out.")
    return profile


def _counted(
    shards: list[str],
    counting: _Counting,
    executor: Executor | Make | None,
    told: Callable[[int, int], None],
    read: Callable[[int], None] | None,
) -> Profile:
    if executor is None:
        return _tree(_here(shards, counting, told, read)).profile
    runs = [tuple(shards[start : start + RUN]) for start in range(0, len(shards), RUN)]
    if isinstance(executor, Executor):
        if (reduce := getattr(executor, "reduce", None)) is not None:
            return _reduced(reduce, runs, counting, told)
        return _tree(_elsewhere(executor, runs, counting, told)).profile
    made = [executor()]
    if (reduce := getattr(made[0], "reduce", None)) is not None:
        try:
            return _reduced(reduce, runs, counting, told)
        finally:
            made[0].shutdown(wait=False, cancel_futures=True)
    return _tree(_elsewhere(lambda: made.pop() if made else executor(), runs, counting, told)).profile


def _silent(counted: int, total: int) -> None:
    """Tell nobody."""


def _watched(trace: Trace, tell: Callable[[int], None]) -> Trace:
    """Return the trace; whoever reads it tells how far it is."""
    inner = trace.read

    def read(max_tokens: int) -> Iterator[Batch]:
        for batch in inner(max_tokens):
            tell(len(batch))
            yield batch

    return replace(trace, read=read)


def _here(
    shards: list[str],
    counting: _Counting,
    told: Callable[[int, int], None],
    read: Callable[[int], None] | None,
) -> Iterator[Counted]:
    for start in range(0, len(shards), RUN):
        part = shards[start : start + RUN]
        merged: Counted | None = None
        for number, shard in enumerate(part, start + 1):
            counted = Counted(first=shard, last=shard, profile=counting.shard(shard, read))
            told(number, len(shards))
            merged = counted if merged is None else merge(merged, counted)
        assert merged is not None
        yield merged


def _elsewhere(
    executor: Executor | Make, runs: list[tuple[str, ...]], counting: _Counting, told: Callable[[int, int], None]
) -> Iterator[Counted]:
    total, counted = sum(map(len, runs)), 0
    for run, result in zip(runs, map_executor(executor, counting.run, runs, _lost), strict=True):
        counted += len(run)
        told(counted, total)
        yield result


def _reduced(
    reduce: Callable[..., Counted],
    runs: list[tuple[str, ...]],
    counting: _Counting,
    told: Callable[[int, int], None],
) -> Profile:
    total, tasks = sum(map(len, runs)), 0

    def done() -> None:
        nonlocal tasks
        tasks += 1
        told(min(tasks * RUN, total), total)

    try:
        return reduce(counting.run, merge, runs, done).profile
    except BrokenExecutor as error:
        raise _lost((runs[0][0], runs[-1][-1]), str(error)) from error


def _tree(counted: Iterator[Counted]) -> Counted:
    """Merge neighbours, pairs of pairs and so on, with one pending profile per level of the tree."""
    levels: list[tuple[int, Counted]] = []
    for item in counted:
        height, merged = 0, item
        while levels and levels[-1][0] == height:
            merged = merge(levels.pop()[1], merged)
            height += 1
        levels.append((height, merged))
    result = levels.pop()[1]
    while levels:
        result = merge(levels.pop()[1], result)
    return result


def _lost(run: Sequence[str], reason: str = "") -> InputError:
    detail = reason.strip() or "The workers that counted it died, again and again, out of memory most likely."
    remedy = "Try again; give workers more memory if they run out of it."
    return InputError.of("worker_died", _range(run[0], run[-1]), detail, remedy)


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
