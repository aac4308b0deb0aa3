"""What plans do to the tokens of a trace, side by side with what happens when nobody plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from placement import ExpectedLoads, Plan, Problem, score
from solvers.judging.counted import DumpFigures, expected_load, loads_of_dumps, loads_of_parts
from solvers.judging.judge import Judge
from solvers.judging.replays import FIGURES, PartFigures, part_figures, replay_both
from traces import InputError, LoadCounts, Trace
from traces.support.content import ByContent
from traces.support.shown import Facts, Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Comparison",
    "Judged",
    "judge",
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Judged(Shown, ByContent):
    """A named plan, its score under the problem, and its figures on each part that has tokens.

    Attributes
    ----------
    name : str
    plan : Plan
    score : float
    parts : dict of str to PartFigures
        By part that has tokens.
    expected_load : dict of str to float
        What follows from the profile, without any token.
    counts : dict of str to ExpectedLoads
        By part, of counts with several dumps over time.
    dumps : tuple of DumpFigures
        Of each of them, in order of time.
    step_ms : dict of str to float
        By part, milliseconds of a forward pass, where time is what is minimised: `score` is then that of the fitted
        part.
    """

    name: str
    plan: Plan
    score: float
    parts: dict[str, PartFigures]
    expected_load: dict[str, float]
    counts: dict[str, ExpectedLoads] = field(default_factory=dict)
    dumps: tuple[DumpFigures, ...] = ()
    step_ms: dict[str, float] = field(default_factory=dict)

    def _shown(self) -> tuple[str, Facts]:
        return f"Plan {self.name}", _facts(self)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Shown, ByContent):
    """Plans side by side, on the tokens that were fitted and on those held out.

    Attributes
    ----------
    problem : Problem
    rows : tuple of Judged
        The baseline first, if there is one.
    baseline : str
        Its name.
    notes : tuple of str
    """

    problem: Problem
    rows: tuple[Judged, ...]
    baseline: str
    notes: tuple[str, ...] = ()

    def _shown(self) -> tuple[str, Facts]:
        rows = [(row.name, "; ".join(f"{part} {figures}" for part, figures in _facts(row))) for row in self.rows]
        facts = [("lowest score", self.best.name), *rows] if rows else []
        return f"Comparison of {len(self.rows)} plans, before: {self.baseline}", facts

    def __getitem__(self, name: str) -> Judged:
        for row in self.rows:
            if row.name == name:
                return row
        names = ", ".join(row.name for row in self.rows)
        raise InputError.of("unknown_plan", "/plan", f"There is no plan {name!r:.60}.", f"Plans are {names}.")

    @property
    def best(self) -> Judged:
        """The plan of the lowest score; of equal ones, the first."""
        return min(self.rows, key=lambda row: row.score)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON-ready dictionary.

        Returns
        -------
        dict
            ``objective``, ``tokens`` (per part), ``notes`` and ``plans``: per name the score, bound, gap, termination
            and warnings, and per part (``fit``, ``held_out``; None where there are no tokens) the figures of
            `placement.Evaluation` under the problem's execution, with those of ``context_coherent`` and of ``dispatch``
            below these names, and ``step_ms`` by part where time is minimised. ``expected_load`` has the load figures
            that follow from the profile alone; ``counts`` has them by part and ``dumps`` by dump, of counts over time.
        """
        problem, constraints = self.problem, self.problem.constraints
        tokens = {part: found.evaluation.tokens for part, found in self.rows[0].parts.items()} if self.rows else {}
        return {
            "objective": asdict(problem.objective),
            "engine": problem.engine,
            "load_cap": constraints.load_cap,
            "layer_load_caps": {str(item.layer_id): item.load_cap for item in constraints.layer_load_caps},
            "load_quantile": constraints.load_quantile,
            "topology": problem.topology.name,
            "slots_per_gpu": problem.slots_per_gpu,
            "tokens": {"fit": tokens.get("fit"), "held_out": tokens.get("held_out")},
            "notes": list(self.notes),
            "baseline": self.baseline,
            "best": self.best.name if self.rows else None,
            "plans": {row.name: _row(row) for row in self.rows},
        }

    def to_frame(self) -> DataFrame:
        """Return a row per plan and part, with the figures as columns (needs the extra ``frame``).

        Raises
        ------
        ImportError
        """
        from traces.support.frames import frame

        rows = [
            {"plan": row.name, "part": part, "score": row.score}
            | {name: getattr(found.evaluation, name) for name in FIGURES}
            for row in self.rows
            for part, found in row.parts.items()
        ]
        return frame(rows or [{"plan": row.name, "score": row.score} | row.expected_load for row in self.rows])


