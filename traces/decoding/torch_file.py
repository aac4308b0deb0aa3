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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.decoding.archive import check_zip, is_torch_archive
from traces.decoding.files import TraceFile, guarded
from traces.decoding.pickles import MAX_PICKLE_BYTES, Globals, read_pickle
from traces.decoding.torch_tensors import DTYPES, STORAGES, Storage, Tensor, make_tensor, values_of, width_of
from traces.support.errors import InputError

__all__ = ["TorchFile", "TorchNumbers", "is_torch", "open_torch", "torch_keys"]

WHOLE_BYTES = 128 << 20  # of what is read at once
CHUNK_BYTES = 16 << 20


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


class TorchNumbers:
    """Reads the numbers of tensors from an open file; checksums are verified."""

    def __init__(self, zipped: zipfile.ZipFile, root: str, name: str) -> None:
        self._zipped, self._root, self._name = zipped, root, name
        self._order = _byte_order(zipped, root, name)
        self._held: tuple[str, bytes] = ("", b"")

    def array(self, tensor: Tensor) -> npt.NDArray[Any]:
        """Return a fresh array of a tensor; bfloat16 becomes float32.

        Raises
        ------
        InputError
            If the storage is damaged, or it or the tensor is larger than 128 MiB.
        """
        width, place = width_of(tensor.dtype), self._place(tensor)
        if max(tensor.size * width, tensor.storage.num_bytes) > WHOLE_BYTES:
            raise InputError.of("tensor_too_large", place, f"More than {WHOLE_BYTES} bytes.", "Record shorter windows.")
        if not tensor.size:
            with guarded(place):
                return np.zeros(tensor.shape, values_of(b"", tensor.dtype, self._order).dtype)
        if self._held[0] != tensor.storage.key:
            self._held = ("", b"")
            with guarded(place), self._open(tensor.storage) as stream:
                data = stream.read()
            if len(data) != tensor.storage.num_bytes:
                raise _cut_off(place)
            self._held = (tensor.storage.key, data)
        start = tensor.offset * width
        if tensor.contiguous:
            return values_of(self._held[1][start : start + tensor.size * width], tensor.dtype, self._order).reshape(
                tensor.shape
            )
        reach = 1 + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.strides, strict=True))
        flat = values_of(self._held[1][start : start + reach * width], tensor.dtype, self._order)
        steps = tuple(stride * flat.itemsize for stride in tensor.strides)
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps).copy()

    def rows(self, tensor: Tensor) -> Iterator[npt.NDArray[Any]]:
        """Yield a tensor of any size in parts along its first axis.

        Raises
        ------
        InputError
            If the storage is damaged, or a tensor that is not contiguous is larger than 128 MiB.
        """
        row = width_of(tensor.dtype) * (tensor.size // max((*tensor.shape, 1)[0], 1))
        if not (tensor.shape and tensor.contiguous) or tensor.storage.num_bytes <= CHUNK_BYTES:
            yield self.array(tensor)
            return
        if row > WHOLE_BYTES:
            raise InputError.of(
                "tensor_too_large", self._place(tensor), f"Rows of {row} bytes.", "Check the order of the axes."
            )
        step = max(1, CHUNK_BYTES // max(row, 1))
        with guarded(self._place(tensor)), self._open(tensor.storage) as stream:
            stream.seek(tensor.offset * width_of(tensor.dtype))
            for start in range(0, tensor.shape[0], step):
                count = min(step, tensor.shape[0] - start)
                data = stream.read(count * row)
                if len(data) != count * row:
                    raise _cut_off(self._place(tensor))
                yield values_of(data, tensor.dtype, self._order).reshape(count, *tensor.shape[1:])

    def _place(self, tensor: Tensor) -> str:
        return f"{self._name}#/data/{tensor.storage.key}"

    def _open(self, storage: Storage) -> Any:
        return self._zipped.open(f"{self._root}/data/{storage.key}")


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
        storage = _storage(identifier, place)
        if sizes.get(f"{root}/data/{storage.key}") != storage.num_bytes:
            raise InputError.of(
                "bad_tensor",
                f"{place}/data/{storage.key}",
                f"The storage should take {storage.num_bytes} bytes, but does not.",
                "Save it again with torch.save.",
            )
        return storage

    return TorchFile(file=file, value=read_pickle(data, f"{place}/data.pkl", _KNOWN, persistent))


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


MOST_SEEN = 4096
_seen: dict[tuple[str, int, int], frozenset[str]] = {}


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


def _byte_order(zipped: zipfile.ZipFile, root: str, name: str) -> Literal["<", ">"]:
    with guarded(f"{name}#/byteorder"):
        order = zipped.read(f"{root}/byteorder")[:20] if f"{root}/byteorder" in zipped.namelist() else b"little"
    if order not in (b"little", b"big"):
        raise InputError.of("bad_tensor", f"{name}#/byteorder", "Neither little nor big.", "Save it again.")
    return ">" if order == b"big" else "<"


def _storage(identifier: Any, place: str) -> Storage:
    """Read ``("storage", type, key, device, count)``."""
    if type(identifier) is tuple and len(identifier) == 5:
        tag, kind, key, device, count = identifier
        if (
            type(tag) is str
            and tag == "storage"
            and type(kind) is _StorageType
            and type(key) is str
            and key.isascii()
            and key.isdigit()
            and len(key) < 20
            and type(device) is str
            and type(count) is int
            and 0 <= count < 1 << 48
        ):
            return Storage(key=key, dtype=kind.dtype, count=count, place=place)
    raise InputError.of("bad_tensor", place, "A storage is not described as by torch.save.", "Save it again.")


@dataclass(frozen=True, kw_only=True)
class _StorageType:
    """Stands for a class such as ``torch.IntStorage``."""

    dtype: str


@dataclass(frozen=True, kw_only=True)
class _DType:
    """Stands for a value such as ``torch.int32``."""

    dtype: str


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = False, _hooks: Any = None, _metadata: Any = None
) -> Tensor:
    return make_tensor(storage, offset, shape, strides)


def _rebuild_typed(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, _metadata: Any = None
) -> Tensor:
    if type(dtype) is not _DType:
        raise ValueError("a tensor without a type")
    return make_tensor(storage, offset, shape, strides, dtype.dtype)


def _rebuild_parameter(data: Any, _grad: Any = False, _hooks: Any = None) -> Any:
    return data


def _size(lengths: Any = ()) -> Any:
    return lengths if type(lengths) is tuple else ()


def _device(*_of: Any) -> None:
    return None


def _ordered() -> dict[Any, Any]:
    return {}


def _mode(value: Any) -> Any:
    return value if type(value) is int else None


def _cut_off(place: str) -> InputError:
    return InputError.of("damaged_file", place, "The storage is cut off.", "Copy or record it again.")


_KNOWN: Globals = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): _ordered,
    # An enumeration of the engine, which some versions save as it is.
    ("sglang.srt.model_executor.forward_batch_info", "ForwardMode"): _mode,
    ("torch.storage", "UntypedStorage"): _StorageType(dtype="uint8"),
    **{("torch", name): _StorageType(dtype=dtype) for name, dtype in STORAGES.items()},
    **{("torch", name): _DType(dtype=name) for name in DTYPES},
}
