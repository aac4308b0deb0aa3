"""Which of the `.npy` formats a file is: tokens by layers (ExFlow), layers by experts (EPLB weights), or three axes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from traces.decoding.files import TraceFile
from traces.decoding.npy import MAGIC, open_npy
from traces.support.errors import InputError

__all__ = ["MATRIX_BYTES", "MAX_LAYERS", "npy_kind"]

MAX_LAYERS = 1000  # no model comes near
MAX_IDS = 4096  # nor has as many experts in a layer
MATRIX_BYTES = 256 << 20


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
            return "routed"
        if header.ndim == 3:
            raise InputError.of(
                "npy_axes",
                file.name,
                f"An array of shape {header.shape} has no place for the other columns.",
                "Save it under a name: numpy.savez(path, topk_ids=array, num_experts=...), or for router logits "
                "numpy.savez(path, router_logits=array, attention_mask=..., top_k=..., model_type=...).",
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
