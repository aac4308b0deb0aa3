"""Files as `torch.save` writes them, made without torch: the zip archive and its pickle, byte by byte."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pickle", "View", "torch_bytes", "zip_bytes"]

STORAGE_NAMES = {
    "uint8": "ByteStorage",
    "int8": "CharStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A tensor that sees part of `base` (one axis), as slices and transposes do."""

    base: npt.NDArray[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    storage_name: str | None = None
    device: str = "cpu"


class Pickle:
    """Writes the instructions of protocol 2 that torch's files consist of."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.storages: list[npt.NDArray[Any]] = []

    def write(self, value: Any) -> None:
        """Append the instructions that make `value`."""
        out = self.out
        if value is None or isinstance(value, bool):
            out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int | np.integer):
            number = int(value)
            if -(1 << 31) <= number < 1 << 31:
                out += b"J" + struct.pack("<i", number)
            else:
                out += b"\x8a\x08" + struct.pack("<q", number)
        elif isinstance(value, float):
            out += b"G" + struct.pack(">d", value)
        elif isinstance(value, str):
            out += b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        elif isinstance(value, list | tuple | dict):
            self._container(value)
        elif isinstance(value, np.ndarray):
            steps = tuple(step // value.itemsize for step in np.ascontiguousarray(value).strides)
            self._tensor(View(base=np.ascontiguousarray(value).ravel(), shape=value.shape, strides=steps))
        elif isinstance(value, View):
            self._tensor(value)
        else:
            raise TypeError(type(value))

    def name(self, module: str, name: str) -> None:
        """Append the instruction that looks a name up."""
        self.out += f"c{module}\n{name}\n".encode()

    def _container(self, value: Any) -> None:
        begin, end = (
            (b"}(", b"u") if isinstance(value, dict) else (b"](", b"e") if isinstance(value, list) else (b"(", b"t")
        )
        self.out += begin
        for item in value.items() if isinstance(value, dict) else value:
            for part in item if isinstance(value, dict) else (item,):
                self.write(part)
        self.out += end

    def _tensor(self, view: View) -> None:
        number = next((n for n, known in enumerate(self.storages) if known is view.base), len(self.storages))
        if number == len(self.storages):
            self.storages.append(view.base)
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.out += b"(("
        self.write("storage")
        self.name("torch", view.storage_name or STORAGE_NAMES[view.base.dtype.name])
        for part in (str(number), view.device, view.base.size):
            self.write(part)
        self.out += b"tQ"
        for item in (view.offset, view.shape, view.strides, False):
            self.write(item)
        self.name("collections", "OrderedDict")
        self.out += b")RtR"


def torch_bytes(value: Any, *, change: Callable[[dict[str, bytes]], None] | None = None) -> bytes:
    """Return the file of `value`: plain values, arrays and `View`; `change` may edit the members first."""
    pickle = Pickle()
    pickle.write(value)
    members = {
        "archive/data.pkl": bytes(pickle.out) + b".",
        "archive/byteorder": b"little",
        **{f"archive/data/{number}": base.tobytes() for number, base in enumerate(pickle.storages)},
        "archive/version": b"3\n",
    }
    if change is not None:
        change(members)
    return zip_bytes(members)


def zip_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Pack members in the order that they are in."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
