"""Time per step: attention, experts, and the transfers that nothing hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.residency.accesses import Accesses
from placement.residency.kernels import clock
from placement.residency.kernels.prefetch import CACHED
from placement.residency.simulation import Simulated
from placement.time import TimeModel
from traces.support.content import ByContent

__all__ = ["Clock", "Cold", "StepTimes", "compute_times"]

Cold = Literal["fetch", "compute"]
CHUNK = 4096  # sets whose counts are in memory at once


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StepTimes(ByContent):
    """Times of the steps of a trace under a policy.

    Attributes
    ----------
    per_step : (P,) float64
        Of each step, in the clock's unit.
    waited : float
        Per step: what is neither attention nor experts that are there, but waiting for those that are not.
    """

    per_step: npt.NDArray[np.float64]
    waited: float

    def __repr__(self) -> str:
        return f"StepTimes of {len(self.per_step):,} steps: mean {self.mean:.4g}, waited {self.waited:.4g}"

    @property
    def mean(self) -> float:
        """Mean over steps."""
        return float(self.per_step.mean())

    @property
    def p99(self) -> float:
        """99 % of the steps take no longer."""
        return float(np.quantile(self.per_step, 0.99))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Clock(ByContent):
    """What things take, in milliseconds, or in transfers of one expert over the fastest link where no size is known.

    Attributes
    ----------
    unit : {"ms", "transfers"}
    transfer : (L * E,) float64
        To fetch each expert from the tier that it lies in.
    compute : (P * L,) float64
        Experts of each set on the GPU.
    rest : float
        Each layer beside its experts.
    dense : float
        Layers without experts, per step.
    host_read, host_per_token : float
        The host's time for the weights of an expert, and for a token of it, where it computes what is not resident.
    """

    unit: Literal["ms", "transfers"]
    transfer: npt.NDArray[np.float64]
    compute: npt.NDArray[np.float64]
    rest: float = 0.0
    dense: float = 0.0
    host_read: float = 0.0
    host_per_token: float = 0.0

    def __repr__(self) -> str:
        return f"Clock in {self.unit}"

    def fetching(self, accesses: Accesses, simulated: Simulated) -> StepTimes:
        """Return the times where what is missing is fetched.

        One link carries transfers in the order in which they were asked for, demands of a layer before its prefetches.
        The experts that are there are computed meanwhile, and the last one to come when it has come.

        Parameters
        ----------
        accesses : Accesses
        simulated : Simulated
        """
        per_step = np.zeros(accesses.num_steps)
        waited = clock.tick(
            accesses.start,
            accesses.item,
            simulated.kind,
            simulated.issued,
            simulated.item_of,
            simulated.access_of,
            self.compute,
            self.rest,
            self.transfer,
            accesses.num_layers,
            per_step,
        )
        return StepTimes(per_step=per_step + self.dense, waited=waited / accesses.num_steps)

    def computing(self, accesses: Accesses, simulated: Simulated, compute: npt.NDArray[np.float64]) -> StepTimes:
        """Return the times where the host computes what is not resident, beside the GPU (KTransformers).

        Parameters
        ----------
        accesses : Accesses
        simulated : Simulated
            Of a policy that moves nothing.
        compute : (P * L,) float64
            The GPU's time for the resident experts of each set.

        References
        ----------
        KTransformers, SOSP 2025.
        """
        per_step = np.zeros(accesses.num_steps)
        waited = clock.compute_cold(
            accesses.start,
            accesses.tokens,
            simulated.kind,
            compute,
            self.rest,
            self.host_read,
            self.host_per_token,
            accesses.num_layers,
            per_step,
        )
        return StepTimes(per_step=per_step + self.dense, waited=waited / accesses.num_steps)


def compute_times(
    accesses: Accesses, time: TimeModel, kind: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.float64]:
    """Return the time of each set's experts on the GPU, (P * L,) milliseconds.

    Parameters
    ----------
    accesses : Accesses
    time : TimeModel
        Of one GPU.
    kind : (A,) uint8, optional
        Only experts in the cache are computed there; all by default.
    """
    tokens = accesses.tokens if kind is None else np.where(kind == CACHED, accesses.tokens, 0)
    sets = len(accesses.start) - 1
    found = np.zeros(sets)
    rows = np.repeat(accesses.step_tokens, accesses.num_layers)
    for first in range(0, sets, CHUNK):
        last = min(first + CHUNK, sets)
        own = slice(accesses.start[first], accesses.start[last])
        counts = np.zeros((last - first, accesses.num_experts), np.int64)
        place = np.repeat(np.arange(last - first), np.diff(accesses.start[first : last + 1]))
        counts[place, accesses.expert[own]] = tokens[own]
        used = counts.any(axis=1)
        reached = np.minimum(rows[first:last], counts.sum(axis=1))
        times = time.kernels[0].rank_ms(counts, reached, time.model.shape)
        found[first:last] = np.where(used, times, 0.0)
    return found
