"""The front between hierarchical and global EPLB, on tokens that no plan has seen.

Run: ``python benchmarks/front.py [--time-limit S] [--points N]``. Routing limited to 4 of 8 groups, as DeepSeek-V3 has
it: hierarchical EPLB saves messages between nodes, global EPLB balances. Target: at least five plans strictly between
the two, each with fewer remote nodes than the straight line between them has at the same imbalance.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from _harness import Neighbours, available_cores, conditions, table

import placement
import solvers
import traces
from solvers.methods.eplb.solver import Eplb
from traces.synthetic import Synthetic, generate

GROUPS, TOPOLOGY, SLOTS, SEED = 8, "8x8", 5, 0
TARGET = 5
HEADER = ["", "traffic, fitted", "max/mean, fitted", "max/mean", "remote nodes", "the line's", "between", "better"]


@dataclass(frozen=True)
class Place:
    """A plan on held-out tokens: the busiest GPU by the mean, and remote nodes per token and layer."""

    imbalance: float
    remote_nodes: float


def place(plan: placement.Plan, held: traces.Trace, topology: placement.Topology) -> Place:
    """Replay the held-out tokens."""
    verdict = placement.evaluate(plan, held, topology, execution="dispatch", dedup="node")
    assert verdict.remote_nodes is not None
    return Place(verdict.imbalance_max_over_mean, verdict.remote_nodes)


def line_at(imbalance: float, balanced: Place, frugal: Place) -> float:
    """Return the remote nodes of the straight line between two plans; beyond its ends, that of the end."""
    share = (imbalance - balanced.imbalance) / (frugal.imbalance - balanced.imbalance)
    return balanced.remote_nodes + min(1.0, max(0.0, share)) * (frugal.remote_nodes - balanced.remote_nodes)


def is_between(item: Place, balanced: Place, frugal: Place) -> bool:
    """Whether the imbalance is strictly between those of the two plans."""
    return balanced.imbalance < item.imbalance < frugal.imbalance


def main() -> None:
    """Print every point of the front beside the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for the front (default: %(default)s)")
    parser.add_argument("--points", type=int, default=16, help="most points (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="MoE layers (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=40_000, help="tokens, half held out (default: %(default)s)")
    given = parser.parse_args()
    params = Synthetic(
        num_layers=given.layers,
        num_experts=256,
        top_k=8,
        num_tokens=given.tokens,
        groups=GROUPS,
        group_limit=4,
        seed=SEED,
    )
    data = f"synthetic, {given.layers} x 256, top-8, 4 of 8 groups, {SLOTS} slots on {TOPOLOGY}, node-limited dispatch"
    print(conditions(data, SEED, f"{available_cores()} threads, {given.time_limit:g} s for the front"))
    neighbours = Neighbours()
    fit, held = generate(params).split(0.5)
    topology = placement.Topology.parse(TOPOLOGY)
    objective = placement.Objective(execution="dispatch", dedup="node")
    problem = placement.Problem(traces.Profile.of(fit), topology, SLOTS, objective)
    ends = {
        "global EPLB": solvers.solve(problem, Eplb(policy="global")).plan,
        "hierarchical EPLB": solvers.solve(problem, Eplb(policy="hierarchical", num_groups=GROUPS)).plan,
    }
    balanced, frugal = (place(plan, held, topology) for plan in ends.values())
    limits = solvers.Limits(time_s=given.time_limit)
    front = solvers.front(problem, limits=limits, points=given.points, seed=SEED, num_groups=GROUPS)
    rows, good = [], 0
    for name, plan in ends.items():
        found, terms = place(plan, held, topology), placement.score(problem, plan.physical_to_logical_map).terms
        figures = [terms[0].value, 1 + terms[1].value, found.imbalance, found.remote_nodes]
        rows.append([name, *(f"{figure:.3f}" for figure in figures), "-", "-", "-"])
    for number, point in enumerate(front.points, 1):
        found = place(point.plan, held, topology)
        line, between = line_at(found.imbalance, balanced, frugal), is_between(found, balanced, frugal)
        better = found.remote_nodes < line
        good += between and better
        name = f"point {number}" + (" (knee)" if point is front.knee else "")
        figures = [point.traffic, point.imbalance, found.imbalance, found.remote_nodes, line]
        rows.append(
            [name, *(f"{figure:.3f}" for figure in figures), *("yes" if is_so else "no" for is_so in (between, better))]
        )
    print(f"{front.elapsed_s:.1f} s; {neighbours}\n")
    print(table(HEADER, rows))
    verdict = "yes" if good >= TARGET else "NO"
    print(f"at least {TARGET} points strictly between the two and better than the line: {verdict}, {good}")


if __name__ == "__main__":
    main()
