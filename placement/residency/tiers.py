"""Where experts lie that are not in the GPU's memory: tiers, each with a bandwidth and room for a share of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le, doc

from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations
from traces.support.kinds import checked

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["BANDWIDTHS", "Tier", "check_tiers", "tier_of_experts"]

# GB/s into one GPU that users commonly see; measure your own.
BANDWIDTHS: Mapping[str, float] = {
    "gpu": 300.0,  # another GPU's memory over NVLink 4 (450 on the data sheet)
    "host": 50.0,  # pinned memory over PCIe 5 x16 (64 on paper)
    "host_pcie4": 25.0,  # the same over PCIe 4 x16 (32 on paper)
    "host_c2c": 300.0,  # Grace's memory over NVLink-C2C (450 on the data sheet)
    "disk": 6.0,  # one NVMe drive with PCIe 4 x4
}
SLOWEST, FASTEST = 0.001, 1e6  # GB/s: what is further out makes times overflow
FORM = "NAME[:GB/S[:SHARE]]"
REMEDY = f"Write {FORM}, such as host:50, or host:50:0.75 and then disk:6."


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Memory that experts are fetched from.

    Attributes
    ----------
    name : str
    gb_s : float
        Into the GPU, GB/s.
    share : float
        Of all experts that it has room for, copies of those in faster tiers included.
    """

    MADE_BY: ClassVar = "Use placement.residency.Tier.parse('host:50')."
    FORM: ClassVar = FORM

    name: Annotated[str, doc("What it is called: gpu, host, disk, or any other name.")]
    gb_s: Annotated[float, Ge(SLOWEST), Le(FASTEST), doc("Bandwidth into the GPU in GB/s.")]
    share: Annotated[float, Gt(0), Le(1), doc("Of all experts that it has room for, those in faster tiers too.")] = 1.0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        found.raise_if_any()

    @classmethod
    @checked
    def parse(cls, text: str) -> Tier:
        """Read ``NAME[:GB/S[:SHARE]]``; names of `BANDWIDTHS` need no bandwidth.

        Raises
        ------
        InputError
            If it is not of this form.
        """
        name, *numbers = [part.strip() for part in text.split(":")]
        known = name.lower().replace("-", "_")
        try:
            values = [float(part) for part in numbers]
        except ValueError:
            values = [math.nan]
        if len(values) > 2 or not name or (not values and known not in BANDWIDTHS):
            raise InputError.of("tier_form", "/tiers", f"{text!r:.60} is no tier.", REMEDY)
        speed, share = (values + [BANDWIDTHS.get(known, math.nan), 1.0][len(values) :])[:2]
        if not (SLOWEST <= speed <= FASTEST and 0 < share <= 1):
            detail = (
                f"{text!r:.60} is no tier: bandwidths are {SLOWEST:g} to {FASTEST:g} GB/s, shares above 0 and up to 1."
            )
            raise InputError.of("tier_form", "/tiers", detail, REMEDY)
        return cls(name=known, gb_s=speed, share=share)


def check_tiers(tiers: Sequence[Tier], found: Violations) -> None:
    """Add a violation unless tiers become slower and larger, and the last one holds every expert."""
    for before, after in pairwise(tiers):
        if after.gb_s >= before.gb_s or after.share <= before.share:
            detail = f"{after.name} is not slower and larger than {before.name}."
            found.add("tiers_order", "/tiers", detail, "Name the fastest tier first; leave out what is never used.")
    if tiers and tiers[-1].share < 1:
        detail = f"{tiers[-1].name} holds {tiers[-1].share:g} of the experts, and nothing holds the others."
        found.add("tiers_incomplete", "/tiers", detail, "Add a tier that holds all of them, such as disk:6.")


def tier_of_experts(rate: npt.NDArray[np.floating], tiers: Sequence[Tier]) -> npt.NDArray[np.int64]:
    """Return the fastest tier with a copy of each expert, (L * E,) int64: the hottest lie in the fastest.

    What lies where stays as it is; only the GPU's own memory is a cache.

    Parameters
    ----------
    rate : (L, E) floats
        See `Fitted`.
    tiers : sequence of Tier
    """
    import numpy as np

    rank = np.empty(rate.size, np.int64)
    rank[np.argsort(-rate, axis=None, kind="stable")] = np.arange(rate.size)
    ends = np.array([math.floor(tier.share * rate.size + 1e-9) for tier in tiers])
    ends[-1] = rate.size
    return np.searchsorted(ends, rank, side="right")
