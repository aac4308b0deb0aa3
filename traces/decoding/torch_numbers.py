"""The numbers of tensors in a file of `torch.save`, whole or in parts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.decoding.files import guarded
from traces.decoding.torch_tensors import Storage, Tensor, values_of, width_of
from traces.support.errors import InputError

__all__ = ["TorchNumbers"]

WHOLE_BYTES = 128 << 20  # of what is read at once
CHUNK_BYTES = 16 << 20


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


def _byte_order(zipped: zipfile.ZipFile, root: str, name: str) -> Literal["<", ">"]:
    with guarded(f"{name}#/byteorder"):
        order = zipped.read(f"{root}/byteorder")[:20] if f"{root}/byteorder" in zipped.namelist() else b"little"
    if order not in (b"little", b"big"):
        raise InputError.of("bad_tensor", f"{name}#/byteorder", "Neither little nor big.", "Save it again.")
    return ">" if order == b"big" else "<"


def _cut_off(place: str) -> InputError:
    return InputError.of("damaged_file", place, "The storage is cut off.", "Copy or record it again.")
