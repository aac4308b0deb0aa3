"""Tensors of a `torch.save` file before their numbers are read: type, shape, and where in which storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.support.errors import InputError

__all__ = ["DTYPES", "STORAGES", "Storage", "Tensor", "make_tensor", "values_of"]

MAX_AXES = 16
MAX_ELEMENTS = 1 << 48

# By torch's name. bfloat16 has no counterpart: its 16 bits are the upper half of a float32.
DTYPES: dict[str, str] = {
    "uint8": "u1",
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "?",
    "float16": "f2",
    "bfloat16": "bfloat16",
    "float32": "f4",
    "float64": "f8",
}
STORAGES = {
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage:
    """Numbers in a row, stored once for all tensors that share them; which device they were on does not matter.

    Attributes
    ----------
    key : str
        Name of the member in the archive, digits.
    dtype : str
        Key of `DTYPES`.
    count : int
        Numbers.
    place : str
    """

    key: str
    dtype: str
    count: int
    place: str

    @property
    def num_bytes(self) -> int:
        """Bytes in the archive."""
        return self.count * width_of(self.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """A view of a storage; offset and strides count numbers, and stay within it.

    Attributes
    ----------
    storage : Storage
    dtype : str
        Key of `DTYPES`.
    offset : int
    shape, strides : tuple of int
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def kind(self) -> str:
        """Kind of the numbers, as NumPy has it: ``i`` and ``u`` integers, ``f`` floats, ``b`` booleans."""
        return "f" if self.dtype == "bfloat16" else np.dtype(DTYPES[self.dtype]).kind

    @property
    def size(self) -> int:
        """Numbers of the tensor."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether rows follow each other in the storage."""
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


def width_of(dtype: str) -> int:
    """Return the bytes of a number."""
    return 2 if dtype == "bfloat16" else np.dtype(DTYPES[dtype]).itemsize


def make_tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None = None) -> Tensor:
    """Check the arguments that a file gives for a tensor.

    Raises
    ------
    InputError
        If they are no counts, or lead out of the storage.
    ValueError
        If there is no storage.
    """
    if type(storage) is not Storage:
        raise ValueError("a tensor without a storage")
    where = f"{storage.place}/data/{storage.key}"

    def bad(what: str) -> InputError:
        return InputError.of("bad_tensor", where, f"The tensor is refused: {what}.", "Save it again with torch.save.")

    if type(shape) is not tuple or type(strides) is not tuple or len(shape) != len(strides) or len(shape) > MAX_AXES:
        raise bad("its shape and strides don't go together")
    if any(type(number) is not int or not 0 <= number <= MAX_ELEMENTS for number in (offset, *shape, *strides)):
        raise bad("offset, shape and strides must be counts")
    dtype = dtype or storage.dtype
    count = storage.count
    if dtype != storage.dtype:
        count = storage.num_bytes // width_of(dtype)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= count:
        raise bad(f"it reaches beyond the {count} numbers of its storage")
    return Tensor(storage=storage, dtype=dtype, offset=offset, shape=shape, strides=strides)


def values_of(data: bytes, dtype: str, byte_order: Literal["<", ">"]) -> npt.NDArray[Any]:
    """Return the numbers in `data` in native types; bfloat16 becomes float32, exactly."""
    if dtype == "bfloat16":
        halves = np.frombuffer(data, np.dtype("u2").newbyteorder(byte_order))
        widened: npt.NDArray[Any] = (halves.astype(np.uint32) << 16).view(np.float32)
        return widened
    stored = np.dtype(DTYPES[dtype])
    if dtype == "bool":
        truths: npt.NDArray[Any] = np.frombuffer(data, np.uint8) != 0
        return truths
    values: npt.NDArray[Any] = np.frombuffer(data, stored.newbyteorder(byte_order)).astype(stored, copy=True)
    return values
