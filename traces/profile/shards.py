"""One profile of many files: each is counted by itself, here or wherever an executor runs it, and the results merge."""

from __future__ import annotations

import glob
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traces.batch import Batch
from traces.decoding.archive import check_zip
from traces.formats import load
from traces.profile.profile import Profile
from traces.support.errors import InputError, Violations
from traces.support.parallel import map_executor
from traces.support.temporary import held_folder
from traces.trace import Trace

__all__ = ["is_profile", "list_shards", "profile_shards"]

RUN = 8  # neighbours that one task counts one after the other; part of the shape of the tree, so the same everywhere
TRIES = 4  # to read from an object store, a pause that doubles between them
PAUSE_S = 0.5
CHUNK_BYTES = 1 << 20
Make = Callable[[], Executor]


@dataclass(frozen=True, kw_only=True)
class _Counting:
    """How shards are counted; pickles."""

    workers: int | None
    distances: tuple[int, ...]
    window_tokens: int
    sample_tokens: int
    load_options: tuple[tuple[str, Any], ...]

    def shard(self, shard: str, read: Callable[[int], None] | None = None) -> Profile:
        """Count one shard; `read` is told how many tokens more were read."""
        with _naming(shard), _as_file(shard) as path:
            options = dict(self.load_options)
            if is_profile(path):
                return self._saved(path, options)
            source = load(path, **options)
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
            raise InputError.of(
                "profile_options", f"/{given[0]}", f"A saved profile takes no {', '.join(given)}.", "Leave that out."
            )
        profile = Profile.load_file(path)
        if lacking := sorted(set(self.distances) - {1, *profile.distant}):
            detail = f"{path.name} is a saved profile without pairs of layers that are {lacking} apart."
            remedy = "Leave --distance out, or name the trace that it was made from."
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
        raise InputError(tuple(found.found)) from None
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
    )
    told = progress or _silent
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


def list_shards(sources: Sequence[str | Path]) -> list[str]:
    """Return the files that sources stand for, each kind in the order of names.

    Parameters
    ----------
    sources : sequence of path or str
        Files, patterns (``traces/*.parquet``), and URLs of fsspec with or without a pattern (``s3://bucket/*.npz``).

    Returns
    -------
    list of str
        Sorted; local ones absolute. A file that is named twice is there twice.

    Raises
    ------
    InputError
        If a pattern matches nothing, or a URL can't be listed.
    """
    found = Violations()
    shards: list[str] = []
    for source in map(str, sources):
        try:
            shards += _matches(source)
        except InputError as error:
            found.extend(error)
    if not sources:
        found.add("no_shards", "/sources", "There is nothing to count.", "Name at least one trace.")
    found.raise_if_any()
    return sorted(shards)


def is_profile(path: Path) -> bool:
    """Whether a file looks like a profile that `Profile.save` wrote."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as stream:
            check_zip(stream, path.name)
            with zipfile.ZipFile(stream) as archive:
                return "header.npy" in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False  # whatever it is, the trace readers say what is wrong with it


def _silent(counted: int, total: int) -> None:
    """Tell nobody."""


def _matches(source: str) -> list[str]:
    if "://" in source:
        if not ("*" in source if _is_http(source) else glob.has_magic(source)):  # "?" begins a query there
            return [source]
        store, path = _store(source)
        try:
            names = [store.unstrip_protocol(name) for name in store.glob(path)]
        except OSError as error:
            raise _unreadable(source, error) from error
    elif not glob.has_magic(source) or Path(source).exists():
        return [_absolute(source)]
    else:
        found = glob.glob(source, recursive=True)  # noqa: PTH207  Path.glob takes no absolute patterns
        names = [_absolute(name) for name in found if not Path(name).is_dir()]
    if not names:
        raise InputError.of("no_shards", source, "No file matches.", "Check the pattern, and quote it for the shell.")
    return names


def _absolute(name: str) -> str:
    """Return a path that workers with another working directory understand; an empty one stays, to be refused."""
    return os.path.abspath(name) if name else name  # noqa: PTH100  Path would follow nothing, but drops "./."


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


@contextmanager
def _naming(shard: str) -> Iterator[None]:
    """Let errors begin with the whole name of the shard, not with that of its file alone."""
    try:
        yield
    except InputError as error:
        name = _base(shard)
        found = Violations()
        for item in error.violations:
            if item.pointer in (shard, name) or item.pointer.startswith((f"{name}#", f"{shard}#")):
                place = shard + item.pointer.removeprefix(shard).removeprefix(name)
            else:
                place = f"{shard}: {item.pointer}"
            found.add(item.code, place, item.detail, item.remedy)
        raise InputError(tuple(found.found)) from error


@contextmanager
def _as_file(shard: str) -> Iterator[Path]:
    """Give a shard as a file with its own name: readers open it several times."""
    if "://" not in shard:
        yield Path(shard)
        return
    store, key = _store(shard)
    with held_folder() as folder:
        path = folder / _base(shard)
        for left in reversed(range(TRIES)):
            try:
                with store.open(key, "rb") as source, path.open("wb") as target:
                    while data := source.read(CHUNK_BYTES):
                        target.write(data)
                break
            except FileNotFoundError as error:
                raise InputError.of("file_missing", shard, "There is no such object.", "Check the address.") from error
            except OSError as error:
                if not left:
                    raise _unreadable(shard, error) from error
                time.sleep(PAUSE_S * 2 ** (TRIES - 1 - left))
        yield path


def _store(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        store, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        detail = f"{url.partition('://')[0]}:// can't be read: {error}."
        remedy = 'Install what reads it; for s3://, pip install "moe-placement[s3]".'
        raise InputError.of("no_such_store", url, detail, remedy) from error
    return store, path


def _base(shard: str) -> str:
    """Return the last part of a name, without a query: it may be a signature, and the name is kept in profiles."""
    name = urlsplit(shard).path if _is_http(shard) else shard
    return name.rpartition("/")[2] or "shard"


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _unreadable(url: str, error: OSError) -> InputError:
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return InputError.of("cannot_read", url, f"Can't read it: {reason}.", "Check the address and its rights.")


def _lost(run: Sequence[str], reason: str = "") -> InputError:
    detail = reason.strip() or "The workers that counted it died, again and again, out of memory most likely."
    remedy = "Try again; give workers more memory if they run out of it."
    return InputError.of("worker_died", _range(run[0], run[-1]), detail, remedy)


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