def _facts(row: Judged) -> list[tuple[str, str]]:
    """Return the figures of a plan in words: its score, and traffic and load of each part."""
    facts = [("score", f"{row.score:.6g}")]
    for part, found in row.parts.items():
        tokens = found.evaluation
        facts.append((part, f"traffic {tokens.traffic:.4f}, busiest GPU {tokens.imbalance_max_over_mean:.4f}"))
    for part, loads in row.counts.items():
        facts.append((part, f"expected busiest GPU {loads.imbalance_max_over_mean:.4f}"))
    if not row.parts and not row.counts:
        facts.append(("expected", f"busiest GPU {row.expected_load['imbalance_max_over_mean']:.4f}"))
    return facts


def judge(
    problem: Problem,
    parts: Mapping[str, Trace],
    plans: Mapping[str, Plan],
    *,
    baseline: str = "contiguous",
    notes: tuple[str, ...] = (),
    counts: Mapping[str, LoadCounts] = MappingProxyType({}),
    pass_tokens: Sequence[int] = (),
    timed: Mapping[str, Judge] = MappingProxyType({}),
    scores: Mapping[str, float] | None = None,
    replayed: Mapping[tuple[str, str], PartFigures] = MappingProxyType({}),
    workers: int | None = None,
) -> Comparison:
    """Replay each part through each plan, in one pass over the tokens where memory allows.

    Parameters
    ----------
    problem : Problem
        Says how tokens travel.
    parts : mapping of str to Trace
    plans : mapping of str to Plan
        Must fit the problem.
    baseline : str
        Which of them is the one to compare with.
    notes : tuple of str
    counts : mapping of str to LoadCounts
        By part, where there are counts of several points in time: what loads a plan has at each.
    pass_tokens : sequence of int
        See `placement.evaluate`.
    timed : mapping of str to Judge
        By part, where time is what is minimised.
    scores : mapping of str to float, optional
        Of those plans that the problem has scored already.
    replayed : mapping of (str, str) to PartFigures
        Those of plans that have been replayed already, by part and name, as `replay_both` returns them.
    workers : int, optional
        Threads; all available cores by default.
    """
    new = {name: plan for name, plan in plans.items() if any((part, name) not in replayed for part in parts)}
    found = replay_both(new, parts, problem.topology, problem.objective, pass_tokens=pass_tokens, workers=workers)
    found = {**replayed, **found}
    steps = {name: {part: each.step_ms(plan) for part, each in timed.items()} for name, plan in plans.items()}
    known = {} if scores is None else scores
    rows = [
        Judged(
            name=name,
            plan=plan,
            parts={part: found[part, name] for part in parts},
            # The problem's, whatever the plan was made for.
            score=steps[name].get("fit") or known.get(name) or score(problem, problem.table_of(plan)).total,
            expected_load=expected_load(problem, plan),
            counts=loads_of_parts(problem, plan, counts),
            dumps=loads_of_dumps(problem, plan, counts),
            step_ms=steps[name],
        )
        for name, plan in plans.items()
    ]
    return Comparison(problem=problem, rows=tuple(rows), baseline=baseline, notes=notes)


def _row(row: Judged) -> dict[str, Any]:
    plan = row.plan
    parts = {name: part_figures(found) for name, found in row.parts.items()}
    return {
        "score": row.score,
        "bound": plan.bound,
        "gap": plan.gap,
        "termination": None if plan.termination is None else asdict(plan.termination),
        "warnings": list(plan.warnings),
        "fit": parts.get("fit"),
        "held_out": parts.get("held_out"),
        "expected_load": row.expected_load,
        "counts": {part: loads.as_dict() for part, loads in row.counts.items()},
        **({"step_ms": row.step_ms} if row.step_ms else {}),
        "dumps": [{"name": dump.name, "part": dump.part} | dump.loads.as_dict() for dump in row.dumps],
    }
