"""Arrays as the bytes of an ``.npz`` that depend on nothing but the arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.exports.shared.document import Document
from traces import Violations

__all__ = ["npz_bytes", "whole_array"]


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return an ``.npz`` file's content, compressed, with a fixed date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, np.asarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def whole_array(document: Document, name: str, axes: int, found: Violations) -> npt.NDArray[np.int64]:
    """Return an array of whole numbers with `axes` axes, none of them empty; others are violations."""
    array = document.array(name)
    if array.ndim != axes or array.dtype.kind not in "iu" or 0 in array.shape:
        detail = f"Expected whole numbers with {axes} axes, got shape {array.shape}, dtype {array.dtype}."
        found.add("array_type", f"{document.name}#/{name}", detail, "Check the file's format.")
        return np.zeros((1,) * axes, dtype=np.int64)
    return array.astype(np.int64)
