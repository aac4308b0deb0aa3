"""What `load` is given: one file, a folder, or an archive of either kind, which is unpacked first."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from traces.decoding.bundles import MAX_FILES, Bundle
from traces.decoding.files import TraceFile
from traces.decoding.unpacking import UnpackLimits, compression, is_empty_tar, is_tar, unpack_stream, unpack_tar
from traces.support.errors import InputError, Violations

__all__ = ["open_path"]


def open_path(path: str | Path, limits: UnpackLimits) -> TraceFile | Bundle:
    """Look at a path: a file as it is, or what an archive or a folder holds.

    A compressed file is unpacked, once; a tar archive, compressed or not, and a folder are bundles. Archives within
    archives are refused. A folder may hold compressed files; its subfolders and hidden files are left out with a note.

    Raises
    ------
    InputError
    """
    target = Path(path)
    if str(target) != "." and os.path.isdir(target):  # noqa: PTH112  False, not an error, for names that can't be
        return _folder(target, limits)
    file = TraceFile.of(target)
    unpacked = _unpacked(file, limits)
    archive = is_tar(unpacked) or is_empty_tar(unpacked)
    return unpack_tar(unpacked, limits, file.name) if archive else unpacked


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
    name = folder.resolve().name
    found = Violations()
    files: list[TraceFile] = []
    for entry in chosen:
        try:
            file = _unpacked(TraceFile.of(entry), limits)
            if is_tar(file):
                raise InputError.of("nested_archive", file.name, "An archive among the files.", "Unpack it first.")
            files.append(replace(file, shown=f"{name}/{entry.name}"))
        except InputError as error:
            found.extend(error)
    found.raise_if_any()
    notes = (f"{len(left_out)} subfolders and hidden files were left out: {left_out[0][:60]!r}.",) if left_out else ()
    return Bundle(name=name, files=tuple(files), members=tuple(entry.name for entry in chosen), notes=notes)
