"""Counts as engines load them: SGLang's ``{"logical_count": ...}`` (JSON or torch.save), and LMDeploy's statistics.

Both have a row for every layer of the model. Both engines plan from them on their own: SGLang with
``--init-expert-location FILE``, LMDeploy with ``LMDEPLOY_EPLB_EXPERTS_STATISTIC_FILE`` in the environment.

References
----------
SGLang 0.5.23, ``sglang/srt/eplb/expert_location.py``. LMDeploy 0.18.0 with dlblas 0.0.7, ``dlblas/layers/moe/eplb.py``.
"""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.model.layout import ModelLayout
from traces.support.atomic import atomic_write
from traces.support.errors import InputError, Violations

__all__ = ["CountsFormat", "save_counts"]

CountsFormat = Literal["logical_count", "lmdeploy_statistics"]
SUFFIXES: dict[str, tuple[str, ...]] = {"logical_count": (".json", ".pt"), "lmdeploy_statistics": (".json",)}
MOST = 1 << 53  # beyond it a float64 holds no whole numbers


def save_counts(
    counts: LoadCounts,
    path: str | Path,
    *,
    format: CountsFormat,  # noqa: A002  as in `load`
    model: ModelLayout | None = None,
) -> tuple[str, ...]:
    """Write counts for an engine, whole or not at all.

    Parameters
    ----------
    counts : LoadCounts
        Of a trace: `LoadCounts.of`.
    path : path
        ``.json``, or for SGLang ``.pt``.
    format : {"logical_count", "lmdeploy_statistics"}
        SGLang's, or LMDeploy's.
    model : ModelLayout, optional
        The model's layers. Without it, the counts must be of layers 0, 1, ... without a gap.

    Returns
    -------
    tuple of str
        What was left out or filled in, as sentences.

    Raises
    ------
    InputError
        If format or suffix are unknown, or the model's layers are not known or don't fit.
    """
    target = Path(path)
    found = Violations()
    if format not in get_args(CountsFormat):
        detail = f"{format!r:.40} is not one of {list(get_args(CountsFormat))}."
        raise InputError.of("unknown_format", "/format", detail, "Choose one.")
    if target.suffix.lower() not in SUFFIXES[format]:
        detail = f"{target.name} does not end in {' or '.join(SUFFIXES[format])}, by which the engine reads it."
        found.add("output_suffix", target.name, detail, "Name it so.")
    layers, notes = counts.layer_ids, []
    total = len(layers)
    if model is None and (counts.unrecorded or layers.tolist() != list(range(total))):
        detail = f"The file has a row for every layer of the model, and the counts are of layers {layers.tolist()[:8]}."
        found.add("model_unknown", "/model", detail, "Give `model`, the model's config or layers.")
    if model is not None:
        total = model.num_layers
        if other := sorted(set(layers.tolist()) - set(model.all_moe_layers)):
            detail = f"Layers {other[:8]} are no MoE layers of the model."
            found.add("layer_unknown", "/layer_ids", detail, "Check `model`, and the layer ids.")
        if model.num_experts not in (None, counts.num_experts):
            detail = f"The counts have {counts.num_experts} experts, the model {model.num_experts}."
            found.add("num_experts_differ", "/num_experts", detail, "Check that `model` is the one that was recorded.")
        if missing := sorted(set(model.moe_layers) - set(layers.tolist())):
            notes.append(f"MoE layers {missing[:8]} have no counts; their rows are zero, like those of dense layers.")
        if mtp := sorted(set(layers.tolist()) & set(model.mtp_layers)):
            notes.append(f"Layers {mtp} for multi-token prediction are left out: the file has no rows for them.")
    found.raise_if_any()
    inside = layers < total
    rows = np.zeros((total, counts.num_experts))
    rows[layers[inside]] = counts.load[inside]
    if (rows == np.rint(rows)).all() and rows.max() < MOST:
        rows = rows.astype(np.int64)
    with atomic_write(target) as file:
        if target.suffix.lower() == ".pt":
            _write_torch(file, rows)
        else:
            content = {"logical_count": rows.tolist()} if format == "logical_count" else rows.tolist()
            file.write(json.dumps(content).encode() + b"\n")
    return tuple(notes)


def _write_torch(file: IO[bytes], rows: npt.NDArray[np.int64 | np.float64]) -> None:
    """Write ``{"logical_count": tensor}`` as torch.save does: a zip archive of a pickle and the numbers."""
    kind = "LongStorage" if rows.dtype.kind == "i" else "DoubleStorage"
    (height, width), size = rows.shape, rows.size
    pickled = b"".join(
        (
            b"\x80\x02}",
            _text("logical_count"),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{kind}\n".encode(),
            _text("0"),
            _text("cpu"),
            _number(size),
            b"tQ",
            _number(0),
            b"(" + _number(height) + _number(width) + b"t",
            b"(" + _number(width) + _number(1) + b"t",
            b"\x89ccollections\nOrderedDict\n)RtRs.",
        )
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (
            ("data.pkl", pickled),
            ("byteorder", b"little"),
            ("data/0", rows.astype(rows.dtype.newbyteorder("<")).tobytes()),
            ("version", b"3\n"),
        ):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)  # a fixed date: equal counts, equal files


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)
