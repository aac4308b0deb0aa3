"""The load model: shares of experts, caps and margins, how loads vary, and what no plan gets below."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from placement.loads.deviations import (
    count_groups,
    sequence_deviations,
    sequence_moments,
    source_deviations,
    window_deviations,
)
from placement.loads.least import least_excess, max_load_bound
from placement.problem.constraints import LoadGroups
from placement.problem.objective import SettledObjective
from placement.problem.sizes import Sizes
from traces import Profile

__all__ = ["LoadModel"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadModel:
    """What a problem says of loads; no plan is needed for any of it.

    Attributes
    ----------
    profile : Profile
    sizes : Sizes
    objective : Objective
    """

    profile: Profile
    sizes: Sizes
    objective: SettledObjective

    @cached_property
    def relative(self) -> Array:
        """Load of each expert as a share of its layer's load, (L, E); rows sum to 1."""
        share: Array = self.profile.load / self.profile.load.sum(axis=1, keepdims=True)
        return share

    @cached_property
    def caps(self) -> Array | None:
        """Load cap of each layer, (L,), infinite where there is none; None if no layer has one."""
        constraints = self.sizes.constraints
        if constraints.load_cap is None and not constraints.layer_load_caps:
            return None
        caps = np.full(self.sizes.num_layers, np.inf if constraints.load_cap is None else float(constraints.load_cap))
        for item in constraints.layer_load_caps:
            caps[self.sizes.layer_row[item.layer_id]] = item.load_cap
        return caps

    @property
    def counts(self) -> bool:
        """Whether a plan's loads cost anything: there is a cap, or the imbalance has a weight."""
        return self.caps is not None or self.objective.imbalance_weight > 0

    @cached_property
    def margin(self) -> float:
        """Standard errors that the cap is held above a GPU's expected load; 0 without a load quantile."""
        quantile = self.sizes.constraints.load_quantile
        return 0.0 if quantile is None else NormalDist().inv_cdf(quantile)

    @cached_property
    def groups(self) -> LoadGroups:
        """Groups of tokens that the standard error of a load is taken over."""
        constraints = self.sizes.constraints
        if constraints.load_groups is not None:
            return constraints.load_groups
        robust = constraints.load_quantile is not None and count_groups(self.profile, "sequences") > 1
        return "sequences" if robust else "windows"

    @property
    def spread_weight(self) -> float:
        """Weight of the load spread; 0 with a load quantile, which asks for the same GPU by GPU."""
        return self.objective.load_spread_weight if self.sizes.constraints.load_quantile is None else 0.0

    @property
    def spread_tolerance(self) -> float:
        """Standard error of a GPU's load that costs nothing, relative to the mean GPU load."""
        return float(self.objective.load_spread_tolerance * self.sizes.num_gpus)

    @property
    def variance_counts(self) -> bool:
        """Whether it matters how much loads vary."""
        return self.counts and bool(self.margin or self.spread_weight)

    @cached_property
    def deviations(self) -> Array | None:
        """How far the experts' loads are from their means in each group of the profile's tokens, (L, E, W).

        As shares of a layer's load, and scaled so that the squares of W of them add up to the variance of the mean: the
        square of the standard error that an expert's load has. None where it is not wanted (neither load cap nor
        imbalance counts, or neither a load quantile nor a weight of the spread) or not known (counts, or a single
        window).
        """
        if not self.variance_counts:
            return None
        of_groups = {"sequences": sequence_deviations, "sources": source_deviations, "windows": window_deviations}
        return of_groups[self.groups](self.profile)

    @cached_property
    def home_moments(self) -> Array | None:
        """Products of the experts' loads within a sequence, summed over sequences, (L, E, E), as shares of a layer's.

        What the variance of loads by random homes is made of (`placement.cost.shares.home_variance`). None where homes
        leave the loads alone (no room for replicas, an equal split over them, not dispatch), where they aren't drawn
        per sequence (homes of single tokens average out, measured ones are known), or where variance isn't wanted.
        """
        objective, sample = self.objective, self.profile.sample
        if not (self.variance_counts and objective.execution == "dispatch" and objective.ownership == "sequence"):
            return None
        if objective.replica_policy == "fair" or self.sizes.spare_replicas == 0 or sample is None:
            return None
        return sequence_moments(sample, self.sizes.num_experts)

    @cached_property
    def least_max(self) -> Array:
        """Lower bound of max/fair load per layer, (L,), for any plan and any split over replicas."""
        return max_load_bound(self.relative, self.sizes.capacity, self.sizes.topology.fair_share)

    @cached_property
    def least_excess(self) -> Array:
        """Lower bound of the loads above the cap, summed over GPUs, per layer, (L,), for any plan; 0 without a cap."""
        if self.caps is None:
            return np.zeros(self.sizes.num_layers)
        return least_excess(self.relative, self.sizes.capacity, self.sizes.topology.fair_share, self.caps)
