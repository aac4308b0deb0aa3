"""Files of `torch.save`, read without torch and without running anything that they hold.

Such a file is a zip archive with a pickle, ``NAME/data.pkl``, and a member ``NAME/data/KEY`` of raw numbers for every
storage. The pickle is read by `pickles`, which knows only what tensors need. The layout from before PyTorch 1.6 is a
bare pickle, and is refused.

References
----------
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from traces.decoding.archive import check_zip, is_torch_archive
from traces.decoding.files import TraceFile, guarded
from traces.decoding.pickles import MAX_PICKLE_BYTES, read_pickle
from traces.decoding.torch_globals import KNOWN, storage_of
from traces.decoding.torch_numbers import TorchNumbers
from traces.decoding.torch_tensors import Storage
from traces.support.errors import InputError

__all__ = ["TorchFile", "is_torch", "open_torch", "torch_keys"]

MOST_SEEN = 4096  # files whose keys are kept: sniffing asks for them again and again
_seen: dict[tuple[str, int, int], frozenset[str]] = {}


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """What was saved, with `Tensor` in place of tensors; their numbers are read later, with `numbers`.

    Attributes
    ----------
    file : TraceFile
    value : object
        See `read_pickle` for what it may be, and how to look at it.
    """

    file: TraceFile
    value: Any

    @contextmanager
    def numbers(self) -> Iterator[TorchNumbers]:
        """Open the file for a pass over its tensors."""
        with _archive(self.file) as (zipped, root):
            yield TorchNumbers(zipped, root, self.file.name)


def is_torch(file: TraceFile) -> bool:
    """Tell whether a file is one of `torch.save`.

    Raises
    ------
    InputError
        If it is a bare pickle, as older versions wrote.
    """
    if file.head[:1] == b"\x80" and file.head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise InputError.of(
            "bare_pickle",
            file.name,
            "This is a pickle, or a file of torch.save from before PyTorch 1.6, which is never loaded.",
            "If you trust it, save it again: torch.save(torch.load(path, weights_only=True), path).",
        )
    return is_torch_archive(file)


def open_torch(file: TraceFile) -> TorchFile:
    """Read what a file of `torch.save` holds, without the numbers of its tensors.

    Raises
    ------
    InputError
        If it is another layout, damaged, or holds anything but tensors and plain values.
    """
    if not is_torch(file):
        raise InputError.of("not_torch", file.name, "This is no file of torch.save.", "Save it with torch.save.")
    with _archive(file) as (zipped, root):
        sizes = {info.filename: info.file_size for info in zipped.infolist()}
        if sizes[f"{root}/data.pkl"] > MAX_PICKLE_BYTES:
            raise InputError.of("bad_pickle", file.name, "The pickle is too large.", "Record shorter windows.")
        with guarded(f"{file.name}#/data.pkl"):
            data = zipped.read(f"{root}/data.pkl")
    place = f"{file.name}#"

    def persistent(identifier: Any) -> Storage:
        storage = storage_of(identifier, place)
        if sizes.get(f"{root}/data/{storage.key}") != storage.num_bytes:
            raise InputError.of(
                "bad_tensor",
                f"{place}/data/{storage.key}",
                f"The storage should take {storage.num_bytes} bytes, but does not.",
                "Save it again with torch.save.",
            )
        return storage

    return TorchFile(file=file, value=read_pickle(data, f"{place}/data.pkl", KNOWN, persistent))


def torch_keys(file: TraceFile) -> frozenset[str]:
    """Return the keys of the dictionary in a file of `torch.save`, for sniffing; none if it is no such file.

    Those of the first dictionary in a list are joined by a dot: ``records.topk_ids_of_layer``.

    Raises
    ------
    InputError
        If the file is damaged or holds something else than tensors.
    """
    return _keys_of(file) if is_torch(file) else frozenset()


def _keys_of(file: TraceFile) -> frozenset[str]:
    key = (str(file.path), file.size, file.changed_ns)
    if (known := _seen.get(key)) is None:
        value = open_torch(file).value
        keys = {str(name) for name in value} if type(value) is dict else set()
        for name, inner in value.items() if type(value) is dict else ():
            first = inner[0] if type(inner) is list and inner else None
            keys |= {f"{name}.{last}" for last in first} if type(first) is dict else set()
        known = frozenset(keys)
        if len(_seen) >= MOST_SEEN:
            _seen.clear()
        _seen[key] = known
    return known


@contextmanager
def _archive(file: TraceFile) -> Iterator[tuple[zipfile.ZipFile, str]]:
    """Open the archive, and find the folder that everything is in."""
    with file.open() as stream:
        check_zip(stream, file.name)
        with guarded(file.name):
            zipped = zipfile.ZipFile(stream)
        with zipped:
            names = set()
            for info in zipped.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise InputError.of(
                        "zip_method",
                        f"{file.name}#/{info.filename[:60]}",
                        "torch.save compresses nothing; this member is.",
                        "Save it again with torch.save.",
                    )
                if info.filename in names:
                    raise InputError.of(
                        "duplicate_member",
                        f"{file.name}#/{info.filename[:60]}",
                        "The archive holds it twice.",
                        "Save it again with torch.save.",
                    )
                names.add(info.filename)
            roots = {name.partition("/")[0] for name in names}
            root = min(roots, default="")
            if len(roots) != 1 or f"{root}/data.pkl" not in names:
                raise InputError.of(
                    "not_torch", file.name, "The archive is not laid out as by torch.save.", "Save it with torch.save."
                )
            if f"{root}/constants.pkl" in names:
                raise InputError.of(
                    "not_torch", file.name, "This is a TorchScript program, not data.", "Use torch.save."
                )
            yield zipped, root
