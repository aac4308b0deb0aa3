"""Which of the `.npy` formats a file is: tokens by layers (ExFlow), layers by experts (EPLB weights), or three axes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from traces.decoding.files import TraceFile
from traces.decoding.npy import MAGIC, open_npy
from traces.support.errors import InputError

__all__ = ["MATRIX_BYTES", "MAX_LAYERS", "npy_kind"]

MAX_LAYERS = 1000  # no model comes near
MAX_IDS = 4096  # nor has as many experts in a layer
MATRIX_BYTES = 256 << 20
LOOK_BYTES = 64 << 10
MOST_CHOSEN = 64  # no router chooses as many
FEW_CHOSEN = 4  # no model has as few experts


def _check_chosen(ids: npt.NDArray[Any], shape: tuple[int, ...], place: str) -> None:
    """Refuse integers of three axes that may be counts of (steps, layers, experts).

    A token chooses an expert once, few of them, and all tokens together choose nearly all that there are.

    Parameters
    ----------
    ids : (rows, layers, K) integers
        The first rows of the array.
    shape : tuple of int
        Of the array.
    place : str

    Raises
    ------
    InputError
    """
    rows = ids.reshape(-1, shape[2])
    if shape[2] <= MOST_CHOSEN:
        filler = np.iinfo(ids.dtype).max if ids.dtype.kind == "u" else -1
        ordered = np.sort(rows, axis=1)
        twice = (np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] > 0) & (ordered[:, 1:] != filler)
        real = rows[(rows != filler) & (rows >= 0)]
        experts = int(real.max(initial=0)) + 1
        if not twice.any() and (shape[2] < FEW_CHOSEN or (experts <= MAX_IDS and rows.size >= 2 * experts)):
            return
    raise InputError.of(
        "ambiguous_format",
        place,
        f"Integers of shape {shape} may be chosen experts (tokens, layers, top-k), or counts (steps, layers, experts).",
        "Say which as `format`: vllm_routed_experts, or eplb, which sums counts over the steps.",
    )


def npy_kind(file: TraceFile) -> Literal["exflow", "eplb", "routed"] | None:
    """Tell the format of a `.npy` file from its type, shape and values; None if it is not a `.npy` file.

    Raises
    ------
    InputError
        If the array has another number of axes, or fits both formats.
    """
    if not file.head.startswith(MAGIC):
        return None
    with file.open() as stream:
        array = open_npy(file, stream)
        header = array.header
        if header.ndim == 3 and header.dtype.kind in "iu" and 0 not in header.shape[1:]:
            count = min(header.shape[0], max(1, LOOK_BYTES // header.row_bytes))
            _check_chosen(array.rows(count), header.shape, file.name)
            return "routed"
        if header.ndim == 3:
            raise InputError.of(
                "npy_axes",
                file.name,
                f"An array of {header.dtype} of shape {header.shape} is no choice of experts.",
                "Counts (steps, layers, experts) are read as `format` eplb, and summed over steps. Router logits go "
                "under a name: numpy.savez(path, router_logits=array, attention_mask=..., top_k=..., model_type=...).",
            )
        if header.ndim != 2 or 0 in header.shape:
            raise InputError.of(
                "npy_axes",
                file.name,
                f"Shape {header.shape} is neither (tokens, layers) nor (layers, experts).",
                "Reshape it.",
            )
        if header.dtype.kind == "f":
            return "eplb"
        if header.shape[0] > MAX_LAYERS:
            return "exflow"
        if header.dtype.kind in "iu" and header.data_bytes <= MATRIX_BYTES:
            values = array.whole()
            if np.min(values) < 0:
                return "exflow"  # a missing entry; counts are not negative
            if np.max(values) >= MAX_IDS:
                return "eplb"
    raise InputError.of(
        "ambiguous_format",
        file.name,
        f"{header.dtype} of shape {header.shape} may be ids of (tokens, layers) or counts of (layers, experts).",
        "Say which as `format`: exflow or eplb.",
    )
