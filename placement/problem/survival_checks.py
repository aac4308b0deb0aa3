"""Whether what is to survive can, with these slots: what is missing is told with its arithmetic."""

from __future__ import annotations

from typing import get_args

import numpy as np

from placement.problem.sizes import Sizes
from placement.survival.domains import domain_name, failure_domains
from placement.survival.least import all_survive, least_lost, slots_needed
from placement.survival.rule import SurvivalRule
from placement.survival.survive import FailureUnit, Survive
from traces import Violations

__all__ = ["check_survive"]

POINTER = "/constraints/survive"


def check_survive(sizes: Sizes, found: Violations) -> None:
    """Record what can't survive, what is out of range, and what the rule can't be combined with."""
    asked = sizes.constraints.survive
    if asked is None:
        return
    if not _in_range(asked, found):
        return
    constraints = sizes.constraints
    if sizes.replica_budget is not None:
        beside = "extra_bytes" if constraints.extra_replicas is None else "extra_replicas"
        detail = f"What is to survive asks for copies in every layer, and {beside} takes them from some."
        found.add("survive_beside", f"/constraints/{beside}", detail, "Leave one of the two out.")
    nodes = asked.unit == "nodes" or (asked.unit == "links" and sizes.topology.num_nodes > 1)
    if constraints.groups and nodes and asked.lost == 0:
        detail = "A group keeps all copies of its experts on one node, which takes them along when it fails."
        remedy = "Leave one of the two out, or allow the loss of a group's experts: lost=N."
        found.add("survive_beside", "/constraints/groups", detail, remedy)
    name = domain_name(sizes.topology, asked.unit)
    domains = len(np.unique(failure_domains(sizes.topology, asked.unit)))
    if domains <= asked.failures:
        detail = f"{asked.failures} of {domains} {name}s fail: none would be left."
        remedy = f"Let at most {domains - 1} fail." if domains > 1 else "Choose a smaller unit, such as gpus."
        found.add("survive_none_left", f"{POINTER}/failures", detail, remedy)
        return
    if int(sizes.capacity.sum()) < sizes.num_experts:
        return  # told already
    rule = sizes.survival
    assert rule is not None
    _check_room(sizes, rule, asked, name, found)


def _in_range(asked: Survive, found: Violations) -> bool:
    before = found.count
    if asked.unit not in get_args(FailureUnit):
        detail = f"{asked.unit!r} is not one of {list(get_args(FailureUnit))}."
        found.add("unknown_choice", f"{POINTER}/unit", detail, "Choose one of them.")
    if asked.failures < 1:
        found.add("failures_range", f"{POINTER}/failures", f"{asked.failures} failures.", "Give at least 1.")
    if asked.lost is not None and asked.lost < 0:
        found.add("lost_range", f"{POINTER}/lost", f"{asked.lost} experts.", "Give at least 0.")
    if asked.failures > 1 and asked.lost != 0:
        detail = f"A loss is bounded for one failure at a time, but {asked.failures} fail."
        found.add("lost_range", f"{POINTER}/lost", detail, "Leave lost out, or let one fail.")
    return found.count == before


def _check_room(sizes: Sizes, rule: SurvivalRule, asked: Survive, name: str, found: Violations) -> None:
    """Record too few slots, with how many are missing and what can be had instead."""
    experts, copies, slots = sizes.num_experts, rule.failures + 1, int(sizes.capacity.sum())
    if rule.lost == 0:
        if all_survive(rule.room, experts, rule.failures):
            return
        detail = f"{experts} experts on {copies} {name}s each need {copies * experts} slots in a layer; "
        detail += _have(rule, experts, name)
        alone = experts - (slots - experts) // rule.failures
        if alone > 0:
            detail += f", so at least {alone} experts have fewer copies"
        detail += "."
    else:
        least = least_lost(rule.room, experts)
        if least <= rule.lost:
            return
        detail = f"With {slots} slots for {experts} experts, some {name} holds {least} experts or more that no other "
        detail += f"{name} has; {rule.lost} may be lost."
    remedies = []
    needed = slots_needed(rule.domain, experts, rule.failures)
    if needed is not None and sizes.topology.slots is None:
        redundant = needed * sizes.num_gpus - experts
        remedies.append(f"give {redundant} redundant experts ({needed} slots per GPU) for all to survive")
    if rule.failures == 1:
        remedies.append(f"allow the loss of {least_lost(rule.room, experts)} experts of a layer: lost=least")
    remedy = ", or ".join(remedies) or "use more slots"
    found.add("survive_too_few_slots", POINTER, detail, f"{remedy[0].upper()}{remedy[1:]}.")


def _have(rule: SurvivalRule, experts: int, name: str) -> str:
    slots, useful = int(rule.room.sum()), int(np.minimum(rule.room, experts).sum())
    few = "" if useful == slots else f", of which {useful} help, as a {name} needs no expert twice"
    return f"there are {slots} on {len(rule.room)}{few}"
