"""A plan for several domains, beside the plans for one of them and for all together: the held-out matrix."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem
from solvers.mixtures.bound import MixtureBound, mixture_bound
from solvers.mixtures.domains import Domain, Domains, domains_of
from solvers.mixtures.matrix import PlanRow, judge_plans
from solvers.mixtures.pools import Pools, judge_pools
from solvers.mixtures.request import MixtureRequest
from solvers.mixtures.search import Round, fit_costs, search_mixture, silent, target_of
from solvers.mixtures.weighing import mixed
from solvers.solving.solving import solve
from solvers.sources.parts import travel_notes
from traces import InputError
from traces.support.content import ByContent
from traces.support.kinds import check_names, checked
from traces.support.shown import Facts, Shown

__all__ = ["Mixture", "mixture"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Mixture(Shown, ByContent):
    """What `mixture` found.

    Attributes
    ----------
    request : MixtureRequest
    problem : Problem
        Of the pooled profile: sizes, objective, constraints.
    domains : tuple of str
    weights : tuple of float
        Of the domains, as asked, or by their tokens; they sum to 1.
    rounds : tuple of Round
    rows : tuple of PlanRow
        The mixture's plan first.
    found_by : str
        What the mixture's plan was found by: `round`, the best one of them, or a plan that does better: `pooled`,
        `only NAME`.
    bound : MixtureBound
        What no plan can beat, beside what the mixture's costs, on the tokens to fit.
    pools : Pools or None
        GPUs of their own for domains, where that was asked.
    notes : tuple of str
    """

    request: MixtureRequest
    problem: Problem
    domains: tuple[str, ...]
    weights: tuple[float, ...]
    rounds: tuple[Round, ...]
    rows: tuple[PlanRow, ...]
    found_by: str
    bound: MixtureBound
    pools: Pools | None = None
    notes: tuple[str, ...] = ()

    def _shown(self) -> tuple[str, Facts]:
        rows = [(row.name, f"{row.target:.4f} ({row.low:.4f} to {row.high:.4f})") for row in self.rows]
        return f"Mixture of {len(self.domains)} domains, over {self.request.over}", rows

    @property
    def plan(self) -> Plan:
        """The plan for the mixture."""
        return self.rows[0].plan

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary: what was asked, rounds, plans, found_by, bound, pools and notes."""
        return {
            "over": self.request.over,
            "quantile": self.request.quantile,
            "unit": f"objective: {self.problem.objective.traffic_weight:g} x {self.problem.objective.traffic_unit} "
            f"+ {self.problem.objective.imbalance_weight:g} x (max/mean load - 1) + load above caps",
            "domains": list(self.domains),
            "weights": list(self.weights),
            "rounds": [
                {"weights": each.weights.tolist(), "costs": each.costs.tolist(), "target": each.target}
                for each in self.rounds
            ],
            "plans": {
                row.name: {
                    "target": row.target,
                    "interval": [row.low, row.high],
                    "above_mixture": [row.above_low, row.above_high],
                    "step_ms": row.step_ms,
                    "domains": {
                        name: {
                            "cost": cell.cost,
                            "interval": [cell.low, cell.high],
                            "fit": cell.fit,
                            "imbalance": cell.imbalance,
                            "traffic": cell.traffic,
                            "step_ms": cell.step_ms,
                        }
                        for name, cell in row.cells.items()
                    },
                }
                for row in self.rows
            },
            "found_by": self.found_by,
            "bound": self.bound.as_dict(),
            "pools": None if self.pools is None else self.pools.as_dict(self.domains),
            "notes": list(self.notes),
        }


