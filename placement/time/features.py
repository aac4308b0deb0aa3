"""What the time of a rank's expert kernels depends on: sums over its experts, in units that carry over between shapes.

Every feature is a sum over the experts of a rank, or a function of the rank's total, so that the time of a rank follows
from a few sums when an expert moves.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from traces.model.shape import WEIGHT_BYTES, ModelShape

__all__ = ["FEATURES", "features", "units"]

Floats = npt.NDArray[np.float64]

TILES: Final = (16, 64, 128)  # rows of a tile: kernels compute whole ones
FIRST: Final = (16, 64, 256, 1024, 4096)  # the first rows of a rank run on a GPU that is not full
SUSTAINED_TFLOP: Final = 5.6  # beyond some milliseconds at full load, clocks drop
FEATURES: Final = (
    "launch",  # 1
    "slots",  # expert slots of the rank, used or not
    "active",  # experts with tokens
    "weights",  # GB: weights of the experts with tokens
    "pairs",  # TFLOP: token-expert pairs
    *(f"tile{rows}" for rows in TILES),  # TFLOP: the same in whole tiles per expert
    "pair_gb",  # GB: one hidden vector per pair
    "row_gb",  # GB: one hidden vector per token that the rank receives
    "copy_gb",  # GB: one per such token and choice, those of other ranks among them, as unsorted kernels keep them
    "pair_count",  # 10^6: pairs whatever their size: sorting a row and adding it up has a price of its own
    *(f"first{rows}" for rows in FIRST),  # TFLOP: the rank's first pairs
    "sustained",  # TFLOP in whole tiles beyond the first SUSTAINED_TFLOP
)


def units(shape: ModelShape, dtype: str, tensor_parallel: int = 1, matrices: int = 3) -> Floats:
    """Return how much of each feature one expert, pair or row of this shape is.

    Parameters
    ----------
    shape : ModelShape
    dtype : str
        How the weights are stored while the kernel runs, a key of `WEIGHT_BYTES`.
    tensor_parallel : int
        GPUs that share every expert's width.
    matrices : int
        Of an expert: gate, up and down, or two without a gate.

    Returns
    -------
    (len(FEATURES),) float64
        Factors for the raw sums of `features`.
    """
    width = shape.intermediate_size / tensor_parallel
    flop = 2 * matrices * shape.expert_input * width / 1e12
    vector = shape.expert_input / 1e9
    weights = matrices * shape.expert_input * width * WEIGHT_BYTES[dtype] / 1e9
    found = {"launch": 1.0, "slots": 1.0, "active": 1.0, "weights": weights, "pair_gb": vector, "row_gb": vector}
    found |= {"copy_gb": vector * shape.top_k, "pair_count": 1e-6}
    return np.array([found.get(name, flop) for name in FEATURES])


def features(
    counts: npt.NDArray[np.integer[Any]], rows: npt.ArrayLike, unit: Floats, *, packed: bool = False
) -> Floats:
    """Return the features of ranks.

    Parameters
    ----------
    counts : (..., C) integers
        Tokens of each expert slot of a rank.
    rows : (...) numbers
        Tokens that the rank receives, each counted once however many of its experts it uses.
    unit : (len(FEATURES),) float64
        Of `units`.
    packed : bool
        Whether the experts' rows lie one behind the other without being filled up to tiles, as the uniform rows of the
        SGLang prefill tables do: tiles are then those of the sum, and so are the experts that are read.

    Returns
    -------
    (..., len(FEATURES)) float64
    """
    counts = np.asarray(counts, np.int64)
    total = counts.sum(-1)
    active = (counts > 0).sum(-1)
    tiles = {size: -(-counts // size) for size in TILES}
    whole = {size: tile.sum(-1) * size for size, tile in tiles.items()}
    if packed:
        whole = {size: -(-total // size) * size for size in TILES}
        active = np.minimum(active, whole[128] // 128)
    raw = {"launch": np.ones_like(total), "slots": np.full_like(total, counts.shape[-1])}
    raw |= {"active": active, "weights": active, "pairs": total, "pair_gb": total}
    raw |= {"pair_count": total}
    raw |= {f"tile{size}": value for size, value in whole.items()}
    raw |= {f"first{size}": np.minimum(total, size) for size in FIRST}
    values = np.stack([np.broadcast_to(raw.get(name, 0), total.shape) for name in FEATURES], axis=-1) * unit
    for name in ("row_gb", "copy_gb"):
        values[..., FEATURES.index(name)] = np.asarray(rows, float) * unit[FEATURES.index(name)]
    values[..., -1] = np.maximum(values[..., FEATURES.index("tile128")] - SUSTAINED_TFLOP, 0)
    return values
