"""What policies have in common: the series, its judges, plans from loads, and what it costs to move."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem, relabel
from placement.advice.sample import sample_passes
from placement.advice.timing import mean_step_ms
from placement.moves.cost import STALL_S, moves_between
from placement.moves.links import Links
from placement.problem.objective import SettledObjective
from placement.time import TimeModel
from placement.time.expected import expected_pass
from placement.time.step import travel_in_steps
from solvers.fronts.few import POINTS, few_moves, fewest_with_most
from solvers.judging.judge import Judge
from solvers.methods.eplb.solver import rebalance
from solvers.methods.load_balance.solver import balanced
from solvers.policies.machine import time_of
from solvers.policies.request import PolicyRequest
from solvers.study import Study
from traces import InputError, Profile, Series
from traces.model.shape import WEIGHT_BYTES
from traces.phases import PHASES

__all__ = ["Move", "Setting", "Step"]

Floats = npt.NDArray[np.float64]
Key = tuple[bytes, int]


@dataclass(frozen=True, kw_only=True)
class Move:
    """What it takes to go from one plan to another.

    Attributes
    ----------
    slots : int
        That hold another expert than before; 0: there is nothing to do.
    experts, bytes : int
        Sent to GPUs.
    ms : float
        The engine's stall and the transfers.
    """

    slots: int
    experts: int
    bytes: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """Time of a forward pass under a plan.

    Attributes
    ----------
    ms : float
    layer_ms : (L,) float64
        Dispatch, experts and combine of each layer.
    """

    ms: float
    layer_ms: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A series and what plans on it take; times are kept, as policies ask for the same ones.

    Attributes
    ----------
    series : Series
    request : PolicyRequest
    problem : Problem
        Of the first window; those of others differ in the profile.
    time : TimeModel
    links : Links
    start : Plan
        That runs at first.
    judges : tuple of Judge
        Of each window; empty where there are only counts.
    notes : tuple of str
    """

    series: Series
    request: PolicyRequest
    problem: Problem
    time: TimeModel
    links: Links
    start: Plan
    judges: tuple[Judge, ...]
    notes: tuple[str, ...]
    _steps: dict[Key, Step] = field(default_factory=dict)

    @classmethod
    def of(cls, series: Series, request: PolicyRequest) -> Setting:
        """Put a setting together.

        Raises
        ------
        InputError
            If series, machine, model and plan do not fit each other.
        """
        time, topology, notes = time_of(series, request)
        slots = request.slots_per_gpu if request.plan is None else request.plan.slots_per_gpu
        study = Study.of(
            series.counts(series.windows[0].load, f"Window {series.windows[0].name}."),
            topology=topology,
            engine=request.engine,
            slots_per_gpu=slots,
            redundant_experts=request.redundant_experts,
        )
        start = request.plan or study.baseline
        assert start is not None  # no constraint is asked for
        study.problem.table_of(start)
        if start.layer_ids.tolist() != series.layer_ids.tolist():
            detail = "Plan and series have other layers."
            raise InputError.of("layers_differ", "/plan/layer_ids", detail, "Give a plan of the same layers.")
        return cls(
            series=series,
            request=request,
            problem=study.problem,
            time=time,
            links=Links.of_machine(time.machine),
            start=start,
            judges=_judges(series, time, study.problem.engine),
            notes=(*notes, *_other_phase(series, request)),
        )

    def plan(self, shares: Floats) -> Plan:
        """Return a plan that balances shares of loads, (L, E)."""
        problem = self._problem(shares)
        spare = int(problem.capacity.sum()) - problem.num_experts
        return problem.plan(balanced(problem, spare))

    def eplb(self, shares: Floats) -> Plan:
        """Return the plan of the engines' own balancer, global policy."""
        table = rebalance(
            shares, num_slots=self.problem.num_slots, num_groups=1, num_nodes=1, num_gpus=self.problem.num_gpus
        )
        return self.problem.plan(table)

    def _problem(self, shares: Floats) -> Problem:
        counts = self.series.counts(shares * SCALE, "Loads to plan for.")
        return replace(self.problem, profile=Profile.of(counts))

    def settled(self, running: Plan, target: Plan) -> Plan:
        """Return the target under the names of GPUs that move least from the plan that runs."""
        return relabel(self.problem, running, target).plan

    def fewer_moves(self, running: Plan, target: Plan, shares: Floats) -> tuple[Plan, Plan]:
        """Return plans on the way to one for shares (L, E): the fewest moves with most of the gain there, and the best.

        Parameters
        ----------
        running, target : Plan
            The target under the names that move least.
        shares : (L, E) float64
        """
        problem = self._problem(shares)
        start, end = (np.asarray(plan.physical_to_logical_map, np.int32) for plan in (running, target))
        plans = [problem.plan(table) for table in few_moves(problem, start, [end], POINTS)]
        plans.sort(key=lambda plan: self.move(running, plan).experts)
        found = np.array([self.expected(plan, shares).ms for plan in plans])
        return plans[fewest_with_most(found[0] - found)], plans[int(found.argmin())]

    def move(self, running: Plan, target: Plan) -> Move:
        """Return what it takes to go from one plan to another; nothing where they are the same."""
        before, after = running.physical_to_logical_map, target.physical_to_logical_map
        slots = int((before != after).sum())
        if not slots:
            return Move(slots=0, experts=0, bytes=0, ms=0.0)
        size = round(self.time.model.shape.expert_weights * WEIGHT_BYTES[self.time.weight_dtype])
        nodes = self.time.machine.nodes
        moves = moves_between(before, after, running.num_experts, nodes, size)
        transfer, bytes_ = moves.transfer_s(self.links), moves.bytes
        assert transfer is not None  # the links are the machine's
        assert bytes_ is not None
        return Move(slots=slots, experts=moves.experts, bytes=bytes_, ms=self.stall_ms + 1e3 * transfer)

    @property
    def stall_ms(self) -> float:
        """What a re-plan stops the engine for."""
        return 1e3 * STALL_S if self.request.stall_ms is None else self.request.stall_ms

    def step(self, plan: Plan, window: int) -> Step:
        """Return the time of a pass of a window under a plan, on the window's own tokens or counts."""
        key = (plan.physical_to_logical_map.tobytes(), window)
        if key not in self._steps:
            if self.judges:
                times = self.judges[window].times(plan)
                layers = (times.dispatch + times.experts + times.combine).mean(axis=0)
                self._steps[key] = Step(ms=mean_step_ms(self.time, times), layer_ms=layers)
            else:
                self._steps[key] = self.expected(plan, self.series.windows[window].shares)
        return self._steps[key]

    def expected(self, plan: Plan, shares: Floats) -> Step:
        """Return the time of a pass of which only shares of loads, (L, E), are known."""
        load = expected_pass(
            plan,
            shares,
            tokens=self.time.pass_tokens,
            top_k=self.time.model.shape.top_k,
            dedup=self.time.dedup,
        )
        times = self.time.layer_times(load)
        return Step(ms=self.time.step_ms(times), layer_ms=times.dispatch + times.experts + times.combine)


SCALE = 1e6  # counts to plan for, per layer: a power of ten far above the number of experts


def _other_phase(series: Series, request: PolicyRequest) -> tuple[str, ...]:
    """Return a note where tokens of the other phase stand for those of the one that is timed."""
    total = other = 0
    for window in series.windows:
        if window.tokens is None or "phase" not in window.tokens.columns:
            return ()
        for batch in window.tokens.batches():
            total += len(batch)
            other += int((np.asarray(batch.phase) != PHASES[request.phase]).sum())
    if not other:
        return ()
    return (f"{other / total:.0%} of the tokens are of another phase, and stand for {request.phase}.",)


def _judges(series: Series, time: TimeModel, engine: str | None) -> tuple[Judge, ...]:
    made = []
    for window in series.windows:
        if window.tokens is None:
            return ()
        travel: SettledObjective = travel_in_steps(window.tokens, time, engine, None, None, None)
        sample = sample_passes(window.tokens, time.pass_tokens, time.phase)
        made.append(Judge(time=time, sample=sample, travel=travel))
    return tuple(made)
