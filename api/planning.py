"""From a trace file to a plan and its figures: what the command line and the service have in common."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from api.figures import figures_of, measure
from placement import Constraints, Objective, Plan, Problem, Topology
from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy
from solvers import Limits, Solution, solve, solver_from
from solvers.searching.events import Observer
from solvers.source import Source as Source
from solvers.source import open_source as open_source
from solvers.source import split
from traces import InputError, Profile, Trace

__all__ = ["PlanRequest", "Prepared", "Source", "open_source", "prepare", "run", "summarise"]

NO_CONSTRAINTS = Constraints()
DEFAULT_LIMITS = Limits(time_s=10.0)


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Everything that is asked of a plan but the trace.

    Attributes
    ----------
    topology : Topology
    slots_per_gpu : int or None
        ``ceil(E / G)`` if None.
    solver : str
        Name; see `solvers.names`.
    options : mapping
        Parameters of the solver.
    execution, dedup, ownership : str
        See `placement.Objective`. `ownership` also decides the home ranks of the dispatch figures of a summary.
    replica_policy : str or None
        ``fair`` (context_coherent) or ``same_node`` (dispatch) if None.
    activated_weight, decode_batch : float, int
        See `placement.Objective`.
    constraints : Constraints
    expert_bytes : int or None
        See `placement.Problem`.
    hold_out : float or None
        Share of the sequences to hold out; 0 fits on everything. None: 0.5 if the source has tokens, else 0.
    limits : Limits
    seed : int
    start : Plan or None
        Plan to start from.
    """

    topology: Topology
    slots_per_gpu: int | None = None
    solver: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    execution: Execution = "context_coherent"
    dedup: Dedup = "gpu"
    ownership: Ownership = "token"
    replica_policy: ReplicaPolicy | None = None
    activated_weight: float = 0.0
    decode_batch: int = 128
    constraints: Constraints = NO_CONSTRAINTS
    expert_bytes: int | None = None
    hold_out: float | None = None
    limits: Limits = DEFAULT_LIMITS
    seed: int = 0
    start: Plan | None = None

    @property
    def objective(self) -> Objective:
        """Objective that the request asks for."""
        capped = self.constraints.load_cap is not None
        objective = Objective.for_execution(self.execution, self.dedup, capped=capped)
        return replace(
            objective,
            ownership=self.ownership,
            replica_policy=self.replica_policy or objective.replica_policy,
            activated_weight=self.activated_weight,
            decode_batch=self.decode_batch,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A checked problem and the tokens to judge its plans by.

    Attributes
    ----------
    problem : Problem
    fit : Trace or None
        Tokens behind the problem's profile; of a saved profile, its sample. None where there are only counts.
    held_out : Trace or None
        Tokens that the problem has not seen.
    notes : tuple of str
        What was inferred, dropped or selected on the way, as sentences.
    """

    problem: Problem
    fit: Trace | None
    held_out: Trace | None
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Trace]:
        """The parts that have tokens, by name: ``fit``, ``held_out``."""
        parts = {"fit": self.fit, "held_out": self.held_out}
        return {name: trace for name, trace in parts.items() if trace is not None}


def prepare(source: Source, request: PlanRequest, *, workers: int | None = None) -> Prepared:
    """Split the source, profile the part to fit and build the problem.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
    request : PlanRequest
    workers : int, optional
        Threads; all available cores by default.

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        If the source breaks a rule, or the request does not fit it.
    """
    solver_from(request.solver, dict(request.options))  # an unknown name is told before a long trace is read
    if request.slots_per_gpu is not None and request.slots_per_gpu < 1:
        detail = f"{request.slots_per_gpu} slots per GPU."
        raise InputError.of("slots_range", "/slots_per_gpu", detail, "Give at least 1, or leave it out.")
    fit, held_out, notes = split(source, request.hold_out)
    profile = source if isinstance(source, Profile) else Profile.of(source if fit is None else fit, workers=workers)
    if fit is not None and not isinstance(source, Profile):  # counting has read to the end what opening looked at
        before, counted = fit.provenance.notes, profile.sources[0].notes
        kept = (note for note in notes if note in counted or note not in before)
        notes = (*kept, *(note for note in counted if note not in before))

    def problem_of(objective: Objective) -> Problem:
        return Problem(
            profile,
            request.topology,
            request.slots_per_gpu or 0,
            objective,
            request.constraints,
            request.expert_bytes,
        )

    problem = problem_of(request.objective)
    if request.ownership != "token" and fit is not None and request.execution != "dispatch":
        # The summary replays dispatch as well: missing home ranks are told now, not after the search.
        problem_of(
            Objective(execution="dispatch", dedup="none", ownership=request.ownership, replica_policy="same_node")
        )
    if held_out is not None:
        for _ in held_out.batches():
            pass  # reading checks: a fault in the tokens held out is told before the search as well
    return Prepared(problem=problem, fit=fit, held_out=held_out, notes=notes)


def run(
    prepared: Prepared,
    request: PlanRequest,
    *,
    observe: Observer | None = None,
    workers: int | None = None,
    interrupt: threading.Event | None = None,
) -> Solution:
    """Search for a plan; see `solvers.solve`. Setting `interrupt` ends the search and keeps the incumbent.

    Raises
    ------
    InputError
        If the solver can't take the problem, or the start plan does not fit it.
    NoPlanError
        If no plan was found.
    """
    return solve(
        prepared.problem,
        request.solver,
        limits=request.limits,
        start=request.start,
        seed=request.seed,
        observe=observe,
        workers=workers,
        options=dict(request.options),
        interrupt=interrupt,
    )


def summarise(
    prepared: Prepared, plans: Mapping[str, Plan], request: PlanRequest, *, workers: int | None = None
) -> dict[str, Any]:
    """Return the figures of plans beside those of the contiguous plan, JSON-ready.

    Returns
    -------
    dict
        ``objective``, ``tokens`` (per part), ``notes`` and ``plans``: per name, ``contiguous`` first, the score, bound,
        gap, termination and warnings, and per part (``fit``, ``held_out``; None where there are no tokens) the figures
        of `placement.Evaluation` under the request's execution, with those of ``context_coherent`` and of ``dispatch``
        (engines that send tokens home after every layer) below these names. ``expected_load`` has the load figures
        that follow from the profile alone.
    """
    return figures_of(
        prepared.problem, measure(prepared.problem, prepared.parts, plans, workers=workers), prepared.notes
    )
