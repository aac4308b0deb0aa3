"""The time that a rank's experts take: fitted to measured kernels, or a roofline where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from placement.time.features import FEATURES, features, units
from placement.time.gpus import Gpu
from traces.model.shape import WEIGHT_BYTES, ModelShape

__all__ = ["ExpertKernel", "FittedError", "config_of", "joined", "roofline"]

Floats = npt.NDArray[np.float64]
SHARPNESS = 12.0  # of the bend between what the host takes to launch and what the GPU takes to run
# Over 46 measured kernels of A100, L40S, H100, H200 and B200, 150 rows each; shares fitted on the other GPUs.
ROOFLINE_ERROR = (0.27, 0.73)


@dataclass(frozen=True, kw_only=True)
class FittedError:
    """How far predictions were from what was held out.

    Attributes
    ----------
    median, p90 : float
        Of the relative error, as fractions.
    left_out : str
        What each fit never saw.
    rows : int
        Measurements judged; 0 where nothing was.
    """

    median: float
    p90: float
    left_out: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class ExpertKernel:
    """Time of one rank's expert kernels as a function of the tokens of each of its experts.

    ``T = soft maximum of (floor, sum of coefficient x feature)``, see `placement.time.features`. A roofline has a
    second sum, of what goes on at the same time: the soft maximum is then of all three.

    Attributes
    ----------
    gpu : str
    name : str
        Framework and kernel, such as ``sglang_deepep``.
    phase : str
        ``prefill``, ``decode``, or ``any``.
    dtype : str
        How weights are stored, a key of `WEIGHT_BYTES`.
    floor_ms : float
        What the host takes to launch the kernels, whatever they do.
    ms_per : mapping of str to float
        Milliseconds per unit of each feature; what is not named is 0.
    beside_ms_per : mapping of str to float
        The same for the second sum; empty in kernels that were measured.
    tactics : mapping of str to float
        Factors for shapes and numbers of slots, under `config_of`, that an autotuner served better or worse.
    error : FittedError
    source : str
        What it was fitted to.
    measured : bool
        False for a roofline.
    """

    gpu: str
    name: str
    phase: str
    dtype: str
    floor_ms: float = 0.0
    ms_per: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    beside_ms_per: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    tactics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    error: FittedError
    source: str
    measured: bool = True

    def ms_of(self, values: Floats) -> Floats:
        """Return the time of ranks with given features, (...) milliseconds.

        Parameters
        ----------
        values : (..., len(FEATURES)) float64
            Of `features`.
        """
        one, other = (np.array([per.get(name, 0.0) for name in FEATURES]) for per in (self.ms_per, self.beside_ms_per))
        line = values @ one
        return joined(self.floor_ms, joined(values @ other, line) if self.beside_ms_per else line)

    def rank_ms(
        self, counts: npt.NDArray[np.int64], rows: npt.ArrayLike, shape: ModelShape, tensor_parallel: int = 1
    ) -> Floats:
        """Return the time that ranks take, (...) milliseconds.

        Parameters
        ----------
        counts : (..., C) integers
            Tokens of each expert slot of a rank.
        rows : (...) numbers
            Distinct tokens that each rank receives.
        shape : ModelShape
        tensor_parallel : int
            GPUs that share every expert.
        """
        width = shape.intermediate_size // tensor_parallel
        factor = self.tactics.get(config_of(shape.expert_input, width, counts.shape[-1]), 1.0)
        return factor * self.ms_of(features(counts, rows, units(shape, self.dtype, tensor_parallel)))


def config_of(expert_input: int, width: int, slots: int) -> str:
    """Return the name of a shape of experts with so many slots per rank."""
    return f"{expert_input}x{width}x{slots}"


def joined(floor: npt.ArrayLike, line: npt.ArrayLike) -> Floats:
    """Return the soft maximum of a floor and a line, which is the line where the floor is 0."""
    values: Floats = np.maximum(np.asarray(line, float), 1e-12)
    least = np.maximum(floor, 0.0)
    if not least.any():
        return values
    high = np.maximum(values, least)
    soft: Floats = high * ((least / high) ** SHARPNESS + (values / high) ** SHARPNESS) ** (1 / SHARPNESS)
    return soft


def roofline(gpu: Gpu, dtype: str, phase: str) -> ExpertKernel:
    """Return a model from the data sheet alone, for GPUs and number formats that nothing was measured for.

    Every expert with tokens is read at 70 % of the memory's bandwidth while every row, in whole tiles of 64, is
    computed at 40 % of the peak: a GPU does both at once, and the slower counts. Of shares from 20 to 80 %, these were
    the nearest to what was measured in the median; adding both up was further away with any (nearer at 90 %).
    """
    start, read = {"launch": 0.02}, 1e3 / (0.7 * gpu.hbm_gb_s)
    compute = 1e3 / (0.4 * gpu.peak_tflops(dtype)) if dtype in WEIGHT_BYTES else 0.0
    return ExpertKernel(
        gpu=gpu.name,
        name="roofline",
        phase=phase,
        dtype=dtype,
        floor_ms=0.3 if phase == "prefill" else 0.0,
        ms_per=MappingProxyType(start | {"weights": read, "pair_gb": 4 * read, "row_gb": 4 * read}),
        beside_ms_per=MappingProxyType(start | {"tile64": compute}),
        error=FittedError(median=ROOFLINE_ERROR[0], p90=ROOFLINE_ERROR[1], left_out="everything", rows=0),
        source=gpu.source,
        measured=False,
    )
