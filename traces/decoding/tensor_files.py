"""Safetensors files of tensors named ``{iteration}_{layer}``, as TensorRT-LLM writes them; sizes are checked first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from traces.decoding.files import TraceFile, guarded
from traces.support.errors import InputError

__all__ = ["TensorFile", "is_safetensors"]

HEADER_BYTES = 32 << 20  # more than a quarter of a million tensors
LIBRARY_BYTES = 100_000_000  # the longest header that the format allows
TENSOR_BYTES = 256 << 20
MAPPED_BYTES = 64 << 20
KEY = re.compile(r"(0|[1-9]\d{0,8})_(0|[1-9]\d{0,5})")
INTEGERS = {"I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64"}


def is_safetensors(file: TraceFile) -> bool:
    """Tell by the first bytes: the length of a JSON header that fits the file, and its brace."""
    return (
        len(file.head) > 8
        and file.head[8:9] == b"{"
        and int.from_bytes(file.head[:8], "little") <= min(file.size - 8, LIBRARY_BYTES)
    )


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A file whose header was looked at.

    Attributes
    ----------
    file : TraceFile
    shapes : dict of (int, int) to tuple of int
        By iteration and layer.
    """

    file: TraceFile
    shapes: dict[tuple[int, int], tuple[int, ...]]

    @classmethod
    def of(cls, file: TraceFile) -> TensorFile:
        """Read the header.

        Raises
        ------
        InputError
            If the file is damaged, has too many tensors, or one that has another kind of name, is not of integers or is
            too large.
        """
        length = int.from_bytes(file.head[:8], "little")
        if not is_safetensors(file):
            raise InputError.of(
                "damaged_file", file.name, f"A header of {length} bytes can't be.", "Copy or record it again."
            )
        if length > HEADER_BYTES:
            detail = f"The header has {length} bytes, more than {HEADER_BYTES}: it names every tensor."
            raise InputError.of("too_large", file.name, detail, "Record fewer iterations to a file.")
        shapes: dict[tuple[int, int], tuple[int, ...]] = {}
        with guarded(file.name, SafetensorError), _opened(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118  not a dictionary
                place, parts = f"{file.name}#/{key[:40]}", KEY.fullmatch(key)
                if parts is None:
                    raise InputError.of("tensor_name", place, "Expected {iteration}_{layer}.", "Record it again.")
                part = tensors.get_slice(key)
                shape = tuple(part.get_shape())
                if part.get_dtype() not in INTEGERS:
                    raise InputError.of("tensor_dtype", place, f"Type {part.get_dtype()}.", "Save integers.")
                if 8 * int(np.prod(shape, dtype=np.float64)) > TENSOR_BYTES:
                    raise InputError.of("too_large", place, f"Shape {shape}.", "Record fewer tokens at once.")
                shapes[int(parts[1]), int(parts[2])] = shape
        return cls(file=file, shapes=shapes)

    @property
    def iterations(self) -> dict[int, list[int]]:
        """Layers of each iteration, both rising."""
        layers: dict[int, list[int]] = {}
        for iteration, layer in sorted(self.shapes):
            layers.setdefault(iteration, []).append(layer)
        return layers

    def read(self, iterations: dict[int, list[int]]) -> Iterator[tuple[int, dict[int, npt.NDArray[Any]]]]:
        """Yield the tensors of each iteration by layer."""
        for iteration, layers, tensors in self._in_turn(iterations):
            with guarded(self.file.name, SafetensorError):
                values = {layer: tensors.get_tensor(f"{iteration}_{layer}") for layer in layers}
            yield iteration, values

    def stacked(self, iterations: dict[int, list[int]]) -> Iterator[npt.NDArray[Any]]:
        """Yield the tensors (T, K) of each iteration as (T, L, K), where they have one shape.

        Each layer is copied as it is read, so that its memory serves the next one.
        """
        for iteration, layers, tensors in self._in_turn(iterations):
            with guarded(self.file.name, SafetensorError):
                first = tensors.get_tensor(f"{iteration}_{layers[0]}")
                ids = np.empty((len(first), len(layers), *first.shape[1:]), first.dtype)
                ids[:, 0] = first
                for place, layer in enumerate(layers[1:], start=1):
                    value = tensors.get_tensor(f"{iteration}_{layer}")
                    if value.dtype != ids.dtype:
                        ids = ids.astype(np.result_type(ids, value))
                    ids[:, place] = value
            yield ids

    def _in_turn(self, iterations: dict[int, list[int]]) -> Iterator[tuple[int, list[int], Any]]:
        """Yield each iteration, its layers and the open file, opened again every 64 MiB to unmap what was read."""
        left = list(iterations.items())[::-1]
        while left:
            size = 0
            with guarded(self.file.name, SafetensorError):
                opened = _opened(self.file)
            with opened as tensors:
                while left and size < MAPPED_BYTES:
                    iteration, layers = left.pop()
                    size += sum(8 * math.prod(self.shapes[iteration, layer]) for layer in layers)
                    yield iteration, layers, tensors


def _opened(file: TraceFile) -> Any:
    file.check_unchanged()
    return safe_open(str(file.path), framework="numpy")
