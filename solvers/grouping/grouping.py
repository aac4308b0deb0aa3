"""Which request to which worker, and which expert on which GPU, as one problem with its bound; judged held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Objective, Plan, Problem
from solvers.arrange.conform import pack
from solvers.grouping.bound import least_cost
from solvers.grouping.request import GroupRequest
from solvers.grouping.search import cost_of, grouped, hops_to_gpus, imbalance_of, on_gpus, placed, together
from solvers.grouping.signatures import Signatures, signatures_of
from solvers.grouping.timing import step_ms
from solvers.sources.source import open_source
from traces import InputError, Profile, Trace
from traces.support.content import ByContent
from traces.support.kinds import check_names, checked
from traces.support.shown import Facts, Shown

__all__ = ["GroupRow", "RequestGroups", "group_requests"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DRAWS = 1000
LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """A way to send requests and to place experts, on requests that were held out.

    Attributes
    ----------
    name : str
        ``joint``; ``grouped`` (requests by what they use, experts in order); ``placed`` (requests in turn, experts by
        what their GPU uses); ``neither``.
    cost : float
        What is minimised: hops, and the imbalance less 1 with its weight.
    low, high : float
        95 % interval of it, by a bootstrap over requests.
    above_low, above_high : float
        95 % interval of how far it is above ``joint``, on the same draws.
    hops : float
        Mean hop cost of an assignment of a token to an expert.
    imbalance : float
        Largest GPU load over its fair share, mean over layers.
    step_ms : float or None
        Mean time of a forward pass, where machine and model are known.
    """

    name: str
    cost: float
    low: float
    high: float
    above_low: float
    above_high: float
    hops: float
    imbalance: float
    step_ms: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RequestGroups(Shown, ByContent):
    """What `group_requests` found.

    Attributes
    ----------
    plan : Plan
        One copy of each expert.
    worker : (R,) int64
        GPU of each request that was fitted.
    fitted, held_out : int
        Requests.
    imbalance_weight : float
        As asked, or the objective's own.
    cost : float
        Of grouping and plan on the requests to fit: hops of an assignment, and the imbalance less 1 with its weight.
    bound : float
        No grouping and plan together cost less there.
    rows : tuple of GroupRow
        ``joint`` first.
    """

    plan: Plan
    worker: Ints
    fitted: int
    held_out: int
    imbalance_weight: float
    cost: float
    bound: float
    rows: tuple[GroupRow, ...]

    @property
    def gap(self) -> float:
        """How far the cost is above the bound, as a share of the cost."""
        return max(0.0, self.cost - self.bound) / self.cost if self.cost > 0 else 0.0

    @property
    def unit(self) -> str:
        """What a cost is."""
        return f"hop cost per assignment + {self.imbalance_weight:g} x (max/mean load - 1)"

    @property
    def sentence(self) -> str:
        """Whether grouping and placing together is worth it."""
        ours, rest = self.rows[0], self.rows[1:]
        other = min(rest, key=lambda row: row.cost)
        if other.cost <= ours.cost:
            told = f"The way {other.name!r} costs no more on held-out requests: together they gain nothing."
        elif other.above_low <= 0:
            told = f"Together they are ahead of {other.name!r} by less than the noise of the held-out requests."
        elif self.imbalance_weight:
            told = (
                f"Together they cost {other.cost - ours.cost:.3g} less than {other.name!r} on held-out requests: hops "
                f"{ours.hops:.3f} and {other.hops:.3f}, max/mean load {ours.imbalance:.3f} and {other.imbalance:.3f}."
            )
        else:
            saved = 1 - ours.hops / other.hops
            told = f"Together they take {saved:.1%} fewer hops than {other.name!r} on held-out requests."
        timed = [(row.step_ms, row.name) for row in self.rows if row.step_ms is not None]
        if not timed or ours.step_ms is None:
            return told
        fastest, name = min(timed)
        if name == ours.name:
            return f"{told} Their steps are the fastest as well, {fastest:.4g} ms."
        return f"{told} But a step takes {ours.step_ms:.4g} ms, and {fastest:.4g} ms under {name!r}."

    def _shown(self) -> tuple[str, Facts]:
        rows = {row.name: f"{row.cost:.4f} ({row.low:.4f} to {row.high:.4f})" for row in self.rows}
        return self.sentence, rows | {"bound": f"{self.bound:.4f}, gap {self.gap:.1%}"}

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; the plan is apart."""
        return {
            "unit": self.unit,
            "sentence": self.sentence,
            "fitted": self.fitted,
            "held_out": self.held_out,
            "cost": self.cost,
            "bound": self.bound,
            "gap": self.gap,
            "rows": [{name: getattr(row, name) for name in row.__dataclass_fields__} for row in self.rows],
        }


def _silent(_: str) -> None:
    pass


