"""Whether a plan keeps a problem's constraints, and which ones it does not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.cost.shares import guarded_gpu_load
from placement.plan.plan import replicas_on_gpu
from placement.problem.problem import Problem
from placement.survival.losses import lost_by_layer
from traces import Violations

__all__ = ["CAP_TOLERANCE", "broken_constraints", "load_cap_misses"]

CAP_TOLERANCE = 1e-9


def broken_constraints(problem: Problem, table: npt.NDArray[np.integer]) -> Violations:
    """Collect the hard constraints that a map (L, S) breaks: shape, slots, places, replicas, survival."""
    found = Violations()
    pointer = "/physical_to_logical_map"
    if table.shape != (problem.num_layers, problem.num_slots):
        detail = f"Shape {table.shape} is not (layers, slots) = {(problem.num_layers, problem.num_slots)}."
        found.add("map_shape", pointer, detail, "Use a plan of the same layers, GPUs and slots.")
        return found
    if table.min() < -1 or table.max() >= problem.num_experts:
        detail = f"Ids {table.min()}..{table.max()} are not in -1..{problem.num_experts - 1}."
        found.add("expert_out_of_range", pointer, detail, "Use logical expert ids.")
        return found
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    layer_ids = problem.profile.layer_ids

    def report(code: str, where: npt.NDArray[np.bool_], text: str) -> None:
        places = np.argwhere(where)
        for place in places[:5]:
            rest = ", ".join(f"{name} {value}" for name, value in zip(text.split(), place[1:], strict=False))
            more = f"{len(places)} such places." if len(places) > 1 else ""
            found.add(code, f"{pointer}/{place[0]}", f"Layer {layer_ids[place[0]]}, {rest}.", more)

    report("expert_missing", replicas.sum(axis=2) == 0, "expert")
    report("slots_exceeded", replicas.sum(axis=1) > problem.capacity, "gpu")
    report("forbidden", (replicas > 0) & ~problem.allowed, "expert gpu")
    if problem.constraints.distinct_replicas:
        report("two_replicas_on_gpu", replicas > 1, "expert gpu")
    budget, extra = problem.replica_budget, int(replicas.sum()) - problem.num_layers * problem.num_experts
    if budget is not None and extra > budget:
        detail = f"{extra} replicas beyond one of each expert; {budget} are allowed."
        by_bytes = problem.constraints.extra_replicas is None
        found.add("extra_replicas_exceeded", f"/constraints/{'extra_bytes' if by_bytes else 'extra_replicas'}", detail)
    for number, pin in enumerate(problem.constraints.pins):
        if not np.all(replicas[problem.rows_of(pin), pin.expert, pin.gpu] > 0):
            detail = f"Expert {pin.expert} is not on GPU {pin.gpu}."
            found.add("pin_missed", f"/constraints/pins/{number}", detail)
    if (rule := problem.sizes.survival) is not None:
        lost = lost_by_layer(replicas, rule)
        report("not_survived", lost[:, None] > rule.lost, "")
    starts = np.flatnonzero(np.r_[True, np.diff(problem.topology.node_of_gpu) != 0])
    on_node = np.add.reduceat(replicas, starts, axis=2) > 0
    for number, group in enumerate(problem.constraints.groups):
        rows = problem.rows_of(group)
        members = on_node[rows][..., list(group.experts), :]
        if (members.any(axis=-2).sum(axis=-1) > 1).any():
            detail = f"Experts {list(group.experts)[:8]} are on more than one node."
            found.add("group_split", f"/constraints/groups/{number}", detail)
    return found


def load_cap_misses(problem: Problem, table: npt.NDArray[np.integer]) -> list[str]:
    """Say, layer by layer, where the plan misses the load cap, and the least that any plan can reach there.

    With a load quantile, the cap is missed where that quantile of a GPU's load is above it.
    """
    caps = problem.load_caps
    if caps is None:
        return []
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    reached = guarded_gpu_load(problem, replicas).max(axis=1)
    quantile = problem.constraints.load_quantile
    what = "max/mean" if quantile is None else f"the {quantile:g} quantile of max/mean"
    ids = problem.profile.layer_ids
    return [
        f"Load cap {caps[layer]:g} is missed in layer {ids[layer]}: {what} is {reached[layer]:.4f}"
        + (
            f"; no plan with these slots gets below {problem.least_max_load[layer]:.4f} there."
            if problem.least_max_load[layer] > caps[layer]
            else f"; whether {caps[layer]:g} can be reached is not known."
        )
        for layer in np.flatnonzero(reached > caps * (1 + CAP_TOLERANCE))
    ]