@checked
def mixture(
    source: Domains,
    topology: Any = None,
    *,
    request: MixtureRequest | None = None,
    workers: int | None = None,
    searching_s: float | None = None,
    tell: Callable[[str], None] = silent,
    **asked: Any,
) -> Mixture:
    """Find a plan for several domains at once, and judge it on their held-out tokens beside simpler plans.

    Parameters
    ----------
    source : mapping of str to Trace, Trace, path or paths
        A mapping names the domains; several files are a domain each; a single trace is split by `data_source`.
    topology : Topology or str
    request : MixtureRequest, optional
        In place of `topology` and `asked`.
    workers : int, optional
        Threads; all available cores by default.
    searching_s : float, optional
        What all searches may take together: where domains, which a single trace tells only when it is read, make so
        many that the limits of each come to more, each has its share.
    tell : callable, optional
        Called with what is done.
    **asked
        Fields of `MixtureRequest`: over, weights, rounds, engine, limits and others.

    Returns
    -------
    Mixture

    Raises
    ------
    InputError
        If a source or the request breaks a rule.
    NoPlanError
        If no plan was found.
    """
    if request is None:
        if topology is None:
            detail = "A plan needs a machine."
            raise InputError.of("topology_missing", "/topology", detail, "Give one, such as '1x8' or '4x8'.")
        check_names(asked, MixtureRequest, "a request")
        request = MixtureRequest(topology=topology, **asked)
    elif topology is not None or asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    request.time_model()  # a machine that is not known is told before a long trace is read
    tell("reading and profiling")
    domains = domains_of(source, request.hold_out, workers)
    shared: tuple[str, ...] = ()
    if searching_s is not None and (within := request.within(searching_s, len(domains))) is not request:
        searches, request = request.searches(len(domains)), within
        shared = (f"{searches} searches share {searching_s:.3g} s: each has {request.limits.time_s:.3g} s.",)
    weights = _weights(request, domains)
    planning = request.planning()
    pooled = mixed([domain.profile for domain in domains], weights)
    engine = planning.engine
    if engine is None and request.objective.execution is None:
        engine = pooled.engine
    problem = Problem(
        pooled,
        planning.machine,
        planning.slots_per_gpu or 0,
        planning.objective,
        planning.constraints,
        planning.expert_bytes,
        engine,
        planning.redundant_experts,
    )
    notes = (
        *shared,
        *travel_notes(engine, request.objective, pooled),
        *problem.topology.notes,
        *problem.topology.warnings,
    )
    rounds = search_mixture(domains, problem, request, weights, workers=workers, tell=tell)
    first = min(rounds, key=lambda each: each.target)
    together = reduce(operator.add, [domain.profile for domain in domains])
    simpler: dict[str, Plan] = {}
    for name, each in {"pooled": together, **{f"only {domain.name}": domain.profile for domain in domains}}.items():
        tell(f"searching: {name}")
        simpler[name] = _one(problem, each, request, workers)
    tell("replaying tokens")
    known = dict(zip(simpler, fit_costs(problem, list(simpler.values()), domains), strict=True))
    best, least = "mixture", first.target
    for name in simpler:
        target = float(target_of(known[name].hedged, weights, request))
        if target < least:  # a quantile gives domains up, which a plan for one of the others does from the start
            best, least = name, target
    plans = {"mixture": simpler.get(best, first.plan), **simpler}
    fitted = {"mixture": known[best].fitted if best in known else first.fitted}
    fitted |= {name: costs.fitted for name, costs in known.items()}
    if best != "mixture":
        notes = (*notes, f"The plan `{best}` does better than those of all rounds: it is the mixture's.")
    rows = judge_plans(problem, request, domains, weights, plans, fitted)
    names = tuple(domain.name for domain in domains)
    own: dict[str, Any] = {"request": request, "problem": problem, "domains": names, "weights": tuple(weights.tolist())}
    tried, profiles = [each.weights for each in rounds], [domain.profile for domain in domains]
    bound = mixture_bound(problem, plans["mixture"], profiles, request, weights, tried)
    pools = None
    if request.pools:
        pools = judge_pools(problem, plans["mixture"], request, domains, weights, workers=workers, tell=tell)
    own["found_by"] = "round" if best == "mixture" else best
    return Mixture(rounds=rounds, rows=rows, bound=bound, pools=pools, notes=notes, **own)


def _weights(request: MixtureRequest, domains: tuple[Domain, ...]) -> Floats:
    if request.weights and len(request.weights) != len(domains):
        names = ", ".join(domain.name for domain in domains)
        detail = f"{len(request.weights)} weights for {len(domains)} domains."
        raise InputError.of("weights_number", "/weights", detail, f"Give one for each of: {names}.")
    given = request.weights or tuple(float(domain.profile.tokens) for domain in domains)
    weights = np.array(given, dtype=np.float64)
    result: Floats = weights / weights.sum()
    return result


def _one(problem: Problem, profile: Any, request: MixtureRequest, workers: int | None) -> Plan:
    """Return the plan for one profile, found under the limits of a round."""
    asked = replace(problem, profile=profile)
    own: dict[str, Any] = {"limits": request.limits, "seed": request.seed, "workers": workers}
    return solve(asked, request.solver, options=dict(request.options), **own).plan
