"""What plans make of counts: the expected loads of the whole profile, of a part, and of each dump over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from placement import ExpectedLoads, Plan, Problem, Topology, expected_loads
from placement.cost.shares import expected_gpu_load
from traces import CountsDump, LoadCounts
from traces.support.content import ByContent

__all__ = ["DumpFigures", "dump_loads", "expected_load", "loads_of_dumps", "loads_of_parts"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DumpFigures(ByContent):
    """A plan on the counts of one point in time.

    Attributes
    ----------
    name : str
        Of the dump.
    part : str
        ``fit`` or ``held_out``.
    loads : ExpectedLoads
    """

    name: str
    part: str
    loads: ExpectedLoads

    def __repr__(self) -> str:
        return f"{self.name} ({self.part}): busiest GPU {self.loads.imbalance_max_over_mean:.4f}"


def loads_of_parts(problem: Problem, plan: Plan, counts: Mapping[str, LoadCounts]) -> dict[str, ExpectedLoads]:
    """Return the expected loads by part."""
    policy = problem.objective.replica_policy
    return {
        part: expected_loads(plan, loads, problem.topology, replica_policy=policy) for part, loads in counts.items()
    }


def loads_of_dumps(problem: Problem, plan: Plan, counts: Mapping[str, LoadCounts]) -> tuple[DumpFigures, ...]:
    """Return the figures of each dump; one is held at a time."""
    return tuple(
        DumpFigures(name=dump.name, part=part, loads=loads)
        for part, whole in counts.items()
        for dump, loads in dump_loads(plan, whole, problem.topology, problem.objective.replica_policy)
    )


def dump_loads(
    plan: Plan, counts: LoadCounts, topology: Topology, replica_policy: str
) -> Iterator[tuple[CountsDump, ExpectedLoads]]:
    """Yield the dumps of counts with the loads that a plan has at that time; dumps without any count are left out."""
    for dump in counts.dumps:
        load = dump.read()
        there = load.any(axis=1)
        if not there.any():
            continue
        alone = replace(counts, load=load[there], layer_ids=counts.layer_ids[there], dumps=())
        yield dump, expected_loads(plan, alone, topology, replica_policy=replica_policy)


def expected_load(problem: Problem, plan: Plan) -> dict[str, float]:
    """Return the load figures that follow from the profile, without any token."""
    load = expected_gpu_load(problem, plan.replicas_on_gpu) * problem.topology.fair_share  # shares of a layer's, (L, G)
    largest = load.max(axis=1) * problem.num_gpus  # mean over GPUs is 1 / G
    return {
        "imbalance_max_over_mean": float(largest.mean()),
        "balancedness_whole_trace": float(len(largest) / largest.sum()),
    }
