"""What `load` is given: one file, a folder, or an archive of either kind, which is unpacked first."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from traces.decoding.bundles import MAX_FILES, Bundle
from traces.decoding.files import TraceFile, guarded
from traces.decoding.unpacking import UnpackLimits, compression, is_empty_tar, is_tar, unpack_stream, unpack_tar
from traces.support.errors import InputError, Violations

__all__ = ["open_path"]


def open_path(path: str | Path | Sequence[str | Path], limits: UnpackLimits) -> TraceFile | Bundle:
    """Look at a path: a file as it is, or what an archive or a folder holds; several paths are a bundle as a folder is.

    A name with ``*``, ``?`` or ``[`` that is no file is a pattern of several.

    A compressed file is unpacked, once; a tar archive, compressed or not, and a folder are bundles. Archives within
    archives are refused. A folder may hold compressed files; its subfolders and hidden files are left out with a note.

    Raises
    ------
    InputError
    """
    if not isinstance(path, str | Path):
        return _listed([Path(item) for item in path], limits)
    target = Path(path)
    if any(mark in str(path) for mark in "*?[") and not os.path.lexists(target):
        return _matching(str(path), limits)
    if str(target) != "." and os.path.isdir(target):  # noqa: PTH112  False, not an error, for names that can't be
        return _folder(target, limits)
    file = TraceFile.of(target)
    unpacked = _unpacked(file, limits)
    archive = is_tar(unpacked) or is_empty_tar(unpacked)
    return unpack_tar(unpacked, limits, file.name) if archive else unpacked


def _matching(pattern: str, limits: UnpackLimits) -> TraceFile | Bundle:
    """Look at the files that a pattern means."""
    with guarded(pattern, re.error):
        found = sorted(glob.glob(pattern))  # noqa: PTH207  the pattern may be absolute
    if not found:
        raise InputError.of("file_missing", pattern, "No file matches the pattern.", "Check the path.")
    return open_path(found[0], limits) if len(found) == 1 else _listed([Path(name) for name in found], limits)


def _listed(paths: list[Path], limits: UnpackLimits) -> TraceFile | Bundle:
    """Look at several files, which are shown by their names, or by their paths where names repeat."""
    if len(paths) == 1:
        return open_path(paths[0], limits)
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names) or not names or len(names) > MAX_FILES:
        detail = f"{len(names)} paths, {len(names) - len(set(names))} of them again."
        raise InputError.of("paths", "/path", detail, f"Name each file once, and at most {MAX_FILES}.")
    folders = {path.parent.resolve().name for path in paths}
    return _bundled(paths, names, folders.pop() if len(folders) == 1 else "several folders", (), limits)


def _unpacked(file: TraceFile, limits: UnpackLimits) -> TraceFile:
    if compression(file) is None:
        return file
    unpacked = unpack_stream(file, limits)
    if compression(unpacked) is not None:
        raise InputError.of("nested_archive", file.name, "It is compressed twice.", "Unpack it once.")
    return unpacked


def _folder(folder: Path, limits: UnpackLimits) -> Bundle:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError.of(
            "cannot_read", str(folder), f"Can't list the folder: {error.strerror}.", "Check its rights."
        ) from error
    left_out = [entry.name for entry in entries if entry.name.startswith(".") or entry.is_dir()]
    chosen = [entry for entry in entries if not (entry.name.startswith(".") or entry.is_dir())]
    if not chosen:
        raise InputError.of("empty_folder", str(folder), "The folder holds no file.", "Check the path.")
    if len(chosen) > MAX_FILES:
        raise InputError.of("too_many_files", str(folder), f"More than {MAX_FILES} files.", "Load parts of it.")
    notes = (f"{len(left_out)} subfolders and hidden files were left out: {left_out[0][:60]!r}.",) if left_out else ()
    return _bundled(chosen, [entry.name for entry in chosen], folder.resolve().name, notes, limits)


def _bundled(paths: list[Path], names: list[str], name: str, notes: tuple[str, ...], limits: UnpackLimits) -> Bundle:
    """Return the bundle of files, each of which may be compressed."""
    found = Violations()
    files: list[TraceFile] = []
    for path, shown in zip(paths, names, strict=True):
        try:
            file = _unpacked(TraceFile.of(path), limits)
            if is_tar(file):
                raise InputError.of("nested_archive", file.name, "An archive among the files.", "Unpack it first.")
            files.append(replace(file, shown=f"{name}/{shown}"))
        except InputError as error:
            found.extend(error)
    found.raise_if_any()
    return Bundle(name=name, files=tuple(files), members=tuple(names), notes=notes)
