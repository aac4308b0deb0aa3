"""What plans make of counts: the expected loads of the whole profile, of a part, and of each dump over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from placement import ExpectedLoads, Plan, Problem, Topology, expected_loads
from placement.cost.shares import expected_gpu_load
from placement.replay.choices import engine_choices, recorded_choices
from traces import CountsDump, LoadCounts, Violations
from traces.support.content import ByContent

__all__ = [
    "CountsFigures",
    "DumpFigures",
    "counts_figures",
    "dump_loads",
    "expected_load",
    "loads_of_dumps",
    "loads_of_parts",
    "refuse_token_options",
]

NEED_TOKENS = ("execution", "dedup", "ownership", "decode_batch", "pass_tokens")


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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CountsFigures(ByContent):
    """A plan on counts.

    Attributes
    ----------
    loads : ExpectedLoads
        Of all that was chosen.
    dumps : tuple of DumpFigures
        Of each point in time, where there are several.
    replica_policy : str
        Which replica a token takes.
    """

    loads: ExpectedLoads
    dumps: tuple[DumpFigures, ...]
    replica_policy: str

    def __repr__(self) -> str:
        return f"busiest GPU {self.loads.imbalance_max_over_mean:.4f}; {len(self.dumps)} dumps over time"

    def as_dict(self) -> dict[str, Any]:
        """Return what is JSON-ready: the policy, the loads, and those of the ``dumps`` by name."""
        listed = [{"name": dump.name} | dump.loads.as_dict() for dump in self.dumps]
        return {"replica_policy": self.replica_policy} | self.loads.as_dict() | {"dumps": listed}


def refuse_token_options(given: Mapping[str, Any]) -> None:
    """Refuse the options of a replay that have no effect on the loads that counts lead to.

    Parameters
    ----------
    given : mapping
        Options by the pointer to each, the name last; None, and no sizes of passes, are not given.

    Raises
    ------
    InputError
        With all of them.
    """
    found = Violations()
    for pointer, value in given.items():
        if value and pointer.rpartition("/")[2] in NEED_TOKENS:
            detail = "These are counts, whose expected loads don't depend on it."
            found.add("without_effect", pointer, detail, "Leave it out, or give a trace with tokens.")
    found.raise_if_any()


def counts_figures(
    plan: Plan,
    counts: LoadCounts,
    topology: Topology,
    part: str,
    *,
    engine: str | None = None,
    replica_policy: str | None = None,
) -> CountsFigures:
    """Return what a plan makes of counts, in all and at each time.

    Parameters
    ----------
    plan : Plan
    counts : LoadCounts
    topology : Topology
    part : str
        What the counts are of the source: ``all``, ``fit`` or ``held_out``.
    engine : str, optional
        Replicas are taken as this engine does.
    replica_policy : str, optional
        Wins; by default the engine's, else what the plan was made for, else ``fair``.

    Raises
    ------
    InputError
        If plan, counts and topology do not fit together, or there is no such engine or policy.
    """
    said, _ = engine_choices(engine, counts)
    recorded = recorded_choices(plan.provenance)
    policy = replica_policy or said.get("replica_policy") or recorded.get("replica_policy") or "fair"
    return CountsFigures(
        loads=expected_loads(plan, counts, topology, replica_policy=policy),
        dumps=tuple(
            DumpFigures(name=dump.name, part=part, loads=loads)
            for dump, loads in dump_loads(plan, counts, topology, policy)
        ),
        replica_policy=policy,
    )


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
