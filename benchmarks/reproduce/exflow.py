"""ExFlow, arXiv 2401.08383: crossings of its two published plans of Mixtral, bytes, time of exchanges, throughput."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import placement
import solvers
from benchmarks.reproduce._rows import Row, bisected, gain
from placement.time import StepTime, TimeModel, step_time
from traces import Profile, Trace
from traces.model.presets import Model, load_model
from traces.synthetic import Synthetic, generate

__all__ = ["AFFINITY_RANGE", "mixtral_affinity", "rows"]

LAYERS, BOUNDARIES = 32, 31
CROSSINGS = {4: 17.495347692691237, 8: 22.166013704896926}  # in the names of the two solutions
FEWER = {4: 40, 32: 25}  # at second hand
WIDE = {4: "1x4", 32: "8x4"}  # nodes of 4 A100
AFFINITY_RANGE = (0.0, 6.0)
GPT = {"hidden_size": 1024, "expert_input": 1024, "intermediate_size": 4096, "attention_weights": 4 * 1024 * 1024}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Half of a trace to fit on, half held out, and the problem of the first."""

    fit: Trace
    held_out: Trace
    problem: placement.Problem

    @classmethod
    def of(cls, synthetic: Synthetic, topology: str) -> Case:
        """Put one together."""
        fit, held_out = generate(synthetic).split(0.5)
        problem = placement.Problem(profile=Profile.of(fit), topology=placement.Topology.parse(topology))
        return cls(fit=fit, held_out=held_out, problem=problem)

    def plan(self, solver: str, work: int | None = None, **options: Any) -> placement.Plan:
        """Return a solver's plan."""
        limits = solvers.Limits(work=work) if work else solvers.Limits()
        return solvers.solve(self.problem, solver, options=options, limits=limits).plan

    def crossings(self, plan: placement.Plan, *, held_out: bool = False) -> float:
        """Return how many of the boundaries between layers a token crosses."""
        tokens = self.held_out if held_out else self.fit
        return placement.evaluate(plan, tokens).cross_gpu_fraction * (self.problem.num_layers - 1)


def mixtral(affinity: float, tokens: int, topology: str) -> Case:
    """Return routing of Mixtral's sizes, the first choice alone, with so much affinity between layers."""
    sizes = Synthetic(num_layers=LAYERS, num_experts=8, top_k=1, num_tokens=tokens, affinity=affinity)
    return Case.of(sizes, topology)


@cache
def mixtral_affinity(tokens: int) -> float:
    """Return the affinity at which the best plan on 4 GPUs crosses as often as the published one."""

    def crossings(affinity: float) -> float:
        case = mixtral(affinity, tokens, "1x4")
        return case.crossings(case.plan("chain_dp"))

    return bisected(crossings, CROSSINGS[4], *AFFINITY_RANGE)


def stand_in(experts: int) -> Model:
    """Return a GPT of some 350 million parameters beside its experts, each of the usual four-fold width."""
    model = load_model("mixtral-8x7b")
    shape = replace(model.shape, num_experts=experts, top_k=1, weight_dtype="float16", **GPT)
    return replace(model, name="gpt-350m", shape=shape)


def steps(case: Case, machine: str, model: Model, tokens_per_gpu: int, work: int) -> tuple[StepTime, StepTime]:
    """Return a decode step of DeepSpeed's two exchanges without a plan, and of one exchange under ours."""
    time = TimeModel.of(machine, model, phase="decode", tokens_per_gpu=tokens_per_gpu)
    before = step_time(case.plan("contiguous"), case.held_out, time)
    after = step_time(case.plan("assignment", work), case.held_out, time, execution="context_coherent")
    return before, after


def fewer_crossings(affinity: float, tokens: int, topology: str, work: int) -> float:
    """Return how many percent fewer boundaries are crossed than without a plan, 24 layers of 64 experts."""
    sizes = Synthetic(num_layers=24, num_experts=64, top_k=1, num_tokens=tokens, affinity=affinity)
    case = Case.of(sizes, topology)
    before, after = (case.crossings(plan) for plan in (case.plan("contiguous"), case.plan("assignment", work)))
    return gain(before, after)


def moved_ms(step: StepTime) -> float:
    """Return the time of all exchanges of a step."""
    return float((step.dispatch_ms + step.combine_ms).sum()) + step.gather_ms


def rows(tokens: int = 10_000, work: int = 1_000_000) -> list[Row]:
    """Return the figures.

    Parameters
    ----------
    tokens : int
        Of each trace; half are fitted, which is what the repository calls enough (5,000).
    work : int
        Of each search.
    """
    affinity = mixtral_affinity(tokens)
    four, eight = (mixtral(affinity, tokens, f"1x{gpus}") for gpus in (4, 8))
    best = {4: four.plan("chain_dp"), 8: eight.plan("assignment", work)}
    own = four.plan("exflow", work, form="bisection", backend="cp_sat")
    crossed = {4: four.crossings(best[4]), 8: eight.crossings(best[8])}
    # N tokens per GPU: two exchanges 2 G N L p, one G N L p*; p without a plan is 1 - 1/G (section 2 of the paper)
    fewer = [gain(2 * (1 - 1 / gpus), count / BOUNDARIES) for gpus, count in crossed.items()]
    sizes = Synthetic(num_layers=24, num_experts=16, top_k=1, num_tokens=tokens, affinity=affinity)
    case = Case.of(sizes, "2x4")
    both = [steps(case, "a100:2x4@50", stand_in(16), size, work) for size in (8, 64)]
    exchanges = [gain(moved_ms(before), moved_ms(after)) for before, after in both]
    faster = [before.step_ms / after.step_ms for before, after in both]
    wide = {gpus: fewer_crossings(affinity, 2 * tokens, topology, work) for gpus, topology in WIDE.items()}
    return [
        Row(what="affinity of the generator", printed=None, here=affinity, fitted=True),
        Row(what="Mixtral, 4 GPUs: boundaries crossed of 31", printed=CROSSINGS[4], here=crossed[4], fitted=True),
        Row(what="Mixtral, 8 GPUs: boundaries crossed of 31", printed=CROSSINGS[8], here=crossed[8]),
        Row(what="4 GPUs, tokens held out", printed=None, here=four.crossings(best[4], held_out=True)),
        Row(what="4 GPUs, ExFlow's bisection on CP-SAT", printed=None, here=four.crossings(own)),
        *(
            Row(
                what=f"64 experts, {gpus} GPUs: boundaries crossed, less, %",
                printed=FEWER[gpus],
                here=here,
                form="{:.0f}",
            )
            for gpus, here in wide.items()
        ),
        Row(
            what="bytes between GPUs, less than two exchanges, %",
            printed=67,
            here=(min(fewer), max(fewer)),
            form="{:.0f}",
            most=True,
        ),
        Row(
            what="16 experts, 8 GPUs: time of exchanges, less, %",
            printed=67,
            here=(min(exchanges), max(exchanges)),
            form="{:.0f}",
            most=True,
        ),
        Row(what="16 experts, 8 GPUs: throughput, times", printed=2.2, here=(min(faster), max(faster)), most=True),
    ]
