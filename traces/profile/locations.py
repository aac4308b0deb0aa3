"""Where shards are: files, patterns, and addresses of object stores, which are fetched to a file to be read."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traces.support.errors import InputError, Violations
from traces.support.temporary import held_folder

__all__ = ["as_file", "list_shards", "naming"]

TRIES = 4  # to read from an object store, a pause that doubles between them
PAUSE_S = 0.5
CHUNK_BYTES = 1 << 20


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


@contextmanager
def naming(shard: str) -> Iterator[None]:
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
        raise found.error() from error


@contextmanager
def as_file(shard: str) -> Iterator[Path]:
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
