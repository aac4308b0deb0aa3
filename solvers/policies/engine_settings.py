"""Engines' own knobs: what EPLB at their intervals, windows and thresholds would cost on the series.

References
----------
SGLang's ``server_args.py`` and ``eplb_manager.py``: ``--eplb-rebalance-num-iterations`` forward passes between two
rearrangements, each left out where the utilization of the GPUs is above
``--eplb-min-rebalancing-utilization-threshold``. vLLM's ``EPLBConfig`` (v0.32): every ``step_interval`` steps, from the
loads of the last ``window_size``.
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from placement import Plan
from solvers.policies.results import EngineSetting
from solvers.policies.running import Choice, run_policy
from solvers.policies.setting import Setting

__all__ = ["engine_settings"]

INTERVALS = (1, 2, 3, 5)  # windows between two rearrangements
THRESHOLDS = (1.0, 0.9, 0.8)  # utilization above which SGLang leaves it; 1 is its default: never


def engine_settings(setting: Setting) -> tuple[EngineSetting, ...]:
    """Return the settings that were tried, the best of each engine marked."""
    passes, count = setting.request.window_passes, len(setting.series)
    redundant = setting.problem.num_slots - setting.problem.num_experts
    intervals = [interval for interval in INTERVALS if interval < count]
    sglang, vllm = [], []
    for interval in intervals:
        for threshold in THRESHOLDS:
            total, replans = _run(setting, interval, interval, threshold)
            options = (
                f"--enable-eplb --ep-num-redundant-experts {redundant} "
                f"--eplb-rebalance-num-iterations {interval * passes} "
                f"--eplb-min-rebalancing-utilization-threshold {threshold:g}"
            )
            sglang.append((total, replans, options))
        for history in sorted({1, interval}):
            total, replans = _run(setting, interval, history, 1.0)
            config = {"window_size": history * passes, "step_interval": interval * passes}
            config |= {"num_redundant_experts": redundant}
            vllm.append((total, replans, f"--enable-eplb --eplb-config '{json.dumps(config)}'"))
    return tuple(
        EngineSetting(engine=engine, options=options, total_ms=total, replans=replans, recommended=(total, at) == best)
        for engine, tried in (("sglang", sglang), ("vllm", vllm))
        for best in [min((total, at) for at, (total, _, _) in enumerate(tried))]
        for at, (total, replans, options) in enumerate(tried)
    )


def _run(setting: Setting, interval: int, history: int, threshold: float) -> tuple[float, int]:
    shares = setting.series.shares

    def decide(window: int, running: Plan) -> Choice:
        if window % interval:
            return Choice(plan=None)
        seen = shares[window - history : window].mean(axis=0)
        if _utilization(setting, running, seen) > threshold:
            return Choice(plan=None)
        return Choice(plan=setting.eplb(seen))

    run, _ = run_policy(setting, "engine", decide)
    return run.total_ms, run.replans


def _utilization(setting: Setting, plan: Plan, shares: npt.NDArray[np.float64]) -> float:
    """Return the mean GPU load over the largest, mean over layers."""
    held = plan.replicas_on_gpu
    load = np.einsum("le,leg->lg", shares / np.maximum(held.sum(axis=2), 1), held)
    return float((load.mean(axis=1) / load.max(axis=1)).mean())
