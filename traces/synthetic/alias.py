"""Alias tables: one comparison per draw from any discrete distribution."""
# numba's decorators are untyped.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["fill_alias"]


@numba.njit(nogil=True, cache=True)
def fill_alias(
    weight: npt.NDArray[np.float64], threshold: npt.NDArray[np.uint32], alias: npt.NDArray[np.int16]
) -> None:
    """Build one alias table per row of `weight` (Vose, IEEE TSE 1991, doi:10.1109/32.92917)."""
    topics, experts = weight.shape
    scaled = np.empty(experts)
    small = np.empty(experts, np.int64)
    large = np.empty(experts, np.int64)
    for z in range(topics):
        total = weight[z].sum()
        smalls = larges = 0
        for e in range(experts):
            scaled[e] = weight[z, e] * experts / total
            if scaled[e] < 1.0:
                small[smalls] = e
                smalls += 1
            else:
                large[larges] = e
                larges += 1
        while smalls and larges:
            smalls -= 1
            less, more = small[smalls], large[larges - 1]
            threshold[z, less] = np.uint32(scaled[less] * 4294967295.0)
            alias[z, less] = more
            scaled[more] -= 1.0 - scaled[less]
            if scaled[more] < 1.0:
                larges -= 1
                small[smalls] = more
                smalls += 1
        # What is left has the probability 1, but for rounding.
        for n in range(smalls + larges):
            e = small[n] if n < smalls else large[n - smalls]
            threshold[z, e] = np.uint32(4294967295)
            alias[z, e] = e
