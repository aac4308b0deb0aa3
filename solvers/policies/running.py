"""Policies run over a series: what each decides at the beginning of a window knows the windows before, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from placement import Plan
from solvers.policies.gate import Gate
from solvers.policies.results import PolicyRun, PolicyWindow
from solvers.policies.setting import Move, Setting
from traces import drift_between

__all__ = ["Choice", "policies_of", "run_policy", "simulated"]

NOTHING = Move(slots=0, experts=0, bytes=0, ms=0.0)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a policy wants: a plan, or None to leave it, and why."""

    plan: Plan | None
    reason: str = ""


Decide = Callable[[int, Plan], Choice]


def run_policy(setting: Setting, name: str, decide: Decide) -> tuple[PolicyRun, list[Plan]]:
    """Run a policy from the plan that runs at first; return what it takes, and its plans by window.

    Parameters
    ----------
    setting : Setting
    name : str
    decide : callable
        ``decide(window, running)``, asked before every window but the first.
    """
    plans, reasons = [setting.start], [""]
    for window in range(1, len(setting.series)):
        choice = decide(window, plans[-1])
        plans.append(plans[-1] if choice.plan is None else choice.plan)
        reasons.append(choice.reason)
    return PolicyRun.of(name, simulated(setting, plans, reasons)), plans


def simulated(setting: Setting, plans: list[Plan], reasons: list[str]) -> tuple[PolicyWindow, ...]:
    """Return the windows under a plan each, (W)."""
    passes = setting.request.window_passes
    moves = [NOTHING, *(setting.move(old, new) for old, new in pairwise(plans))]
    changed = [window for window, move in enumerate(moves) if move.slots]
    net: dict[int, float] = {}
    for window, until in pairwise([*changed, len(plans)]):
        gained = [
            setting.step(plans[window - 1], each).ms - setting.step(plans[window], each).ms
            for each in range(window, until)
        ]
        net[window] = passes * sum(gained) - moves[window].ms
    rows = []
    for window, (plan, move) in enumerate(zip(plans, moves, strict=True)):
        step = setting.step(plan, window).ms
        rows.append(
            PolicyWindow(
                window=window,
                name=setting.series.windows[window].name,
                step_ms=step,
                ms=passes * step + move.ms,
                replanned=window in net,
                moved_experts=move.experts,
                moved_bytes=move.bytes,
                cost_ms=move.ms,
                net_ms=net.get(window),
                reason=reasons[window],
            )
        )
    return tuple(rows)


def policies_of(setting: Setting, gate: Gate) -> dict[str, Decide]:
    """Return the policies by name, all but the oracle."""
    series = setting.series
    shares = series.shares

    def every_window(window: int, running: Plan) -> Choice:
        return Choice(plan=setting.settled(running, setting.plan(shares[window - 1])))

    def eplb_every_window(window: int, running: Plan) -> Choice:
        return Choice(plan=setting.eplb(shares[window - 1]))

    return {
        "never": lambda *_: Choice(plan=None),
        "every_window": every_window,
        "eplb_every_window": eplb_every_window,
        "on_drift": _OnDrift(setting),
        "on_gain": _OnGain(gate),
    }


class _OnDrift:
    """Re-plans on the last window when it has drifted from those that the running plan was made from."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.since: int | None = None  # the first window that is alike, of those the plan stands for

    def __call__(self, window: int, running: Plan) -> Choice:
        setting, last = self.setting, window - 1
        windows = setting.series.windows
        if self.since is None:
            reason = "the plan that ran at first was made from none of the windows"
        else:
            request = setting.request
            drift = drift_between(
                windows[self.since : last], windows[last:window], alpha=request.alpha, seed=request.seed
            )
            if drift.drifted is None:
                return Choice(plan=None, reason="too little to tell drift from sampling")
            size = f"loads differ by {drift.size:.3g}, by sampling alone by {drift.noise:.3g}; p = {drift.p_value:.2g}"
            if not drift.drifted:
                return Choice(plan=None, reason=size)
            reason = size
        self.since = last
        target = setting.plan(setting.series.shares[last])
        return Choice(plan=setting.settled(running, target), reason=reason)


class _OnGain:
    """Re-plans when the gate says that it pays."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.ran: list[Plan] = []

    def __call__(self, window: int, running: Plan) -> Choice:
        self.ran.append(running)
        decision = self.gate.decide(window, self.ran)
        name = "" if decision.recipe is None else f"by the {decision.recipe.name} forecast: "
        return Choice(plan=decision.plan, reason=name + decision.reason)
