"""What a re-plan is made from: the machine as it is, what its GPUs hold, the problem there, and who judges plans."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, Topology, prove_survival
from placement.advice.sample import sample_passes
from placement.cost.feasibility import broken_constraints
from placement.moves.carry import Carried, carry, machine_without, topology_without
from placement.moves.cost import Moves, moves_between
from placement.moves.links import Links
from placement.replay.choices import recorded_topology
from placement.time import Machine, TimeModel
from placement.time.step import check_fit, travel_in_steps
from solvers.judging.judge import FITTED
from solvers.replanning.counted import CountsTimeMeasure, shares_of
from solvers.replanning.judging import (
    Measure,
    ScoreMeasure,
    TimeMeasure,
    groups_of_counts,
    groups_of_trace,
    thinned,
)
from solvers.replanning.repair import repaired
from solvers.replanning.request import ReplanRequest
from solvers.study import Study
from traces import InputError, LoadCounts, Profile, Trace, Violations
from traces.model.presets import load_model
from traces.phases import phase_or_all

__all__ = ["Setting", "check_outset"]

Table = npt.NDArray[np.int32]
ASKED = ("forbidden", "pin_missed", "group_split", "extra_replicas_exceeded")  # rules that a request adds to a plan's
EXPECTED = "Only loads are known: the pass is the expected one, whose tokens choose their experts independently."


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a re-plan is made from.

    Attributes
    ----------
    request : ReplanRequest
    carried : Carried
        What the GPUs hold that are there.
    running : Plan or None
        The plan that runs, on these GPUs; None where it has lost experts.
    problem : Problem
        Of the fitted part, on these GPUs.
    measure : Measure
    start : (L, S) int32 or None
        A plan of the problem that is near to what runs; None where that breaks a constraint.
    links : Links or None
    predecessor : str
        SHA-256 of the layers and the map of the plan that runs.
    broken : tuple of str
        What is asked that the plan that runs does not keep, in sentences.
    notes : tuple of str
    """

    request: ReplanRequest
    carried: Carried
    running: Plan | None
    problem: Problem
    measure: Measure
    start: Table | None
    links: Links | None
    predecessor: str
    broken: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        running: Plan,
        source: Trace | LoadCounts | Profile,
        request: ReplanRequest,
        workers: int | None,
    ) -> Setting:
        """Read the source, carry the plan over to the machine, and state the problem there.

        Raises
        ------
        InputError
        """
        links, carried, slots, notes = _outset(running, request)
        time = request.time_model()
        size = _expert_bytes(running, request)
        counts, held_counts = source, None
        if isinstance(source, LoadCounts) and not source.dumps:
            if request.hold_out_by is not None:
                detail = "Counts of one time have nothing to hold out by: a part of them is drawn at random."
                raise InputError.of("without_effect", "/hold_out_by", detail, "Leave it out, or give several dumps.")
            counts, held_counts = thinned(source, 1 - (request.hold_out or 0.5), request.seed)
            request = replace(request, hold_out=None, hold_out_by=None)
            notes = (*notes, "Counts of one time: half of them, drawn at random, judge; how traffic changes they hide.")
        elif isinstance(source, Trace) and time is not None and "phase" in source.columns:
            counts, told = phase_or_all(source, request.timed_phase)
            notes = (*notes, *told)
        study = Study.of(counts, request=request.planning(carried.topology, slots, size), workers=workers)
        problem = study.problem
        _check_running(running, problem.profile.layer_ids.tolist(), problem.num_experts)
        here = None if len(carried.lost) else _on_machine(carried, problem)
        measure: Measure
        if time is not None and study.fit is not None:
            measure = _time_measure(study, time, here, request)
            notes = (*notes, *time.notes)
        else:
            measure = _score_measure(study, held_counts, request.seed)
            if time is not None:
                _check_model(problem, time)
                measure = _counts_measure(measure, time)
                notes = (*notes, EXPECTED, *time.notes)
        return cls(
            request=request,
            carried=carried,
            running=here,
            problem=problem,
            measure=measure,
            start=repaired(problem, carried),
            links=links,
            predecessor=_digest(running),
            broken=() if here is None else _broken(here, problem),
            notes=notes,
        )

    @property
    def step_experts(self) -> int | None:
        """Experts that a step may send; None for no limit."""
        request, size = self.request, self.problem.expert_bytes
        if request.step_bytes is not None and size is not None:
            return max(1, request.step_bytes // size)
        return request.step_experts

    def moves(self, table: npt.NDArray[np.integer[Any]]) -> Moves:
        """Return what the GPUs have to be sent for a map."""
        node = self.carried.topology.node_of_gpu
        return moves_between(self.carried.table, table, self.problem.num_experts, node, self.problem.expert_bytes)


def _machine(running: Plan, request: ReplanRequest) -> tuple[Topology, Links | None]:
    """Return all ranks, dead ones included, and the links of those that are left."""
    speed = request.checkpoint_gb_s
    if request.machine is not None:
        machine = Machine.parse(request.machine)
        left = machine_without(machine, request.dead_gpus)
        whole = replace(request, dead_gpus=()).time_model()
        here = machine.topology() if whole is None else whole.topology
        return here, Links.of_machine(left, checkpoint_gb_s=speed)
    topology = request.topology
    if topology is None:
        topology = recorded_topology(running) or Topology.of(running.gpus_per_node)
    assert isinstance(topology, Topology)
    return topology, Links.of(topology_without(topology, request.dead_gpus), checkpoint_gb_s=speed)


def _slots(carried: Carried, request: ReplanRequest) -> tuple[int, tuple[str, ...]]:
    """Return slots per GPU from now on, and a note where they are more than were asked for or ran."""
    gpus, experts = len(carried.rank_before), carried.num_experts
    if request.slots_per_gpu is not None:
        return request.slots_per_gpu, ()
    if request.redundant_experts is not None:
        total = experts + request.redundant_experts
        if total % gpus:
            detail = f"{total} slots can't be shared evenly by {gpus} GPUs."
            remedy = f"Give {-(-total // gpus) * gpus - experts} redundant experts, say."
            raise InputError.of("redundant_experts_split", "/redundant_experts", detail, remedy)
        return total // gpus, ()
    least = -(-experts // gpus)
    if carried.slots_per_gpu >= least:
        return carried.slots_per_gpu, ()
    return least, (f"{carried.slots_per_gpu} slots on each of {gpus} GPUs do not hold {experts} experts: {least} do.",)


def _expert_bytes(running: Plan, request: ReplanRequest) -> int | None:
    if request.model is not None:
        return round(load_model(request.model).shape.expert_gb * 1e9)
    if request.expert_bytes is not None:
        return request.expert_bytes
    recorded = running.provenance.get("expert_bytes")
    return recorded if isinstance(recorded, int) and recorded > 0 else None


def _digest(plan: Plan) -> str:
    table = plan.physical_to_logical_map
    content = f"{plan.layer_ids.tolist()} {table.shape}".encode() + table.astype("<i4").tobytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_outset(running: Plan, request: ReplanRequest, layer_ids: list[int], num_experts: int) -> None:
    """Check what can be checked before the source is read: machine, dead GPUs, slots; layers and experts.

    Raises
    ------
    InputError
    """
    _outset(running, request)
    _check_running(running, layer_ids, num_experts)


def _outset(running: Plan, request: ReplanRequest) -> tuple[Links | None, Carried, int, tuple[str, ...]]:
    topology, links = _machine(running, request)
    carried = carry(running, topology, request.dead_gpus)
    return links, carried, *_slots(carried, request)


def _check_running(running: Plan, layer_ids: list[int], num_experts: int) -> None:
    found = Violations()
    if running.num_experts != num_experts:
        detail = f"The plan has {running.num_experts} experts, the trace {num_experts}."
        found.add("plan_differs", "/running/num_experts", detail, "Give the plan and the trace of one model.")
    if running.layer_ids.tolist() != layer_ids:
        detail = f"The plan has {running.num_layers} layers, which are not the {len(layer_ids)} of the trace."
        found.add("plan_differs", "/running/layer_ids", detail, "Give the plan and the trace of one model.")
    found.raise_if_any()


def _on_machine(carried: Carried, problem: Problem) -> Plan:
    return Plan.of(
        carried.table,
        layer_ids=problem.profile.layer_ids,
        num_experts=problem.num_experts,
        gpus_per_node=carried.topology.gpus_per_node,
    )


def _broken(running: Plan, problem: Problem) -> tuple[str, ...]:
    """Say what is asked that a plan does not keep; with other slots than it has, survival alone."""
    survive, found = problem.constraints.survive, list[str]()
    if survive is not None:
        proof = prove_survival(running, problem.topology, survive)
        if not proof.survives:
            found.append(f"The plan that runs: {proof.sentence[0].lower()}{proof.sentence[1:]}")
    if running.slots_per_gpu == problem.slots_per_gpu:
        faults = broken_constraints(problem, running.physical_to_logical_map).found
        found += [f"The plan that runs breaks what is asked: {fault.detail}" for fault in faults if fault.code in ASKED]
    return tuple(found)


def _time_measure(study: Study, time: TimeModel, running: Plan | None, request: ReplanRequest) -> TimeMeasure:
    assert study.fit is not None
    trace = study.fit
    if running is not None:
        check_fit(running, trace, time)
    held = trace if study.held_out is None else study.held_out
    return TimeMeasure(
        time=time,
        travel=travel_in_steps(trace, time, study.problem.engine, None, None, None),
        fit=sample_passes(trace, time.pass_tokens, request.timed_phase, max_passes=FITTED),
        held=sample_passes(held, time.pass_tokens, request.timed_phase),
        held_out=study.held_out is not None,
        top_k=trace.top_k,
        num_experts=trace.num_experts,
        seed=request.seed,
    )


def _counts_measure(score: ScoreMeasure, time: TimeModel) -> CountsTimeMeasure:
    """Return what judges the same parts in milliseconds."""
    fit = shares_of(score.problem.profile)
    return CountsTimeMeasure(
        time=time,
        fit=fit,
        held=fit if score.held is None else shares_of(score.held),
        groups=tuple(shares_of(group) for group in score.groups),
        choices=score.choices,
    )


def _check_model(problem: Problem, time: TimeModel) -> None:
    if time.model.shape.num_experts != problem.num_experts:
        detail = f"{time.model.name} has {time.model.shape.num_experts} experts, the trace {problem.num_experts}."
        raise InputError.of("experts_differ", "/model", detail, "Name the model that was recorded.")


def _score_measure(study: Study, held_counts: LoadCounts | None, seed: int) -> ScoreMeasure:
    """Return what judges by the score: tokens that are held out, the last dumps, or half of the counts."""
    held: Trace | LoadCounts | None = study.held_out
    if held is None:
        held = study.counts.get("held_out", held_counts)
    if held is None:
        return ScoreMeasure(problem=study.problem, held=None, groups=(), choices=0.0)
    profile = Profile.of(held)
    groups = groups_of_counts(held, seed) if isinstance(held, LoadCounts) else groups_of_trace(held)
    choices = float(np.asarray(profile.load).sum(axis=1).mean())
    return ScoreMeasure(problem=study.problem, held=profile, groups=groups, choices=choices)
