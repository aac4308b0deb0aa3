"""Predicted step times on tokens held out: the plan of `auto` in milliseconds, beside those that look at loads alone.

    python benchmarks/step_times.py --save-fitted fitted            # what other programs may plan on
    python benchmarks/step_times.py --plans fitted --time-limit 30  # CASE.NAME.json in that folder are timed as well

Cases are 58 layers of 256 experts with group-limited routing on 8x8 H200, prefill and decode, and the recorded traces
in the folder of MOE_PLACEMENT_DATA on 2x8. Every plan has the same slots, and sees the even half of the sequences only.
The gain is that of `auto` over the plan of the row, with its 90 % interval, over sequences and the model's own error.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from _harness import Neighbours, conditions, table

from placement import Plan
from placement.advice.judging import judge_gain
from placement.advice.timing import PlanOnPasses
from solvers import Limits, Study
from solvers.requests.served import Timed
from solvers.solving.solving import solve
from traces import Trace, load, save
from traces.support.words import Phase
from traces.synthetic import Synthetic, generate

GROUPS = 8  # of the router; EPLB's hierarchical policy keeps them on nodes
LIMITED = Synthetic(
    num_layers=58,
    num_experts=256,
    top_k=8,
    num_tokens=65_536,
    tokens_per_sequence=128,
    skew=0.6,
    affinity=0.5,
    groups=GROUPS,
    group_limit=4,
)
BASELINES = {
    "contiguous": ("contiguous", {}),
    "EPLB, hierarchical": ("eplb", {"policy": "hierarchical", "num_groups": GROUPS}),
    "EPLB, global": ("eplb", {"policy": "global"}),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trace on a machine.

    Attributes
    ----------
    name, machine, model : str
    slots : int
        Per GPU.
    phase : {"prefill", "decode"}
    tokens : int
        Per GPU and forward pass.
    file : str or None
        Recorded trace; synthetic routing where there is none.
    """

    name: str
    machine: str
    model: str
    slots: int
    phase: Phase
    tokens: int
    file: str | None = None

    @cached_property
    def trace(self) -> Trace:
        """The tokens, fitted and held out."""
        if self.file is None:
            return generate(LIMITED)
        found = load(Path(os.environ["MOE_PLACEMENT_DATA"]) / self.file)
        assert isinstance(found, Trace)
        return found

    def study(self, time_limit: float) -> Study:
        """Return the question."""
        asked = Timed(machine=self.machine, model=self.model, timed_phase=self.phase, tokens_per_gpu=self.tokens)
        limits = Limits(time_s=time_limit)
        return Study.of(self.trace, time=asked, engine="sglang", slots_per_gpu=self.slots, limits=limits)


def cases() -> Iterator[Case]:
    """Yield the cases whose traces are there."""
    recorded = (("deepseek", "deepseek-v2-lite", 5), ("gpt-oss", "gpt-oss-20b", 3))
    for phase, tokens in (("prefill", 4096), ("decode", 128)):
        where = {"phase": phase, "tokens": tokens}
        yield Case(name=f"58x256-{phase}", machine="h200:8x8", model="deepseek-v3", slots=5, **where)  # type: ignore[arg-type]  # words of Phase
        for short, model, slots in recorded:
            file = f"{model.replace('-', '_')}.npz"
            if Path(os.environ.get("MOE_PLACEMENT_DATA", "."), file).is_file():
                yield Case(name=f"{short}-{phase}", machine="h200:2x8", model=model, slots=slots, file=file, **where)  # type: ignore[arg-type]


def plans_of(case: Case, study: Study, folder: str | None) -> Iterator[tuple[str, Plan]]:
    """Yield the plans that are compared with that of `auto`."""
    for name, (solver, options) in BASELINES.items():
        yield name, solve(study.problem, solver, limits=Limits(work=100_000), workers=1, options=options).plan
    for path in sorted(Path(folder).glob(f"{case.name}.*.json")) if folder else ():
        yield path.name.split(".", 1)[1].removesuffix(".json"), Plan.load(path)


def compared(case: Case, time_limit: float, folder: str | None) -> list[list[str]]:
    """Return the rows of a case."""
    study = case.study(time_limit)
    began = time.process_time()
    found = study.solve("auto")
    took = time.process_time() - began
    judge = study.judges["held_out"]

    def on_passes(plan: Plan) -> PlanOnPasses:
        return PlanOnPasses(plan, judge.sample, judge.time, judge.travel, by_group=True)

    auto, rows = on_passes(found.plan), []
    bound = found.plan.bound or 0.0
    gap = 1 - bound / (found.plan.score or np.inf)
    for name, plan in plans_of(case, study, folder):
        gain = judge_gain(on_passes(plan), auto, judge.time, judge.sample)
        parts = [float(part.sum()) for part in (gain.before.dispatch + gain.before.combine, gain.before.experts)]
        low, high = gain.interval
        told = [f"{100 * value:+.1f} %" for value in (gain.fraction, low, high)]
        rows.append([case.name, name, f"{gain.step_ms_before:.1f}", *(f"{part:.1f}" for part in parts)])
        rows[-1] += [f"{gain.remote_before.mean():.2f}", told[0], f"{told[1]} to {told[2]}"]
    parts = [float(part.sum()) for part in (gain.after.dispatch + gain.after.combine, gain.after.experts)]
    rows.append([case.name, "auto", f"{gain.step_ms_after:.1f}", *(f"{part:.1f}" for part in parts)])
    rows[-1] += [f"{gain.remote_after.mean():.2f}", "", f"gap {100 * gap:.0f} %, {took:.0f} s of CPU time"]
    return rows


def main() -> None:
    """Print the table, or save the fitted halves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=30, help="of auto, seconds")
    parser.add_argument("--case", action="append", help="only these")
    parser.add_argument("--plans", metavar="FOLDER", help="time the plans CASE.NAME.json of a folder as well")
    parser.add_argument("--save-fitted", metavar="FOLDER", help="write CASE.npz, the tokens that plans may see")
    asked = parser.parse_args()
    noise, rows = Neighbours(), []
    for case in cases():
        if asked.case and case.name not in asked.case:
            continue
        if asked.save_fitted:
            fitted = case.study(1).fit
            assert fitted is not None
            Path(asked.save_fitted).mkdir(exist_ok=True)
            save(fitted, Path(asked.save_fitted, f"{case.name}.npz"))
            continue
        rows += compared(case, asked.time_limit, asked.plans)
        print(f"{case.name}: done", flush=True)
    if rows:
        print(conditions("synthetic and recorded", 0, "all cores"))
        head = ["case", "plan", "step, ms", "exchange", "experts", "remote nodes", "gain of auto", "90 %"]
        print(table(head, rows))
        print(noise)


if __name__ == "__main__":
    main()
