"""A question, its data and its answers: a trace split for fitting and judging, the problem, plans and their figures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

from placement import Plan, Problem, Topology
from placement.engines import engine_of
from placement.replay.passes import refuse_long_passes
from solvers.fronts.front import front
from solvers.fronts.points import Front
from solvers.judging.comparing import Comparison, judge
from solvers.judging.counted import refuse_token_options
from solvers.judging.judge import Judge
from solvers.judging.replays import PartFigures, replay_both
from solvers.methods.registry import Solver, solver_from
from solvers.plans import NoPlanError
from solvers.requests.request import FrontRequest, Request, asked_of, request_of
from solvers.searching.events import Observer
from solvers.searching.limits import Limits
from solvers.searching.solution import Solution
from solvers.seeds import MakeExecutor, front_of_seeds, search_seeds
from solvers.solving.solving import solve
from solvers.sources.parts import Named, Parts, sends_home, travel_notes
from solvers.timed.searching import judge_of, search_in_time
from traces import InputError, LoadCounts, Trace
from traces.support.content import ByContent
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown

__all__ = ["Study"]

Planned = Plan | Solution | Solver | str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Study(Shown, ByContent):
    """A checked problem, and the tokens to judge its plans by.

    Attributes
    ----------
    request : Request
        What was asked.
    problem : Problem
    fit : Trace or None
        Tokens behind the problem's profile; of a saved profile, its sample. None where there are only counts.
    held_out : Trace or None
        Tokens that the problem has not seen.
    notes : tuple of str
        What was inferred, dropped or selected on the way, as sentences.
    counts : mapping of str to LoadCounts
        Of counts with several dumps over time: those fitted, ``fit``, and those of the last, ``held_out``.
    """

    request: Request
    problem: Problem
    fit: Trace | None
    held_out: Trace | None
    notes: tuple[str, ...]
    counts: Mapping[str, LoadCounts] = field(default_factory=dict)

    @classmethod
    @checked
    def of(
        cls,
        source: Named,
        topology: Topology | str | None = None,
        *,
        request: Request | None = None,
        workers: int | None = None,
        **asked: Any,
    ) -> Study:
        """Split the source, profile the part to fit, and build the problem.

        Parameters
        ----------
        source : Trace, LoadCounts, Profile, path or paths
        topology : Topology or str
        request : Request, optional
            In place of `topology` and `asked`.
        workers : int, optional
            Threads; all available cores by default.
        **asked
            Fields of `Request`: engine, redundant_experts, objective, constraints, hold_out and others.

        Raises
        ------
        InputError
            If the source breaks a rule, or the request does not fit it.
        """
        request = asked_of(request, topology, asked)
        solver_from(request.solver, dict(request.options))  # an unknown name is told before a long trace is read
        if request.baseline is not None:
            solver_from(request.baseline, {})
        later = {"pairs_later": sends_home(request.engine, request.objective)}
        parts = Parts.of(source, request.hold_out, workers, request.hold_out_by, **later)
        profile, notes = parts.profile, parts.notes
        if request.engine is None and request.objective.execution is None:  # nobody says how tokens travel
            request = replace(request, engine=profile.engine)
        if request.time and request.engine is None and request.objective.execution is None:
            request = replace(request, objective=replace(request.objective, execution="dispatch"))
        notes = (*notes, *travel_notes(request.engine, request.objective, profile))
        problem = Problem(
            profile,
            request.machine,
            request.slots_per_gpu or 0,
            request.objective,
            request.constraints,
            request.expert_bytes,
            request.engine,
            request.redundant_experts,
        )
        notes = (*notes, *problem.topology.notes, *problem.topology.warnings)
        if parts.fit is None and parts.held_out is None:
            refuse_token_options({"/pass_tokens": request.pass_tokens})
        if parts.fit is not None:
            refuse_long_passes(request.pass_tokens, parts.fit.num_tokens or profile.tokens, "The part to fit")
        if parts.held_out is not None:  # reading checks: a fault in the tokens held out is told before the search
            held = sum(map(len, parts.held_out.batches()))
            refuse_long_passes(request.pass_tokens, held, "The part held out")
        split: dict[str, Any] = {"fit": parts.fit, "held_out": parts.held_out, "counts": parts.counts}
        study = cls(request=request, problem=problem, notes=notes, **split)
        told = study.judges["fit"].time.notes if request.time else ()  # what does not fit is told before the search
        return replace(study, notes=(*notes, *told)) if told else study

    def _shown(self) -> tuple[str, Facts]:
        rows = [line.strip().partition(": ") for line in repr(self.problem).split("\n")[1:]]
        parts = [(name, repr(trace).split("\n")[0]) for name, trace in self.parts.items()]
        return "Study", [*((name, text) for name, _, text in rows), *parts]

    @property
    def parts(self) -> dict[str, Trace]:
        """The parts that have tokens, by name: ``fit``, ``held_out``."""
        parts = {"fit": self.fit, "held_out": self.held_out}
        return {name: trace for name, trace in parts.items() if trace is not None}

    @cached_property
    def judges(self) -> Mapping[str, Judge]:
        """What times plans, by part that has tokens; none where time was not asked for."""
        asked, parts = self.request.time, dict[str, Trace | None](self.parts) or {"fit": None}
        return {name: judge_of(self.problem, trace, asked) for name, trace in parts.items()} if asked else {}

    @property
    def baseline_name(self) -> str:
        """Name of the plan that others are compared with."""
        if self.request.baseline is not None:
            return self.request.baseline
        engine = self.problem.engine
        layout = "contiguous" if engine is None else engine_of(engine).engine.default_layout
        fits = solver_from("contiguous", {"layout": layout}).supports(self.problem) is None
        return layout if fits else "contiguous"

    @cached_property
    def _baseline(self) -> Solution | None:
        own = None if self.request.baseline is not None else {"layout": self.baseline_name}
        solver = solver_from(self.request.baseline or "contiguous", own or {})
        try:
            return solve(self.problem, solver, limits=Limits(work=BASELINE_WORK), workers=1)
        except NoPlanError:
            return None

    @property
    def baseline(self) -> Plan | None:
        """The plan when nobody plans, or the one of the solver that was named; None where constraints leave no such."""
        return None if self._baseline is None else self._baseline.plan

    @cached_property
    def judged_baseline(self) -> dict[tuple[str, str], PartFigures]:
        """The baseline's figures by part and name, from one thread; who asks for them spares `compare` the replay."""
        plans = {} if self.baseline is None else {self.baseline_name: self.baseline}
        machine, objective = self.problem.topology, self.problem.objective
        return replay_both(plans, self.parts, machine, objective, pass_tokens=self.request.pass_tokens, workers=1)

    def solve(
        self,
        solver: str | None = None,
        *,
        limits: Limits | None = None,
        seed: int | None = None,
        seeds: int | None = None,
        start: Plan | None = None,
        options: Mapping[str, Any] | None = None,
        observe: Observer | None = None,
        workers: int | None = None,
        interrupt: threading.Event | None = None,
        executor: MakeExecutor | None = None,
        progress: Callable[[int, float | None], None] | None = None,
    ) -> Solution:
        """Search for a plan; what is not given is as the study's request says.

        Parameters
        ----------
        solver, limits, seed, seeds, start, options
            See `Request`.
        observe, interrupt
            See `solvers.solve`; not where an executor runs the searches.
        workers : int, optional
            Threads; all available cores by default.
        executor, progress
            See `solvers.best_of_seeds`.

        Raises
        ------
        InputError
            If the solver can't take the problem, or the start plan does not fit it.
        NoPlanError
            If no plan was found.
        """
        given: dict[str, Any] = {"solver": solver, "limits": limits, "seed": seed, "seeds": seeds}
        given |= {"start": start, "options": options}
        request = replace(self.request, **{name: value for name, value in given.items() if value is not None})
        how: dict[str, Any] = {"workers": workers, "interrupt": interrupt}
        how |= {"executor": executor, "observe": observe}
        if request.time:
            return search_in_time(self.problem, self.judges["fit"], request, running=self.baseline, **how)
        return search_seeds(self.problem, request, progress=progress, **how)

    def front(
        self,
        *,
        observe: Observer | None = None,
        workers: int | None = None,
        interrupt: threading.Event | None = None,
        executor: MakeExecutor | None = None,
        progress: Callable[[int], None] | None = None,
        **asked: Any,
    ) -> Front:
        """Search for a front of plans; what is not given is as the study's request says.

        Parameters
        ----------
        observe, workers, interrupt, executor, progress
            As for `solve`.
        **asked
            Fields of `FrontRequest`: against, points, num_groups, limits, seed, seeds, start and others.

        Raises
        ------
        InputError
            If the request breaks a rule, or the solver can't take the problem.
        NoPlanError
            If no plan was found.
        """
        if self.request.time:
            detail = "A front weighs hop costs against each other, which time does not need."
            raise InputError.of("front_of_time", "/time", detail, "Leave machine and model out, or ask for a plan.")
        own = {item.name: getattr(self.request, item.name) for item in fields(self.request) if item.name != "time"}
        request = request_of(FrontRequest, **(own | asked))
        how: dict[str, Any] = {"solver": request.solver, "limits": request.limits, "options": dict(request.options)}
        how |= {"points": request.points, "against": request.against, "num_groups": request.num_groups}
        how |= {"start": request.start, "workers": (workers or 1) if executor is not None else workers}
        search = partial(front, self.problem, **how)
        if executor is None:
            search = partial(search, observe=observe, interrupt=interrupt)
            if request.seeds == 1:
                return search(seed=request.seed)
        seeds = range(request.seed, request.seed + request.seeds)
        return front_of_seeds(search, seeds, points=request.points, executor=executor, progress=progress)

    @checked
    def compare(
        self, plans: Mapping[str, Planned] | None = None, *, workers: int | None = None, **named: Planned
    ) -> Comparison:
        """Replay each part through each plan, the baseline first.

        Parameters
        ----------
        plans : mapping of str to Plan, Solution, Solver or str, optional
            A solver, or the name of one, is run under the study's limits and seed first. A solution has to be one of
            this study's problem.
        workers : int, optional
            Threads; all available cores by default.
        **named : Plan, Solution, Solver or str
            Further ones.

        Raises
        ------
        InputError
            If a plan does not fit the problem.
        """
        run = partial(solve, self.problem, limits=self.request.limits, seed=self.request.seed, workers=workers)
        rows: dict[str, Plan | Solution] = {} if self._baseline is None else {self.baseline_name: self._baseline}
        for name, item in (*(plans or {}).items(), *named.items()):
            if name in rows:
                detail = f"Two plans have the name {name!r}."
                raise InputError.of("name_taken", f"/{name}", detail, f"Call one of them otherwise than {[*rows]}.")
            rows[name] = item if isinstance(item, Plan | Solution) else run(item)
        told: dict[str, Any] = {"baseline": self.baseline_name, "notes": self.notes, "counts": self.counts}
        told |= {"scores": {name: item.score.total for name, item in rows.items() if isinstance(item, Solution)}}
        told |= {"pass_tokens": self.request.pass_tokens, "timed": self.judges}
        told |= {"replayed": self.__dict__.get("judged_baseline", {})}
        own = {name: item.plan if isinstance(item, Solution) else item for name, item in rows.items()}
        return judge(self.problem, self.parts, own, **told, workers=workers)


BASELINE_WORK = 1_000  # a plan that needs no search is not cut short by a clock
