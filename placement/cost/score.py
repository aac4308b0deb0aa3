"""The one cost function: the objective's terms for a plan, from the profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from placement.cost.kernels.traffic import assignment_traffic, pair_traffic
from placement.cost.sample import replay_sample
from placement.cost.shares import (
    expected_gpu_load,
    guarded_gpu_load,
    home_share,
    load_spread,
)
from placement.loads.policies import POLICIES
from placement.plan.plan import Plan, replicas_on_gpu
from placement.problem.problem import Problem
from placement.replay.activation import activated_experts
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.kinds import checked
from traces.support.shown import as_html, as_text, number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Score", "Term", "score"]

Array = npt.NDArray[np.float64]
KEPT = 4  # scores of a problem, the first: a search and a comparison ask for the same baselines


@dataclass(frozen=True, kw_only=True)
class Term:
    """A named part of the objective; ``weight * value`` counts."""

    name: str
    value: float
    weight: float
    unit: str

    @property
    def cost(self) -> float:
        """What it adds to the score."""
        return self.weight * self.value


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Score(ByContent):
    """Value of a plan under a problem's objective.

    ``score["traffic"]`` is the term of this name.

    Attributes
    ----------
    total : float
        Sum of ``weight * value`` over the terms.
    terms : tuple of Term
        traffic, imbalance, load_excess, load_spread; activated, if it has a weight.
    traffic_by_layer : (L-1,) or (L,) float64
        Contributions to the traffic term; they add up to it.
    max_load : (L,) float64
        Largest GPU load of each layer, relative to the GPU's fair share.
    """

    total: float
    terms: tuple[Term, ...]
    traffic_by_layer: Array
    max_load: Array

    @property
    def timed(self) -> bool:
        """Whether it is a time, in milliseconds, and the other terms only stand beside it."""
        return self.terms[0].name == "step"

    def __getitem__(self, name: str) -> Term:
        for term in self.terms:
            if term.name == name:
                return term
        names = ", ".join(term.name for term in self.terms)
        raise KeyError(f"There is no term {name!r}; there are {names}.")

    def __iter__(self) -> Iterator[str]:
        return (term.name for term in self.terms)

    def __repr__(self) -> str:
        rows = [(t.name, f"{number(t.value)} * {number(t.weight)} ({t.unit})") for t in self.terms]
        return as_text(f"Score {self.total:.6g}", rows)

    def _repr_html_(self) -> str:
        rows = [(t.name, number(t.value), number(t.weight), number(t.cost), t.unit) for t in self.terms]
        return as_html(f"Score {self.total:.6g}", rows, ("term", "value", "weight", "cost", "unit"))

    def to_frame(self) -> pd.DataFrame:
        """Return the terms as a pandas DataFrame, one row each: `term`, `value`, `weight`, `cost`, `unit`.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        columns = {name: [getattr(term, name) for term in self.terms] for name in ("value", "weight", "cost", "unit")}
        return frame({"term": list(self), **columns})


@checked
def score(problem: Problem, plan: Plan | npt.NDArray[np.integer[Any]]) -> Score:
    """Score a plan or a map.

    Parameters
    ----------
    problem : Problem
    plan : Plan or (L, S) integers
        A plan of the problem's sizes, or its physical-to-logical map with every expert present; -1 empty.

    Returns
    -------
    Score

    Raises
    ------
    InputError
        If its sizes are not those of the problem, an expert is missing, or an id is out of range.
    """
    table = problem.table_of(plan)
    known, key = vars(problem).setdefault("_scored", {}), table.tobytes()  # as its cached properties
    if key not in known:
        found = _score(problem, table)
        if len(known) >= KEPT:
            return found
        for array in (found.traffic_by_layer, found.max_load):
            array.flags.writeable = False
        known[key] = found
    scored: Score = known[key]
    return scored


