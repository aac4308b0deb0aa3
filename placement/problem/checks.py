"""Whether a problem is well formed: every violation is found, with the pointer to its place."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np

from placement.loads.deviations import count_groups
from placement.plan.checks import MAX_SIZE
from placement.problem.constraints import Constraints, LoadGroups
from placement.problem.load_model import LoadModel
from placement.problem.objective import Objective
from placement.problem.sizes import Sizes
from placement.problem.survival_checks import check_survive
from traces import Profile, Violations
from traces.support.shown import runs

__all__ = ["check_constraints", "check_full_slots", "check_objective", "check_slots"]


def check_slots(sizes: Sizes, found: Violations) -> None:
    """Record slots that are out of range, have no room for the experts, or don't fit the GPUs' memory."""
    pointer = "/slots_per_gpu"
    if sizes.expert_bytes is not None and not 1 <= sizes.expert_bytes < 1 << 63:
        detail = f"An expert of {sizes.expert_bytes} bytes."
        found.add("expert_bytes_range", "/expert_bytes", detail, "Give the size of one expert's weights, at least 1.")
    if not 1 <= sizes.slots_per_gpu <= MAX_SIZE:
        detail = f"{sizes.slots_per_gpu} slots per GPU."
        found.add("slots_range", pointer, detail, f"Give a number between 1 and {MAX_SIZE}.")
        return
    if sizes.constraints.distinct_replicas and sizes.slots_per_gpu > sizes.num_experts:
        detail = f"{sizes.slots_per_gpu} slots per GPU, but a GPU can hold only {sizes.num_experts} different experts."
        found.add("slots_range", pointer, detail, f"Give at most {sizes.num_experts}.")
        return
    room = int(sizes.capacity.sum())
    if room < sizes.num_experts:
        found.add(
            "more_experts_than_slots",
            pointer,
            f"{sizes.num_experts} experts don't fit {room} slots ({sizes.num_gpus} GPUs of {sizes.slots_per_gpu}).",
            f"Give at least {math.ceil(sizes.num_experts / sizes.num_gpus)} slots per GPU, or more GPUs.",
        )
    memory = sizes.topology.memory_gb
    if sizes.expert_bytes is not None and memory is not None:
        need = sizes.expert_bytes * sizes.num_layers * sizes.capacity / 1e9
        for gpu in np.flatnonzero(need > memory)[:8]:
            found.add(
                "memory",
                f"/topology/memory_gb/{gpu}",
                f"{sizes.capacity[gpu]} slots in {sizes.num_layers} layers need {need[gpu]:.1f} GB "
                f"of {memory[gpu]:.1f} GB.",
                "Use fewer slots per GPU, or more GPUs.",
            )


def check_objective(objective: Objective, profile: Profile, num_gpus: int, found: Violations) -> None:
    """Record what the objective needs, and the profile does not hold."""
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
        elif len(source) > num_gpus:
            detail = f"The trace has {len(source)} source ranks, the topology {num_gpus} GPUs."
            found.add("source_rank_range", "/objective/ownership", detail, "Use ownership 'token' or 'sequence'.")
        elif not np.array_equal(source.sum(axis=0), profile.load):
            detail = "Some tokens of the trace have no source_rank."
            found.add("no_source_rank", "/objective/ownership", detail, "Use ownership 'token' or 'sequence'.")
    if objective.execution == "dispatch" and objective.ownership == "sequence":
        sample = profile.sample
        if sample is None or (sample.seq_id < 0).any():
            found.add("no_seq_id", "/objective/ownership", "The trace has no seq_id.", "Use ownership 'token'.")


def check_constraints(sizes: Sizes, loads: LoadModel, found: Violations) -> None:
    """Record constraints that are out of range, contradict each other, or need what the profile does not hold."""
    constraints = sizes.constraints
    _check_caps(sizes, found)
    _check_quantile(constraints, loads, found)
    _check_bytes(sizes, found)
    check_survive(sizes, found)
    for name in ("pins", "forbidden"):
        for number, pin in enumerate(getattr(constraints, name)):
            if found.enough():
                return
            _check_item(sizes, found, f"/constraints/{name}/{number}", pin.layer_id, (pin.expert,))
            if not 0 <= pin.gpu < sizes.num_gpus:
                detail = f"GPU {pin.gpu} is not in 0..{sizes.num_gpus - 1}."
                found.add("gpu_range", f"/constraints/{name}/{number}/gpu", detail, "Correct the GPU.")
    largest = int(np.bincount(sizes.topology.node_of_gpu, weights=sizes.capacity).max())
    for number, group in enumerate(constraints.groups):
        if found.enough():
            return
        pointer = f"/constraints/groups/{number}"
        _check_item(sizes, found, pointer, group.layer_id, group.experts)
        if len(set(group.experts)) != len(group.experts) or not group.experts:
            found.add("group_members", f"{pointer}/experts", "A group lists each member once.", "Correct the list.")
        elif len(group.experts) > largest:
            detail = f"{len(group.experts)} experts don't fit the {largest} slots of the largest node."
            found.add("group_too_large", f"{pointer}/experts", detail, "Split the group, or add slots.")
    if not found.found:
        pinned = int(np.maximum(sizes.pinned.sum(axis=2) - 1, 0).sum())
        if (budget := sizes.replica_budget) is not None and budget < pinned:
            detail = f"{budget} extra replicas are allowed, but the pins ask for {pinned}."
            if constraints.extra_replicas is None:
                least = pinned * (sizes.expert_bytes or 1)
                found.add("extra_bytes_range", "/constraints/extra_bytes", detail, f"Give at least {least} bytes.")
            else:
                found.add("extra_replicas_range", "/constraints/extra_replicas", detail, f"Give at least {pinned}.")
        _check_conflicts(sizes, found)


def check_full_slots(sizes: Sizes, found: Violations) -> None:
    """Record a budget of replicas that leaves slots empty, where every slot has to hold an expert."""
    if sizes.replicas_limited:
        name = "extra_bytes" if sizes.constraints.extra_replicas is None else "extra_replicas"
        detail = f"Every slot is to hold an expert, which takes {sizes.spare_replicas} replicas beyond one of each; "
        detail += f"{sizes.replica_budget} are allowed."
        remedy = f"Leave {name} out, use fewer slots_per_gpu, or set full_slots to False."
        found.add("budget_below_slots", f"/constraints/{name}", detail, remedy)


def _check_caps(sizes: Sizes, found: Violations) -> None:
    constraints = sizes.constraints
    caps = [("/constraints/load_cap", constraints.load_cap)]
    listed: set[int] = set()
    for number, item in enumerate(constraints.layer_load_caps):
        pointer = f"/constraints/layer_load_caps/{number}"
        caps.append((f"{pointer}/load_cap", item.load_cap))
        _check_item(sizes, found, pointer, item.layer_id, ())
        if item.layer_id in listed:
            detail = f"Layer {item.layer_id} has two load caps."
            found.add("layer_cap_twice", f"{pointer}/layer_id", detail, "Give each layer one.")
        listed.add(item.layer_id)
    for pointer, cap in caps:
        if cap is not None and not (math.isfinite(cap) and cap >= 1):
            detail = f"A load cap of {cap} can't hold: the largest load is at least the mean."
            found.add("load_cap_range", pointer, detail, "Give a cap of at least 1, such as 1.05.")


def _check_quantile(constraints: Constraints, loads: LoadModel, found: Violations) -> None:
    profile = loads.profile
    quantile, pointer = constraints.load_quantile, "/constraints/load_quantile"
    if quantile is not None and not 0.5 <= quantile < 1:
        detail = f"A load quantile of {quantile} is not in 0.5..1 (1 excluded)."
        found.add("load_quantile_range", pointer, detail, "Give one such as 0.9, or leave it out.")
    if quantile is not None and constraints.load_cap is None and not constraints.layer_load_caps:
        detail = "The load quantile says how surely the load cap holds, but there is no cap."
        found.add("quantile_without_cap", pointer, detail, "Give a load cap as well, or leave the quantile out.")
    if (groups := loads.groups) not in get_args(LoadGroups):
        detail = f"{groups!r} is not one of {list(get_args(LoadGroups))}."
        found.add("unknown_choice", "/constraints/load_groups", detail, "Choose one of them.")
    elif groups == "sequences" and profile.sequence_load is None:
        detail = "The profile does not hold the loads of sequences: the trace has no seq_id."
        remedy = "Use load_groups 'windows', or record seq_id and profile the trace again."
        found.add("no_seq_id", "/constraints/load_groups", detail, remedy)
    elif (quantile is not None or groups == "sources") and groups != "sequences" and profile.windows is None:
        detail = "The profile holds counts per expert only; how much loads vary needs tokens."
        found.add("counts_only", pointer, detail, "Record a trace with token identity (topk_ids), or leave it out.")
    elif (quantile is not None or groups == "sources") and count_groups(profile, groups) < 2:
        detail = f"All tokens are in one of the {groups}; how much loads vary needs two or more."
        found.add("too_few_groups", pointer, detail, "Use a longer trace, or leave the quantile out.")


def _check_bytes(sizes: Sizes, found: Violations) -> None:
    size, budget, replicas = sizes.expert_bytes, sizes.constraints.extra_bytes, sizes.constraints.extra_replicas
    pointer = "/constraints/extra_bytes"
    if budget is None:
        return
    if budget < 0:
        found.add("extra_bytes_range", pointer, f"A budget of {budget} bytes.", "Give at least 0, or leave it out.")
    if size is None:
        detail = "A budget of replicas in bytes needs the size of an expert."
        found.add("no_expert_bytes", pointer, detail, "Give expert_bytes, or extra_replicas in place of extra_bytes.")
    elif size > 0 and replicas is not None and replicas != budget // size:
        detail = f"{budget} bytes are {budget // size} replicas of {size} bytes, but extra_replicas is {replicas}."
        found.add("replica_budgets_differ", pointer, detail, "Leave one of the two out.")


def _check_item(sizes: Sizes, found: Violations, pointer: str, layer_id: int | None, experts: tuple[int, ...]) -> None:
    if layer_id is not None and layer_id not in sizes.layer_row:
        detail = f"Layer {layer_id} is not one of {runs(sizes.layer_ids.tolist())}."
        found.add("layer_unknown", f"{pointer}/layer_id", detail, "Use the model's layer ids.")
    for expert in experts:
        if found.enough():
            return
        if not 0 <= expert < sizes.num_experts:
            detail = f"Expert {expert} is not in 0..{sizes.num_experts - 1}."
            found.add("expert_range", f"{pointer}/expert", detail, "Correct the expert.")


def _check_conflicts(sizes: Sizes, found: Violations) -> None:
    """Report pins that contradict exclusions, capacities, groups or each other."""
    constraints = sizes.constraints
    pinned = sizes.pinned
    for number, pin in enumerate(constraints.pins):
        if found.enough():
            return
        rows = sizes.rows_of(pin)
        if not np.all(sizes.allowed[rows, pin.expert, pin.gpu]):
            detail = f"Expert {pin.expert} is pinned to GPU {pin.gpu} and forbidden there."
            found.add("pin_forbidden", f"/constraints/pins/{number}", detail, "Remove one of the two.")
    for layer, gpu in np.argwhere(pinned.sum(axis=1) > sizes.capacity)[:8]:
        detail = f"Layer {sizes.layer_ids[layer]} pins more experts to GPU {gpu} than it has slots."
        found.add("pins_exceed_slots", "/constraints/pins", detail, "Pin fewer, or add slots.")
    extra = np.maximum(pinned.sum(axis=2), 1).sum(axis=1)
    for layer in np.flatnonzero(extra > sizes.capacity.sum())[:8]:
        needs = f"needs {extra[layer]} slots for pinned replicas and single experts."
        detail = f"Layer {sizes.layer_ids[layer]} {needs}"
        found.add("pins_exceed_slots", "/constraints/pins", detail, "Pin fewer replicas, or add slots.")
    for layer, expert in np.argwhere(~sizes.allowed.any(axis=2))[:8]:
        detail = f"Expert {expert} of layer {sizes.layer_ids[layer]} is forbidden on every GPU."
        found.add("forbidden_everywhere", "/constraints/forbidden", detail, "Leave it at least one GPU.")
    if not _check_overlap(sizes, found):
        return
    for number, group in enumerate(constraints.groups if constraints.pins else ()):
        row = None if group.layer_id is None else sizes.layer_row[group.layer_id]
        of_layers = pinned if row is None else pinned[row : row + 1]
        for members in of_layers[:, list(group.experts)]:
            there = np.flatnonzero(members.any(axis=0))
            if len(set(sizes.topology.node_of_gpu[there].tolist())) > 1:
                detail = "Pins put members of the group on different nodes."
                found.add("group_pins", f"/constraints/groups/{number}", detail, "Pin the members to one node.")
                break
        if found.enough():
            return


def _check_overlap(sizes: Sizes, found: Violations) -> bool:
    """Report experts that are in two groups of a layer, once for each two groups; return whether there are none."""
    everywhere: dict[int, int] = {}  # by expert, the group of all layers that has it
    somewhere: dict[int, dict[int, int]] = {}  # by expert and layer, the group of this layer
    clean = True
    for number, group in enumerate(sizes.constraints.groups):
        for expert in group.experts:
            layers, layer = somewhere.setdefault(expert, {}), group.layer_id
            first = everywhere.get(expert)
            if first is None:
                first = next(iter(layers.values()), None) if layer is None else layers.get(layer)
            if layer is None:
                everywhere.setdefault(expert, number)
            else:
                layers.setdefault(layer, number)
            if first is None or first == number:
                continue
            clean = False
            detail = f"Expert {expert} is in this group and in group {first}{_of_layer(layer)}."
            found.add("group_overlap", f"/constraints/groups/{number}", detail, "Join the groups.")
            break
        if found.enough():
            return False
    return clean


def _of_layer(layer: int | None) -> str:
    return "" if layer is None else f", in layer {layer}"
