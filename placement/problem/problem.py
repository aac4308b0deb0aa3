"""Profile + topology + objective + constraints, checked once, with every violation reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement.engines import engine_of
from placement.plan.plan import Plan
from placement.problem.checks import check_constraints, check_full_slots, check_objective, check_slots
from placement.problem.constraints import Constraints, Group, LoadGroups, Pin
from placement.problem.load_model import LoadModel
from placement.problem.objective import Objective, SettledObjective
from placement.problem.settling import check_kinds, check_replicas, settle_objective, settle_slots
from placement.problem.sizes import Sizes
from placement.problem.tables import checked_table
from placement.problem.text import problem_shown
from placement.topology.topology import Topology
from traces import InputError, Profile, Violations
from traces.support.content import ByContent
from traces.support.shown import Facts, Shown

__all__ = ["Problem"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Problem(Shown, ByContent):
    """A placement problem that is known to be well formed.

    Attributes
    ----------
    profile : Profile
    topology : Topology
    slots_per_gpu : int
        C; ``ceil(E / G)`` by default. ``G * C > E`` leaves room for replicas or empty slots.
    objective : SettledObjective
        Made from any `Objective`: what it leaves open fits the engine, the execution and the caps.
    constraints : Constraints
    expert_bytes : int or None
        Bytes of one expert's weights, to check them against the GPUs' memory, and for a budget of replicas in bytes.
    engine : str or None
        Engine that the plan is for, ``sglang`` or ``sglang:static`` say: how tokens travel there is what the objective
        leaves open, and every slot is filled if the engine wants it.
    redundant_experts : int or None
        Slots of a layer beyond one per expert, in place of `slots_per_gpu`: ``C = (E + redundant_experts) / G``.

    Raises
    ------
    InputError
        With a JSON pointer for each violation.
    """

    MADE_BY: ClassVar = "Make one with placement.Problem(profile, topology), or take that of a solvers.Study."

    profile: Profile
    topology: Topology
    slots_per_gpu: int = 0
    objective: SettledObjective = field(default_factory=Objective)  # type: ignore[assignment]  # settled below
    constraints: Constraints = field(default_factory=Constraints)
    expert_bytes: int | None = None
    engine: str | None = None
    redundant_experts: int | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            profile: Profile,
            topology: Topology,
            slots_per_gpu: int = ...,
            objective: Objective = ...,
            constraints: Constraints = ...,
            expert_bytes: int | None = ...,
            engine: str | None = ...,
            redundant_experts: int | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        check_kinds({name: getattr(self, name) for name in self.__dataclass_fields__})
        object.__setattr__(self, "slots_per_gpu", int(self.slots_per_gpu))
        found = Violations()
        slots = settle_slots(self.slots_per_gpu, self.redundant_experts, self.num_experts, self.num_gpus, found)
        object.__setattr__(self, "slots_per_gpu", slots)
        try:
            objective, engine = settle_objective(self.objective, self.engine, self.constraints, self.profile)
            object.__setattr__(self, "objective", objective)
            object.__setattr__(self, "engine", engine)
            spare = slots * self.num_gpus - self.num_experts
            check_replicas(engine, self.redundant_experts, spare, found)
        except InputError as error:
            found.extend(error)
        found.raise_if_any()
        check_slots(self.sizes, found)
        check_objective(self.objective, self.profile, self.num_gpus, found)
        check_constraints(self.sizes, self.loads, found)
        if not found.found and self.full_slots:
            check_full_slots(self.sizes, found)
        found.raise_if_any()

    @cached_property
    def sizes(self) -> Sizes:
        """How much there is, and where it may go."""
        return Sizes(
            layer_ids=self.profile.layer_ids,
            num_experts=self.profile.num_experts,
            topology=self.topology,
            slots_per_gpu=self.slots_per_gpu,
            constraints=self.constraints,
            expert_bytes=self.expert_bytes,
        )

    @cached_property
    def loads(self) -> LoadModel:
        """The load model."""
        return LoadModel(profile=self.profile, sizes=self.sizes, objective=self.objective)

    def plan(self, table: npt.ArrayLike, **attributes: Any) -> Plan:
        """Make a plan of a map of this problem.

        Parameters
        ----------
        table : (L, S) integers
            Physical-to-logical map with every expert present; -1 empty.
        **attributes
            Other attributes of the plan, such as the score.

        Raises
        ------
        InputError
            If the map is not one of the problem.
        """
        return Plan.of(
            self.table_of(np.asarray(table)),
            layer_ids=self.profile.layer_ids,
            num_experts=self.num_experts,
            gpus_per_node=self.topology.gpus_per_node,
            **attributes,
        )

    def table_of(self, plan: Plan | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
        """Return the map of a plan, or the map itself, if it has the problem's sizes.

        Parameters
        ----------
        plan : Plan or (L, S) integers

        Returns
        -------
        (L, S) integers

        Raises
        ------
        InputError
            If its layers, experts, GPUs or slots are others; if an expert has no slot, or an id is out of range.
        """
        return checked_table(self.sizes, plan)

    def _shown(self) -> tuple[str, Facts]:
        return problem_shown(self.sizes, self.objective, self.engine)

    @property
    def full_slots(self) -> bool:
        """Whether every slot must hold an expert: as the constraints say, else as the engine wants it."""
        if self.constraints.full_slots is not None:
            return self.constraints.full_slots
        return self.engine is not None and engine_of(self.engine).engine.full_slots

    @property
    def num_layers(self) -> int:
        """Number of layers, L."""
        return self.profile.num_layers

    @property
    def num_experts(self) -> int:
        """Logical experts per layer, E."""
        return self.profile.num_experts

    @property
    def num_gpus(self) -> int:
        """Number of GPUs, G."""
        return self.topology.num_gpus

    @property
    def num_slots(self) -> int:
        """Slots per layer, S."""
        return self.num_gpus * self.slots_per_gpu

    @property
    def capacity(self) -> npt.NDArray[np.int64]:
        """Usable slots of each GPU, (G,)."""
        return self.sizes.capacity

    @property
    def layer_row(self) -> dict[int, int]:
        """Row of each model layer."""
        return self.sizes.layer_row

    @property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """``allowed[l, e, g]``: whether the exclusions let a replica of e be on g, (L, E, G)."""
        return self.sizes.allowed

    @property
    def pinned(self) -> npt.NDArray[np.bool_]:
        """Whether expert e is pinned to GPU g in layer l, (L, E, G)."""
        return self.sizes.pinned

    @property
    def is_free(self) -> bool:
        """Whether no rule but the slots themselves rules out an arrangement."""
        return self.sizes.is_free

    @property
    def spare_replicas(self) -> int:
        """Replicas beyond one of each expert that fit the slots of all layers together, whatever the budget."""
        return self.sizes.spare_replicas

    @property
    def replica_budget(self) -> int | None:
        """Replicas beyond one of each expert that all layers may have together; None: as many as fit the slots."""
        return self.sizes.replica_budget

    @property
    def replicas_limited(self) -> bool:
        """Whether the budget of replicas is smaller than what the slots have room for."""
        return self.sizes.replicas_limited

    def rows_of(self, item: Pin | Group) -> slice | int:
        """Return the row of the item's layer, or all rows."""
        return self.sizes.rows_of(item)

    @cached_property
    def pair_weight(self) -> float:
        """Sum of the affinity over all layers: inter-layer pairs of the profile, 0 where it holds counts only."""
        affinity = self.profile.affinity
        return 0.0 if affinity is None else float(affinity.sum())

    @property
    def relative_load(self) -> Array:
        """Load of each expert as a share of its layer's load, (L, E); rows sum to 1."""
        return self.loads.relative

    @property
    def load_caps(self) -> Array | None:
        """Load cap of each layer, (L,), infinite where there is none; None if no layer has one."""
        return self.loads.caps

    @property
    def load_counts(self) -> bool:
        """Whether a plan's loads cost anything: there is a cap, or the imbalance has a weight."""
        return self.loads.counts

    @property
    def load_margin(self) -> float:
        """Standard errors that the cap is held above a GPU's expected load; 0 without a load quantile."""
        return self.loads.margin

    @property
    def load_groups(self) -> LoadGroups:
        """Groups of tokens that the standard error of a load is taken over."""
        return self.loads.groups

    @property
    def spread_weight(self) -> float:
        """Weight of the load spread; 0 with a load quantile, which asks for the same GPU by GPU."""
        return self.loads.spread_weight

    @property
    def spread_tolerance(self) -> float:
        """Standard error of a GPU's load that costs nothing, relative to the mean GPU load."""
        return self.loads.spread_tolerance

    @property
    def load_deviations(self) -> Array | None:
        """How far loads are from their means, (L, E, W), or None: see `LoadModel.deviations`."""
        return self.loads.deviations

    @property
    def home_moments(self) -> Array | None:
        """Products of loads within a sequence, (L, E, E), or None: see `LoadModel.home_moments`."""
        return self.loads.home_moments

    @property
    def least_max_load(self) -> Array:
        """Lower bound of max/fair load per layer, (L,), for any plan and any split over replicas."""
        return self.loads.least_max

    @property
    def least_load_excess(self) -> Array:
        """Lower bound of the loads above the cap, summed over GPUs, per layer, (L,), for any plan; 0 without a cap."""
        return self.loads.least_excess
