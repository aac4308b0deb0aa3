"""Profile + topology + objective + constraints, checked once, with every violation reported at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from statistics import NormalDist
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from placement.engines import engine_of, travel_of
from placement.loads.deviations import count_groups, sequence_deviations, sequence_moments, window_deviations
from placement.loads.least import least_excess, least_max_load
from placement.problem.constraints import Constraints, Group, LoadGroups, Pin
from placement.problem.objective import Objective, SettledObjective
from placement.topology.topology import Topology
from traces import InputError, Profile, Violations

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
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
        for name, kind in (("profile", Profile), ("topology", Topology), ("slots_per_gpu", Integral)):
            if not isinstance(value := getattr(self, name), kind):
                detail = f"{type(value).__name__} is not a {kind.__name__}."
                raise InputError.of("wrong_type", f"/{name}", detail, "Use traces.Profile.of(trace) for a profile.")
        object.__setattr__(self, "slots_per_gpu", int(self.slots_per_gpu))
        found = Violations()
        self._settle_slots(found)
        self._settle_objective(found)
        found.raise_if_any()
        self._check_slots(found)
        self._check_objective(found)
        self._check_constraints(found)
        found.raise_if_any()

    def _settle_slots(self, found: Violations) -> None:
        experts, gpus, redundant = self.profile.num_experts, self.topology.num_gpus, self.redundant_experts
        if redundant is None:
            slots = self.slots_per_gpu or math.ceil(experts / gpus)
        else:
            slots = -(-(experts + redundant) // gpus)
            pointer = "/redundant_experts"
            if redundant < 0:
                found.add("redundant_experts_range", pointer, f"{redundant} redundant experts.", "Give at least 0.")
            elif slots * gpus != experts + redundant:
                detail = f"{experts} + {redundant} experts can't be spread evenly over {gpus} GPUs."
                few, many = (slots - 1) * gpus - experts, slots * gpus - experts
                found.add(
                    "redundant_experts_uneven", pointer, detail, f"Give {f'{few} or ' if few >= 0 else ''}{many}."
                )
            elif self.slots_per_gpu not in (0, slots):
                detail = f"{redundant} redundant experts make {slots} slots per GPU, not {self.slots_per_gpu}."
                found.add("slots_differ", pointer, detail, "Give redundant_experts or slots_per_gpu, not both.")
        object.__setattr__(self, "slots_per_gpu", slots)

    def _settle_objective(self, found: Violations) -> None:
        defaults = None
        try:
            if self.engine is not None:
                choice = engine_of(self.engine)
                object.__setattr__(self, "engine", str(choice))
                defaults, _ = travel_of(choice, self.profile)
            capped = self.constraints.load_cap is not None or bool(self.constraints.layer_load_caps)
            object.__setattr__(self, "objective", self.objective.settled(capped=capped, defaults=defaults))
        except InputError as error:
            found.extend(error)

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

    @cached_property
    def capacity(self) -> npt.NDArray[np.int64]:
        """Usable slots of each GPU, (G,)."""
        full = np.full(self.num_gpus, self.slots_per_gpu)
        return full if self.topology.slots is None else np.minimum(full, self.topology.slots)

    @cached_property
    def layer_row(self) -> dict[int, int]:
        """Row of each model layer."""
        return {int(layer): row for row, layer in enumerate(self.profile.layer_ids)}

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """``allowed[l, e, g]``: whether the exclusions let a replica of e be on g, (L, E, G)."""
        mask = np.ones((self.num_layers, self.num_experts, self.num_gpus), dtype=bool)
        for pin in self.constraints.forbidden:
            mask[self.rows_of(pin), pin.expert, pin.gpu] = False
        return mask

    @cached_property
    def is_free(self) -> bool:
        """Whether no pin, exclusion, group, uneven capacity or budget of replicas rules out an arrangement."""
        constraints = self.constraints
        even = bool((self.capacity == self.slots_per_gpu).all())
        return (
            even and not self.replicas_limited and not (constraints.pins or constraints.forbidden or constraints.groups)
        )

    @cached_property
    def spare_replicas(self) -> int:
        """Replicas beyond one of each expert that fit the slots of all layers together, whatever the budget."""
        return self.num_layers * (int(self.capacity.sum()) - self.num_experts)

    @cached_property
    def replica_budget(self) -> int | None:
        """Replicas beyond one of each expert that all layers may have together; None: as many as fit the slots."""
        constraints = self.constraints
        if constraints.extra_replicas is not None or constraints.extra_bytes is None:
            return constraints.extra_replicas
        return constraints.extra_bytes // (self.expert_bytes or 1)  # sizes are checked

    @property
    def replicas_limited(self) -> bool:
        """Whether the budget of replicas is smaller than what the slots have room for."""
        budget = self.replica_budget
        return budget is not None and budget < self.spare_replicas

    @cached_property
    def relative_load(self) -> npt.NDArray[np.float64]:
        """Load of each expert as a share of its layer's load, (L, E); rows sum to 1."""
        share: npt.NDArray[np.float64] = self.profile.load / self.profile.load.sum(axis=1, keepdims=True)
        return share

    @cached_property
    def pair_weight(self) -> float:
        """Sum of the affinity over all layers: inter-layer pairs of the profile, 0 where it holds counts only."""
        affinity = self.profile.affinity
        return 0.0 if affinity is None else float(affinity.sum())

    @cached_property
    def load_caps(self) -> npt.NDArray[np.float64] | None:
        """Load cap of each layer, (L,), infinite where there is none; None if no layer has one."""
        constraints = self.constraints
        if constraints.load_cap is None and not constraints.layer_load_caps:
            return None
        caps = np.full(self.num_layers, np.inf if constraints.load_cap is None else float(constraints.load_cap))
        for item in constraints.layer_load_caps:
            caps[self.layer_row[item.layer_id]] = item.load_cap
        return caps

    @property
    def load_counts(self) -> bool:
        """Whether a plan's loads cost anything: there is a cap, or the imbalance has a weight."""
        return self.load_caps is not None or self.objective.imbalance_weight > 0

    @cached_property
    def load_margin(self) -> float:
        """Standard errors that the cap is held above a GPU's expected load; 0 without a load quantile."""
        quantile = self.constraints.load_quantile
        return 0.0 if quantile is None else NormalDist().inv_cdf(quantile)

    @cached_property
    def load_groups(self) -> LoadGroups:
        """Groups of tokens that the standard error of a load is taken over."""
        constraints = self.constraints
        if constraints.load_groups is not None:
            return constraints.load_groups
        robust = constraints.load_quantile is not None and count_groups(self.profile, "sequences") > 1
        return "sequences" if robust else "windows"

    @property
    def spread_weight(self) -> float:
        """Weight of the load spread; 0 with a load quantile, which asks for the same GPU by GPU."""
        return self.objective.load_spread_weight if self.constraints.load_quantile is None else 0.0

    @cached_property
    def load_deviations(self) -> npt.NDArray[np.float64] | None:
        """How far the experts' loads are from their means in each group of the profile's tokens, (L, E, W).

        As shares of a layer's load, and scaled so that the squares of W of them add up to the variance of the mean: the
        square of the standard error that an expert's load has. None where it is not wanted (neither load cap nor
        imbalance counts, or neither a load quantile nor a weight of the spread) or not known (counts, or a single
        window).
        """
        if not self._variance_counts:
            return None
        if self.load_groups == "sequences":
            return sequence_deviations(self.profile)
        return window_deviations(self.profile)

    @property
    def _variance_counts(self) -> bool:
        return self.load_counts and bool(self.load_margin or self.spread_weight)

    @cached_property
    def home_moments(self) -> npt.NDArray[np.float64] | None:
        """Products of the experts' loads within a sequence, summed over sequences, (L, E, E), as shares of a layer's.

        What the variance of loads by random homes is made of (`placement.cost.score.home_variance`). None where homes
        leave the loads alone (no room for replicas, an equal split over them, not dispatch), where they aren't drawn
        per sequence (homes of single tokens average out, measured ones are known), or where variance isn't wanted.
        """
        objective = self.objective
        if not (self._variance_counts and objective.execution == "dispatch" and objective.ownership == "sequence"):
            return None
        if objective.replica_policy == "fair" or self.spare_replicas == 0 or self.profile.sample is None:
            return None
        return sequence_moments(self.profile.sample, self.num_experts)

    @property
    def spread_tolerance(self) -> float:
        """Standard error of a GPU's load that costs nothing, relative to the mean GPU load."""
        return self.objective.load_spread_tolerance * self.num_gpus

    @cached_property
    def least_max_load(self) -> npt.NDArray[np.float64]:
        """Lower bound of max/fair load per layer, (L,), for any plan and any split over replicas."""
        return least_max_load(self.relative_load, self.capacity, self.topology.fair_share)

    @cached_property
    def least_load_excess(self) -> npt.NDArray[np.float64]:
        """Lower bound of the loads above the cap, summed over GPUs, per layer, (L,), for any plan; 0 without a cap."""
        caps = self.load_caps
        if caps is None:
            return np.zeros(self.num_layers)
        return least_excess(self.relative_load, self.capacity, self.topology.fair_share, caps)

    def rows_of(self, item: Pin | Group) -> slice | int:
        """Return the row of the item's layer, or all rows."""
        return slice(None) if item.layer_id is None else self.layer_row[item.layer_id]

    @cached_property
    def pinned(self) -> npt.NDArray[np.bool_]:
        """Whether expert e is pinned to GPU g in layer l, (L, E, G)."""
        pinned = np.zeros((self.num_layers, self.num_experts, self.num_gpus), dtype=bool)
        for pin in self.constraints.pins:
            pinned[self.rows_of(pin), pin.expert, pin.gpu] = True
        return pinned

    def _check_slots(self, found: Violations) -> None:
        pointer = "/slots_per_gpu"
        if self.expert_bytes is not None and not 1 <= self.expert_bytes < 1 << 63:
            detail = f"An expert of {self.expert_bytes} bytes."
            found.add(
                "expert_bytes_range", "/expert_bytes", detail, "Give the size of one expert's weights, at least 1."
            )
        if not 1 <= self.slots_per_gpu <= 32_767:
            detail = f"{self.slots_per_gpu} slots per GPU."
            found.add("slots_range", pointer, detail, "Give a number between 1 and 32767.")
            return
        if self.constraints.distinct_replicas and self.slots_per_gpu > self.num_experts:
            detail = (
                f"{self.slots_per_gpu} slots per GPU, but a GPU can hold only {self.num_experts} different experts."
            )
            found.add("slots_range", pointer, detail, f"Give at most {self.num_experts}.")
            return
        room = int(self.capacity.sum())
        if room < self.num_experts:
            found.add(
                "more_experts_than_slots",
                pointer,
                f"{self.num_experts} experts don't fit {room} slots ({self.num_gpus} GPUs of {self.slots_per_gpu}).",
                f"Give at least {math.ceil(self.num_experts / self.num_gpus)} slots per GPU, or more GPUs.",
            )
        memory = self.topology.memory_gb
        if self.expert_bytes is not None and memory is not None:
            need = self.expert_bytes * self.num_layers * self.capacity / 1e9
            for gpu in np.flatnonzero(need > memory)[:8]:
                found.add(
                    "memory",
                    f"/topology/memory_gb/{gpu}",
                    f"{self.capacity[gpu]} slots in {self.num_layers} layers need {need[gpu]:.1f} GB "
                    f"of {memory[gpu]:.1f} GB.",
                    "Use fewer slots per GPU, or more GPUs.",
                )

    def _check_objective(self, found: Violations) -> None:
        objective, profile = self.objective, self.profile
        remedy = "Record a trace with token identity (topk_ids), or use execution 'dispatch' with dedup 'none'."
        if objective.execution == "context_coherent" and profile.affinity is None:
            detail = "The profile holds counts per expert only; inter-layer affinity needs tokens."
            found.add("counts_only", "/objective/execution", detail, remedy)
        if objective.execution == "context_coherent" and objective.replica_policy != "fair":
            detail = f"Under context_coherent, the load by {objective.replica_policy!r} depends on all earlier layers."
            found.add(
                "replica_policy",
                "/objective/replica_policy",
                detail,
                "Plan with 'fair'; `evaluate` replays any policy.",
            )
        if objective.execution == "dispatch" and objective.dedup != "none" and profile.sample is None:
            detail = "The profile holds no sample of tokens; fan-out needs whole tokens."
            found.add("counts_only", "/objective/dedup", detail, remedy)
        if objective.activated_weight and profile.sample is None:
            detail = "The profile holds no sample of tokens; activated experts are counted over batches of tokens."
            found.add("counts_only", "/objective/activated_weight", detail, "Record tokens, or leave the weight out.")
        if objective.execution == "dispatch" and objective.ownership == "measured":
            source = profile.source_load
            if source is None:
                detail = "The trace names no source_rank."
                found.add("no_source_rank", "/objective/ownership", detail, "Use ownership 'token' or 'sequence'.")
            elif len(source) > self.num_gpus:
                detail = f"The trace has {len(source)} source ranks, the topology {self.num_gpus} GPUs."
                found.add("source_rank_range", "/objective/ownership", detail, "Use ownership 'token' or 'sequence'.")
            elif not np.array_equal(source.sum(axis=0), profile.load):
                detail = "Some tokens of the trace have no source_rank."
                found.add("no_source_rank", "/objective/ownership", detail, "Use ownership 'token' or 'sequence'.")
        if objective.execution == "dispatch" and objective.ownership == "sequence":
            sample = profile.sample
            if sample is None or (sample.seq_id < 0).any():
                found.add("no_seq_id", "/objective/ownership", "The trace has no seq_id.", "Use ownership 'token'.")

    def _check_constraints(self, found: Violations) -> None:
        constraints = self.constraints
        self._check_caps(found)
        self._check_quantile(found)
        self._check_bytes(found)
        for name in ("pins", "forbidden"):
            for number, pin in enumerate(getattr(constraints, name)):
                self._check_item(found, f"/constraints/{name}/{number}", pin.layer_id, (pin.expert,))
                if not 0 <= pin.gpu < self.num_gpus:
                    detail = f"GPU {pin.gpu} is not in 0..{self.num_gpus - 1}."
                    found.add("gpu_range", f"/constraints/{name}/{number}/gpu", detail, "Correct the GPU.")
        for number, group in enumerate(constraints.groups):
            pointer = f"/constraints/groups/{number}"
            self._check_item(found, pointer, group.layer_id, group.experts)
            largest = int(np.bincount(self.topology.node_of_gpu, weights=self.capacity).max())
            if len(set(group.experts)) != len(group.experts) or not group.experts:
                found.add("group_members", f"{pointer}/experts", "A group lists each member once.", "Correct the list.")
            elif len(group.experts) > largest:
                detail = f"{len(group.experts)} experts don't fit the {largest} slots of the largest node."
                found.add("group_too_large", f"{pointer}/experts", detail, "Split the group, or add slots.")
        if not found.found:
            pinned = int(np.maximum(self.pinned.sum(axis=2) - 1, 0).sum())
            if (budget := self.replica_budget) is not None and budget < pinned:
                detail = f"{budget} extra replicas are allowed, but the pins ask for {pinned}."
                if constraints.extra_replicas is None:
                    least = pinned * (self.expert_bytes or 1)
                    found.add("extra_bytes_range", "/constraints/extra_bytes", detail, f"Give at least {least} bytes.")
                else:
                    found.add("extra_replicas_range", "/constraints/extra_replicas", detail, f"Give at least {pinned}.")
            self._check_conflicts(found)

    def _check_caps(self, found: Violations) -> None:
        constraints = self.constraints
        caps = [("/constraints/load_cap", constraints.load_cap)]
        listed: set[int] = set()
        for number, item in enumerate(constraints.layer_load_caps):
            pointer = f"/constraints/layer_load_caps/{number}"
            caps.append((f"{pointer}/load_cap", item.load_cap))
            self._check_item(found, pointer, item.layer_id, ())
            if item.layer_id in listed:
                detail = f"Layer {item.layer_id} has two load caps."
                found.add("layer_cap_twice", f"{pointer}/layer_id", detail, "Give each layer one.")
            listed.add(item.layer_id)
        for pointer, cap in caps:
            if cap is not None and not (math.isfinite(cap) and cap >= 1):
                detail = f"A load cap of {cap} can't hold: the largest load is at least the mean."
                found.add("load_cap_range", pointer, detail, "Give a cap of at least 1, such as 1.05.")

    def _check_quantile(self, found: Violations) -> None:
        constraints = self.constraints
        quantile, pointer = constraints.load_quantile, "/constraints/load_quantile"
        if quantile is not None and not 0.5 <= quantile < 1:
            detail = f"A load quantile of {quantile} is not in 0.5..1 (1 excluded)."
            found.add("load_quantile_range", pointer, detail, "Give one such as 0.9, or leave it out.")
        if quantile is not None and constraints.load_cap is None and not constraints.layer_load_caps:
            detail = "The load quantile says how surely the load cap holds, but there is no cap."
            found.add("quantile_without_cap", pointer, detail, "Give a load cap as well, or leave the quantile out.")
        if (groups := self.load_groups) not in get_args(LoadGroups):
            detail = f"{groups!r} is not one of {list(get_args(LoadGroups))}."
            found.add("unknown_choice", "/constraints/load_groups", detail, "Choose one of them.")
        elif groups == "sequences" and self.profile.sequence_load is None:
            detail = "The profile does not hold the loads of sequences: the trace has no seq_id."
            remedy = "Use load_groups 'windows', or record seq_id and profile the trace again."
            found.add("no_seq_id", "/constraints/load_groups", detail, remedy)
        elif quantile is not None and groups == "windows" and self.profile.windows is None:
            detail = "The profile holds counts per expert only; how much loads vary needs tokens."
            found.add("counts_only", pointer, detail, "Record a trace with token identity (topk_ids), or leave it out.")
        elif quantile is not None and count_groups(self.profile, groups) < 2:
            detail = f"All tokens are in one of the {groups}; how much loads vary needs two or more."
            found.add("too_few_groups", pointer, detail, "Use a longer trace, or leave the quantile out.")

    def _check_bytes(self, found: Violations) -> None:
        size, budget, replicas = self.expert_bytes, self.constraints.extra_bytes, self.constraints.extra_replicas
        pointer = "/constraints/extra_bytes"
        if budget is None:
            return
        if budget < 0:
            found.add("extra_bytes_range", pointer, f"A budget of {budget} bytes.", "Give at least 0, or leave it out.")
        if size is None:
            detail = "A budget of replicas in bytes needs the size of an expert."
            found.add(
                "no_expert_bytes", pointer, detail, "Give expert_bytes, or extra_replicas in place of extra_bytes."
            )
        elif size > 0 and replicas is not None and replicas != budget // size:
            detail = f"{budget} bytes are {budget // size} replicas of {size} bytes, but extra_replicas is {replicas}."
            found.add("replica_budgets_differ", pointer, detail, "Leave one of the two out.")

    def _check_item(self, found: Violations, pointer: str, layer_id: int | None, experts: tuple[int, ...]) -> None:
        if layer_id is not None and layer_id not in self.layer_row:
            detail = f"Layer {layer_id} is not one of {self.profile.layer_ids.tolist()}."
            found.add("layer_unknown", f"{pointer}/layer_id", detail, "Use the model's layer ids.")
        for expert in experts:
            if not 0 <= expert < self.num_experts:
                detail = f"Expert {expert} is not in 0..{self.num_experts - 1}."
                found.add("expert_range", f"{pointer}/expert", detail, "Correct the expert.")

    def _check_conflicts(self, found: Violations) -> None:
        """Report pins that contradict exclusions, capacities, groups or each other."""
        constraints = self.constraints
        pinned = self.pinned
        for number, pin in enumerate(constraints.pins):
            rows = self.rows_of(pin)
            if not np.all(self.allowed[rows, pin.expert, pin.gpu]):
                detail = f"Expert {pin.expert} is pinned to GPU {pin.gpu} and forbidden there."
                found.add("pin_forbidden", f"/constraints/pins/{number}", detail, "Remove one of the two.")
        for layer, gpu in np.argwhere(pinned.sum(axis=1) > self.capacity)[:8]:
            detail = f"Layer {self.profile.layer_ids[layer]} pins more experts to GPU {gpu} than it has slots."
            found.add("pins_exceed_slots", "/constraints/pins", detail, "Pin fewer, or add slots.")
        extra = np.maximum(pinned.sum(axis=2), 1).sum(axis=1)
        for layer in np.flatnonzero(extra > self.capacity.sum())[:8]:
            needs = f"needs {extra[layer]} slots for pinned replicas and single experts."
            detail = f"Layer {self.profile.layer_ids[layer]} {needs}"
            found.add("pins_exceed_slots", "/constraints/pins", detail, "Pin fewer replicas, or add slots.")
        for layer, expert in np.argwhere(~self.allowed.any(axis=2))[:8]:
            detail = f"Expert {expert} of layer {self.profile.layer_ids[layer]} is forbidden on every GPU."
            found.add("forbidden_everywhere", "/constraints/forbidden", detail, "Leave it at least one GPU.")
        member: dict[tuple[int, int], int] = {}
        for number, group in enumerate(constraints.groups):
            layers = range(self.num_layers) if group.layer_id is None else [self.layer_row[group.layer_id]]
            for layer in layers:
                for expert in group.experts:
                    if member.setdefault((layer, expert), number) != number:
                        detail = f"Expert {expert} of layer {self.profile.layer_ids[layer]} is in two groups."
                        found.add("group_overlap", f"/constraints/groups/{number}", detail, "Join the groups.")
                nodes = self.topology.node_of_gpu[np.flatnonzero(pinned[layer, list(group.experts)].any(axis=0))]
                if len(set(nodes.tolist())) > 1:
                    detail = "Pins put members of the group on different nodes."
                    found.add("group_pins", f"/constraints/groups/{number}", detail, "Pin the members to one node.")
