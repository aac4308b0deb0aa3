"""EPLB: the plan of its README, what each policy does to nodes and balance, and what SGLang gained by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import placement
from benchmarks.outcomes import LAYERS, Setting, loads_of, popular
from benchmarks.reproduce._rows import Row, bisected
from placement.time import TimeModel, step_time
from solvers.methods.eplb.solver import rebalance
from traces import Profile, Trace
from traces.synthetic import Synthetic, generate

__all__ = ["rows"]

# The example of the README: loads of 12 experts in two layers, and the plan that it prints for 16 slots.
LOADS = ((90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86), (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27))
PRINTED = ((5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1), (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1))
GROUPS, SLOTS = 8, 288
SGLANG = {"prefill": 1.49, "decode": 2.54}
MOST_NODES = {("hierarchical", 8): 4, ("global", 8): 8, ("hierarchical", 4): 4}  # the issue
PHASES = {4: "prefill", 8: "decode"}  # by number of nodes
POLICIES = {"hierarchical": GROUPS, "global": 1}


def same_slots() -> int:
    """Return how many slots of the README's plan hold the same expert here."""
    here = rebalance(np.array(LOADS), num_slots=16, num_groups=4, num_nodes=2, num_gpus=8)
    return int((np.asarray(here) == np.array(PRINTED)).sum())


def sglang(phase: Any, exponent: float) -> float:
    """Return how many times faster a step is under EPLB than with slot s holding expert s modulo E."""
    trace = popular(256, 8, exponent)
    machine, tokens = {"prefill": ("h100:4x8", 16_384), "decode": ("h100:9x8", 256)}[phase]
    asked: dict[str, Any] = {"framework": "sglang", "overlap": "two_batch", "tokens_per_gpu": tokens}
    here = Setting.of(machine, "deepseek-v3", trace, phase=phase, **asked)
    nodes, gpus = here.time.machine.num_nodes, here.time.machine.num_gpus
    groups = GROUPS if GROUPS % nodes == 0 else 1
    sizes = {"num_slots": SLOTS, "num_groups": groups, "num_nodes": nodes if groups > 1 else 1, "num_gpus": gpus}
    first = here.plan(np.tile(np.arange(SLOTS) % 256, (LAYERS, 1)))
    return here.step(first) / here.step(here.plan(rebalance(loads_of(trace), **sizes)))


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """What a policy's plan does on tokens held out."""

    remote: float
    balance: float
    step_ms: float
    most: int

    @classmethod
    def of(cls, policy: str, nodes: int, load: Any, held_out: Trace) -> Dealt:
        """Place 256 experts on nodes of 8 GPUs, with 32 redundant experts or one per GPU."""
        groups, gpus = POLICIES[policy], 8 * nodes
        sizes = {"num_groups": groups, "num_nodes": nodes if groups > 1 else 1, "num_gpus": gpus}
        table = rebalance(load, num_slots=256 + max(32, gpus), **sizes)
        plan = placement.Plan.of(table, layer_ids=range(LAYERS), num_experts=256, gpus_per_node=(8,) * nodes)
        phase: Any = PHASES[nodes]
        time = replace(TimeModel.of(f"h800:{nodes}x8", "deepseek-v3", phase=phase), dense_layers=0)
        travel: dict[str, Any] = {"execution": "dispatch", "dedup": "node", "ownership": "token"}
        found = placement.evaluate(plan, held_out, placement.Topology.parse(f"{nodes}x8"), **travel)
        return cls(
            remote=found.remote_nodes or 0.0,
            balance=found.imbalance_max_over_mean,
            step_ms=step_time(plan, held_out, time).step_ms,
            most=most_nodes(plan, held_out),
        )


def most_nodes(plan: placement.Plan, trace: Trace) -> int:
    """Return the most nodes that a token's experts of a layer are on, taking the first replica of each."""
    table, size = plan.physical_to_logical_map, plan.slots_per_gpu * 8
    most = 0
    for layer in range(plan.num_layers):
        first = np.full(plan.num_experts, -1)
        for slot in reversed(range(table.shape[1])):
            first[table[layer, slot]] = slot // size
        for batch in trace.batches():
            nodes = np.sort(first[batch.topk_ids[:, layer].astype(np.int64)], axis=1)
            most = max(most, int((1 + (np.diff(nodes, axis=1) != 0).sum(axis=1)).max()))
    return most


def rows(tokens: int = 16_384) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of the trace with groups; half are fitted.
    """
    made = Synthetic(num_layers=LAYERS, num_experts=256, top_k=8, num_tokens=tokens, groups=GROUPS, group_limit=4)
    fit, held_out = generate(made).split(0.5)
    load = Profile.of(fit).load
    dealt = {(policy, nodes): Dealt.of(policy, nodes, load, held_out) for nodes in PHASES for policy in POLICIES}
    exponent = bisected(lambda value: sglang("prefill", value), SGLANG["prefill"], 0.3, 0.9, 8)
    found = [Row(what="README's example: slots as printed, of 32", printed=32, here=same_slots(), form="{:.0f}")]
    for (policy, nodes), printed in MOST_NODES.items():
        what = f"{policy}, {nodes} nodes: most nodes of a token"
        found.append(Row(what=what, printed=printed, here=dealt[policy, nodes].most, form="{:.0f}"))
    for (policy, nodes), item in dealt.items():
        step = f"{PHASES[nodes]}, ms of {LAYERS} layers"
        for name, value in (("remote nodes", item.remote), ("busiest GPU / mean", item.balance), (step, item.step_ms)):
            found.append(Row(what=f"{policy}, {nodes} nodes: {name}", printed=None, here=value))
    found.append(Row(what="exponent of popularity, SGLang", printed=None, here=exponent, fitted=True))
    for phase, printed in SGLANG.items():
        what, fitted = f"SGLang, {phase}: times faster", phase == "prefill"
        found.append(Row(what=what, printed=printed, here=sglang(phase, exponent), fitted=fitted))
    return found
