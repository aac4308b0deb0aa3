"""The arrays of a topology: made read-only, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.topology.links import FASTEST, LARGEST, MAX_GPUS, SLOWEST, SMALLEST
from traces import InputError, Violations

__all__ = ["ARRAYS", "check_arrays", "own_arrays", "vector", "whole"]

MATRICES = ("hop_cost", "bandwidth_gb_s", "latency_us")
WHOLE_NUMBERS = ("node_of_gpu", "slots", "host_of_gpu")
ARRAYS = (*MATRICES, "speed", "memory_gb", *WHOLE_NUMBERS)
RANGES = {"bandwidth_gb_s": (SLOWEST, FASTEST), "latency_us": (0.0, LARGEST)}
POINTERS = {"hop_cost": "/rank_cost_matrix", "speed": "/gpu_speed"}  # fields that a file names differently


def own_arrays(given: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return read-only copies of arrays: the caller's own stay writeable, and changes to them stay there.

    Parameters
    ----------
    given : mapping of str to array or None
        By the names of `Topology`'s fields; None is left out.

    Raises
    ------
    InputError
        If one is no array of numbers.
    """
    found = Violations()
    owned: dict[str, npt.NDArray[Any]] = {}
    for name, value in given.items():
        if value is None:
            continue
        dtype, kinds = (np.int64, "iu") if name in WHOLE_NUMBERS else (np.float64, "iuf")
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            array = np.empty(0, dtype=object)
        if array.dtype.kind not in kinds or (name == "node_of_gpu" and array.ndim != 1):
            what = "whole numbers" if name in WHOLE_NUMBERS else "numbers"
            detail = f"Expected an array of {what}, got shape {array.shape}, dtype {array.dtype}."
            found.add("array_type", POINTERS.get(name, f"/{name}"), detail, "Correct the array.")
            continue
        own = np.array(array, dtype=dtype)
        own.flags.writeable = False
        owned[name] = own
    found.raise_if_any()
    return owned


def check_arrays(arrays: Mapping[str, npt.NDArray[Any] | None], gpus: int, found: Violations) -> None:
    """Record arrays of the machine that have a wrong shape, or values out of their range."""
    for name in MATRICES:
        matrix = arrays[name]
        if matrix is None:
            continue
        pointer = POINTERS.get(name, f"/{name}")
        if matrix.shape != (gpus, gpus):
            found.add("matrix_shape", pointer, f"Shape {matrix.shape} is not ({gpus}, {gpus}).", "One row per GPU.")
        elif not np.isfinite(matrix).all() or (matrix < 0).any():
            detail = "Entries must be finite and not negative."
            found.add("matrix_values", pointer, detail, "Use a large cost for a bad link.")
        elif name == "hop_cost" and ((matrix > LARGEST) | ((matrix > 0) & (matrix < SMALLEST))).any():
            detail = f"Entries other than 0 must be {SMALLEST:g} to {LARGEST:g}."
            found.add("matrix_range", pointer, detail, "Costs are relative: scale all of them.")
        elif name == "hop_cost" and matrix.diagonal().any():
            detail = "A GPU reaches itself at cost 0: the diagonal must be 0."
            found.add("matrix_diagonal", pointer, detail, "Set the diagonal to 0.")
        elif name in RANGES:
            least, most = RANGES[name]
            if ((matrix < least) | (matrix > most))[~np.eye(gpus, dtype=bool)].any():
                detail = f"Entries between GPUs must be {least:g} to {most:g}."
                found.add("matrix_range", pointer, detail, "Give GB/s per direction, and microseconds.")
    for name, least, most in (
        ("speed", SMALLEST, LARGEST),
        ("memory_gb", 0, LARGEST),
        ("slots", 1, 2**31),
        ("host_of_gpu", 0, MAX_GPUS - 1),
    ):
        values = arrays[name]
        if values is None:
            continue
        pointer = POINTERS.get(name, f"/{name}")
        if values.shape != (gpus,):
            found.add("vector_shape", pointer, f"{values.size} entries for {gpus} GPUs.", "Give one per GPU.")
        elif not ((values >= least) & (values <= most)).all():
            found.add("vector_values", pointer, f"Entries must be {least:g} to {most:g}.", "Correct them.")


def whole(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return whole numbers as integers; others are refused, not rounded."""
    if not ((np.abs(numbers) < 2**31) & (numbers == np.floor(numbers))).all():
        raise InputError.of("vector_values", "/slots", "Slots must be whole numbers.", "Correct the list.")
    return numbers.astype(np.int64)


def vector(value: Any, gpus: int, default: float) -> npt.NDArray[np.float64]:
    """Return a scalar or vector as (G,) float64."""
    try:
        array = np.asarray(default if value is None else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError.of("vector_values", "/gpus", "Expected numbers, one per GPU.", "Correct the list.") from error
    return np.full(gpus, array, dtype=np.float64) if array.ndim == 0 else array.astype(np.float64)