def _score(problem: Problem, table: npt.NDArray[np.integer[Any]]) -> Score:
    objective, weights = problem.objective, problem.objective
    replicas = replicas_on_gpu(table, problem.num_experts, problem.num_gpus)
    relative = expected_gpu_load(problem, replicas)
    max_load = relative.max(axis=1)
    imbalance = float(max_load.mean() - 1)
    caps = problem.load_caps
    excess = 0.0
    if caps is not None:
        excess = float(np.maximum(guarded_gpu_load(problem, replicas) - caps[:, None], 0).sum(axis=1).mean())
    by_layer = np.zeros(problem.num_layers)
    if weights.traffic_weight:
        if objective.execution == "context_coherent":
            by_layer = _pair_traffic(problem, replicas)
        elif objective.dedup == "none":
            by_layer = _assignment_traffic(problem, replicas)
        else:
            by_layer = _message_traffic(problem, table)
    traffic = float(by_layer.sum())
    spread = max(0.0, float(load_spread(problem, replicas).mean()) - problem.spread_tolerance)
    terms: tuple[Term, ...] = (
        Term(name="traffic", value=traffic, weight=weights.traffic_weight, unit=objective.traffic_unit),
        Term(
            name="imbalance",
            value=imbalance,
            weight=weights.imbalance_weight,
            unit="max/mean load - 1, mean over layers",
        ),
        Term(
            name="load_excess",
            value=excess,
            weight=weights.load_excess_weight,
            unit="mean GPU loads above the cap, mean over layers",
        ),
        Term(
            name="load_spread",
            value=spread,
            weight=problem.spread_weight,
            unit="standard error of a GPU's load, mean over layers, above the tolerance, in mean GPU loads",
        ),
    )
    if weights.activated_weight:
        terms += (
            Term(
                name="activated",
                value=_activated(problem, table),
                weight=weights.activated_weight,
                unit="experts with tokens on the GPU that has most, mean over batches and layers",
            ),
        )
    return Score(total=sum(term.cost for term in terms), terms=terms, traffic_by_layer=by_layer, max_load=max_load)


def _activated(problem: Problem, table: npt.NDArray[np.integer]) -> float:
    """Return the most experts with tokens on a GPU, mean over layers and batches of the profile's sample."""
    sample, objective = problem.profile.sample, problem.objective
    assert sample is not None
    most = activated_experts(
        table, problem.num_experts, problem.slots_per_gpu, sample, problem.topology, objective, objective.decode_batch
    )
    return float(most.mean())


def _pair_traffic(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Context-coherent: ``sum_ij A[l,i,j] sum_gh Q[l,i,g] Q[l+1,j,h] d[g,h]`` over the whole pair weight."""
    affinity = problem.profile.affinity
    assert affinity is not None
    by_layer = np.zeros(len(affinity))
    share: Array = replicas / replicas.sum(axis=2, keepdims=True)
    pair_traffic(affinity, share, problem.topology.hop_cost, by_layer)
    return by_layer / max(problem.pair_weight, 1.0)


def _assignment_traffic(problem: Problem, replicas: npt.NDArray[np.int64]) -> Array:
    """Dispatch without deduplication, in expectation over the homes: needs loads only."""
    by_layer, load = np.zeros(problem.num_layers), np.asarray(problem.profile.load, np.float64)
    homes = home_share(problem)
    assignment_traffic(
        replicas,
        load / load.sum(),
        np.empty((0, 0, 0)) if homes is None else homes,
        POLICIES[problem.objective.replica_policy],
        problem.topology.node_of_gpu,
        problem.topology.hop_cost,
        by_layer,
    )
    return by_layer


def _message_traffic(problem: Problem, table: npt.NDArray[np.integer]) -> Array:
    """Dispatch with one message per GPU or node: replay of the profile's sample of tokens."""
    replay = replay_sample(problem, table)
    active = replay.fanout[:, 2].sum()
    cost: Array = (replay.traffic * problem.topology.hop_cost).sum(axis=(1, 2)) / max(int(active), 1)
    return cost
