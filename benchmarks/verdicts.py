"""How often ``advise`` says that a change is worth it: random routing, planted skew and co-activation, small batches.

    python benchmarks/verdicts.py --seeds 100

Each case makes traces of its own, one per seed; plans are found by a quick method, so that what is tested is the
verdict. With ``--truth``, the same plan is timed on further tokens of the same kind, ten times as many as were held
out: ``covered`` is how often the 90 % interval holds that gain.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from placement.advice.sample import sample_passes
from placement.advice.timing import PlanOnPasses, mean_step_ms
from placement.time import TimeModel
from placement.time.step import travel_in_steps
from solvers import AdviceRequest, Study, advise
from traces import Trace
from traces.synthetic import Synthetic, generate

MACHINE, MODEL, ENGINE = "h200:4x4", "qwen3-30b-a3b", "sglang"
BASE = Synthetic(
    num_layers=4, num_experts=128, top_k=8, num_tokens=24_576, tokens_per_sequence=128, skew=0, affinity=0, topics=32
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of routing.

    Attributes
    ----------
    name : str
    synthetic : Synthetic
    together : bool
        Whether the experts of a token are of one team, in place of what `synthetic` draws.
    phase : str
    tokens_per_gpu : int
    least, most : int
        Verdicts of ``worth_it`` in a hundred that are right.
    solver : str
    """

    name: str
    synthetic: Synthetic = BASE
    together: bool = False
    phase: str = "prefill"
    tokens_per_gpu: int = 4096
    least: int = 0
    most: int = 100
    solver: str = "load_balance"


SKEWED = replace(BASE, skew=0.8)
TEAMS = 8
CASES = (
    Case(name="random", synthetic=BASE, most=5),
    Case(name="random, decode of 128", synthetic=BASE, phase="decode", tokens_per_gpu=128, most=5),
    Case(name="skew", synthetic=SKEWED, least=95),
    Case(name="co-activation", least=95, together=True, solver="grace"),
    Case(name="skew, decode of 8", synthetic=SKEWED, phase="decode", tokens_per_gpu=8, most=5),
    Case(name="co-activation, decode of 8", phase="decode", tokens_per_gpu=8, most=5, together=True, solver="grace"),
)


def trace_of(case: Case, seed: int, tokens: int | None = None) -> Trace:
    """Return the trace of a case and seed; a longer one begins with the same tokens."""
    count = case.synthetic.num_tokens if tokens is None else tokens
    return in_teams(count, seed) if case.together else generate(replace(case.synthetic, seed=seed, num_tokens=count))


def in_teams(tokens: int, seed: int) -> Trace:
    """Return tokens that choose all their experts from one of some teams, scattered over the layers; loads are even."""
    layers, experts, top_k, length = BASE.num_layers, BASE.num_experts, BASE.top_k, BASE.tokens_per_sequence
    of_team = np.random.default_rng([seed, 1]).permuted(np.tile(np.arange(experts), (layers, 1)), axis=1)
    of_team = of_team.reshape(layers, TEAMS, -1)
    parts = []
    for sequence in range(tokens // length):
        rng = np.random.default_rng([seed, 2, sequence])
        team = rng.integers(TEAMS, size=(length, 1, 1))
        chosen = rng.random((length, layers, of_team.shape[2])).argsort(axis=2)[:, :, :top_k]
        parts.append(of_team[np.arange(layers)[None, :, None], team, chosen])
    seq_id = np.repeat(np.arange(len(parts)), length)
    return Trace.of(np.concatenate(parts), num_experts=experts, seq_id=seq_id)


def asked(case: Case) -> dict[str, Any]:
    """Return the request of a case."""
    return {
        "machine": MACHINE,
        "model": MODEL,
        "engine": ENGINE,
        "phase": case.phase,
        "tokens_per_gpu": case.tokens_per_gpu,
        "solver": case.solver,
        "weight_dtype": "fp8_block",
        "alternatives": False,
    }


def true_gain(case: Case, seed: int, plan: Any) -> float:
    """Return the gain of a plan on many further tokens of the same kind: the same experts, other sequences."""
    tokens = 10 * case.synthetic.num_tokens // 2
    longer = trace_of(case, seed, case.synthetic.num_tokens + tokens)
    later = longer.where(lambda batch: batch.rows >= case.synthetic.num_tokens, "further tokens")
    request = AdviceRequest(**asked(case))
    time_model: TimeModel = request.time_model(case.phase)  # type: ignore[arg-type]  # one phase
    study = Study.of(trace_of(case, seed), request=request.planning(time_model))
    assert study.baseline is not None
    travel = travel_in_steps(later, time_model, study.problem.engine, None, None, None)
    sample = sample_passes(later, time_model.pass_tokens, case.phase)  # type: ignore[arg-type]  # one phase
    steps = [
        mean_step_ms(time_model, PlanOnPasses(each, sample, time_model, travel).times())
        for each in (study.baseline, plan)
    ]
    return 1 - steps[1] / steps[0]


def run(case: Case, seeds: int, *, truth: bool) -> dict[str, Any]:
    """Return how a case went."""
    verdicts, gains, covered = Counter[str](), [], 0
    began = time.perf_counter()
    for seed in range(seeds):
        found = advise(trace_of(case, seed), **asked(case), seed=seed, workers=1)
        verdicts[found.verdict] += 1
        gains.append(found.gain_fraction)
        if truth:
            low, high = found.gain_interval
            covered += low <= true_gain(case, seed, found.plan) <= high
    share = 100 * verdicts["worth_it"] / seeds
    return {
        "case": case.name,
        "seeds": seeds,
        **{name: verdicts[name] for name in ("worth_it", "not_worth_it", "not_enough_data")},
        "gain": [round(float(value), 4) for value in (min(gains), sum(gains) / seeds, max(gains))],
        "covered": covered if truth else None,
        "right": case.least <= share <= case.most,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run every case and print a line of JSON each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--case", action="append", help="only these cases")
    parser.add_argument("--truth", action="store_true", help="also judge the intervals on further tokens")
    given = parser.parse_args()
    for case in CASES:
        if not given.case or case.name in given.case:
            print(json.dumps(run(case, given.seeds, truth=given.truth)), flush=True)


if __name__ == "__main__":
    main()