@checked
def group_requests(
    source: Trace | str | Path,
    topology: Any = None,
    *,
    request: GroupRequest | None = None,
    tell: Callable[[str], None] = _silent,
    **asked: Any,
) -> RequestGroups:
    """Send requests to GPUs and place experts on them so that tokens travel little and GPUs have as much to do.

    The bound says how near that is to best. Every GPU gets as many requests. They are grouped by what their tokens use.
    Held-out requests are sent by their first halves, as a router would after the prefill, and judged by their second
    halves.

    Parameters
    ----------
    source : Trace or path
        With `seq_id`.
    topology : Topology or str
    request : GroupRequest, optional
        In place of `topology` and `asked`.
    tell : callable, optional
        Called with what is done.
    **asked
        Fields of `GroupRequest`: machine, model, slots_per_gpu, imbalance_weight, restarts, hold_out, seed and others.

    Raises
    ------
    InputError
        If the trace or the request breaks a rule.
    """
    if request is None:
        check_names(asked, GroupRequest, "a grouping")
        request = GroupRequest(topology=topology, **asked)
    elif topology is not None or asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    time = request.time_model()  # a machine that is not known is told before a long trace is read
    trace = source if isinstance(source, Trace) else open_source(source)
    if not isinstance(trace, Trace):
        detail = "Counts do not say what one request uses."
        raise InputError.of("counts_only", str(source), detail, "Record a trace with token identity (topk_ids).")
    tell("reading requests")
    every = signatures_of(trace)
    machine: Any = request.topology
    slots = request.slots_per_gpu or -(-trace.num_experts // machine.num_gpus)
    objective = Objective(execution="dispatch", dedup="none", imbalance_weight=request.imbalance_weight)
    problem = Problem(Profile.of(trace), machine, slots, objective)
    fit, held = _split(every, request.hold_out, problem.num_gpus, trace.provenance.source)
    uses, per_gpu = fit.whole, -(-len(fit.first) // problem.num_gpus)
    tell("grouping")
    joint = together(problem, uses, per_gpu, restarts=request.restarts, seed=request.seed)
    tell("bounding")
    bound = least_cost(problem, uses, per_gpu)
    in_order = np.tile(
        np.repeat(np.arange(machine.num_gpus), problem.capacity)[: trace.num_experts], (len(joint.gpu), 1)
    )
    in_turn = np.arange(len(uses)) % machine.num_gpus
    plans = {
        "joint": (joint.gpu, True),
        "grouped": (in_order, True),
        "placed": (placed(problem, uses, in_turn), False),
        "neither": (in_order, False),
    }
    expert = np.tile(np.arange(trace.num_experts), (len(joint.gpu), 1))
    rows, workers = _rows(problem, held, plans, request.seed)
    if time is not None:
        tell("timing")
        phase = request.phase or "decode"
        rows = tuple(
            replace(row, step_ms=step_ms(time, phase, problem.plan(table), trace, held, workers[row.name]))
            for row in rows
            for table in [pack(expert, plans[row.name][0], machine.num_gpus, slots)]
        )
    return RequestGroups(
        plan=problem.plan(pack(expert, joint.gpu, machine.num_gpus, slots)),
        worker=joint.worker,
        fitted=len(fit.first),
        held_out=len(held.first),
        imbalance_weight=problem.objective.imbalance_weight,
        cost=joint.cost,
        bound=bound,
        rows=rows,
    )


def _split(every: Signatures, hold_out: float, gpus: int, source: str) -> tuple[Signatures, Signatures]:
    """Return requests to fit and to judge by, dealt out evenly along the trace."""
    count = len(every.first)
    number = np.arange(count)
    held = np.floor((number + 1) * hold_out) > np.floor(number * hold_out)
    if min(held.sum(), (~held).sum()) < gpus:
        detail = f"{int((~held).sum())} requests of two tokens or more to fit and {int(held.sum())} to judge by."
        raise InputError.of("few_requests", source, detail, f"Record at least {gpus} of each: one per GPU.")
    return every.of(~held), every.of(held)


def _rows(
    problem: Problem, held: Signatures, plans: dict[str, tuple[Ints, bool]], seed: int
) -> tuple[tuple[GroupRow, ...], dict[str, Ints]]:
    """Return the rows, and the GPU of each request by their names."""
    per_gpu = -(-len(held.first) // problem.num_gpus)
    known, later = held.first.astype(np.float64), held.second.astype(np.float64)
    number, used = np.arange(len(later)), later.sum(axis=(1, 2))
    rng = np.random.default_rng([seed, 0x626F6F74])
    drawn = rng.multinomial(len(later), np.full(len(later), 1 / len(later)), size=DRAWS).astype(np.float64)
    rows, workers = [], {}
    draws: dict[str, Floats] = {}
    times = np.concatenate([np.ones((1, len(later))), drawn])  # every request once, then as often as it was drawn
    total = times @ used
    for name, (gpu, by_use) in plans.items():
        worker = grouped(problem, known, gpu, per_gpu) if by_use else number % problem.num_gpus
        workers[name] = worker
        hops = times @ hops_to_gpus(problem, later, gpu)[number, worker]
        load = on_gpus(later, gpu, problem.num_gpus)
        of_draws = (times @ load.reshape(len(load), -1)).reshape(len(times), *load.shape[1:])
        imbalance = imbalance_of(problem, of_draws)
        cost = cost_of(problem, hops, total, imbalance)
        draws[name] = cost[1:]
        low, high = np.quantile(draws[name], LEVEL).tolist()
        above_low, above_high = np.quantile(draws[name] - draws["joint"], LEVEL).tolist()
        own = {"low": low, "high": high, "above_low": above_low, "above_high": above_high}
        own |= {"cost": float(cost[0]), "hops": float(hops[0] / total[0]), "imbalance": float(imbalance[0])}
        rows.append(GroupRow(name=name, **own))
    return tuple(rows), workers
