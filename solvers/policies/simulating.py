"""Simulating policies over a series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from placement import Plan
from solvers.policies.engine_settings import engine_settings
from solvers.policies.gate import Gate
from solvers.policies.oracle import best_sequence
from solvers.policies.request import PolicyRequest
from solvers.policies.results import PolicyRun, Simulation
from solvers.policies.running import policies_of, run_policy, simulated
from solvers.policies.setting import Setting
from traces import Drift, InputError, LoadCounts, Series, Trace, Violations, score_forecasts
from traces.series.each import drift_of_next
from traces.support.kinds import check_names, checked

__all__ = ["simulate"]

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    pass


@checked
def simulate(
    source: Series | Trace | LoadCounts | str | Path | Sequence[str | Path],
    *,
    request: PolicyRequest | None = None,
    tell: Tell = _silent,
    **asked: Any,
) -> Simulation:
    """Run policies of re-planning over a series, in time, each window judged on its own tokens or counts.

    Every policy but the oracle knows, at the beginning of a window, the windows before it and no more. All begin with
    the plan that runs at first. A re-plan costs the engine's stall and the transfer of the experts that GPUs are sent;
    GPUs of a new plan are named so that least moves, but for the engines' own balancer, which does not do that.

    Parameters
    ----------
    source : Series, Trace, LoadCounts, path or paths
        See `traces.Series.of`.
    request : PolicyRequest, optional
        In place of `asked`.
    tell : callable
        Gets what is being done, in words.
    **asked
        Fields of `PolicyRequest`: topology, redundant_experts, machine, model, windows and others.

    Raises
    ------
    InputError
        If series, request, machine, model and plan do not fit each other.

    Examples
    --------
    >>> simulate("dumps", topology="4x8", redundant_experts=32)["on_gain"].replans  # doctest: +SKIP
    2
    """
    if request is None:
        check_names(asked, PolicyRequest, "a simulation")
        request = PolicyRequest(**asked)
    elif asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    tell("reading the series")
    series = _series_of(source, request)
    setting = Setting.of(series, request)
    policies = policies_of(setting, Gate(setting=setting))
    runs: list[PolicyRun] = []
    paths: list[list[Plan]] = []
    for name, decide in policies.items():
        tell(f"simulating: {name.replace('_', ' ')}")
        run, path = run_policy(setting, name, decide)
        runs.append(run)
        paths.append(path)
    next_choice = policies["on_gain"](len(series), paths[-1][-1])
    tell("simulating: oracle")
    best = best_sequence(setting, paths)
    runs.append(PolicyRun.of("oracle", simulated(setting, best, [""] * len(best))))
    tell("simulating: engines' own settings")
    settings = engine_settings(setting)
    tell("drift and forecasts")
    return Simulation(
        policies=tuple(runs),
        drifts=_drifts(series, request),
        forecasts=score_forecasts(series),
        engine_settings=settings,
        now={"replan": next_choice.plan is not None, "reason": next_choice.reason},
        plan=next_choice.plan or paths[-1][-1],
        notes=(*setting.notes, *series.provenance.notes),
        windows=len(series),
        window_passes=request.window_passes,
    )


def _drifts(series: Series, request: PolicyRequest) -> tuple[Drift, ...]:
    """Return the drift from each window to the next; single dumps are held against all before them."""
    return tuple(
        drift_of_next(series.windows[:number], series.windows[number], alpha=request.alpha, seed=request.seed)
        for number in range(1, len(series))
    )


def _series_of(source: Any, request: PolicyRequest) -> Series:
    if not isinstance(source, Series):
        return Series.of(source, windows=request.windows, by=request.by)
    found = Violations()
    for name in ("windows", "by"):
        if getattr(request, name) is not None:
            found.add("without_effect", f"/{name}", "The series is cut already.", "Leave it out.")
    found.raise_if_any()
    return source
