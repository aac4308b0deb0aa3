"""What a simulation finds: each policy's time, window by window, and what its re-plans cost and gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from placement import Plan
from traces.series.drift import Drift
from traces.series.forecasts import ForecastScore
from traces.support.shown import Facts, Shown, number

__all__ = ["EngineSetting", "PolicyRun", "PolicyWindow", "Simulation"]


@dataclass(frozen=True, kw_only=True)
class PolicyWindow:
    """One window under a policy.

    Attributes
    ----------
    window : int
    name : str
    step_ms : float
        Of a forward pass, on the window's own tokens or counts.
    ms : float
        Of the window: its passes, and before them the re-plan.
    replanned : bool
    moved_experts, moved_bytes : int
    cost_ms : float
        Stall and transfers of the re-plan.
    net_ms : float or None
        What the re-plan gained against the plan before it, up to the next one or the end, less its cost; None where
        there was none. Known afterwards only.
    reason : str
        Why, of policies that decide.
    """

    window: int
    name: str
    step_ms: float
    ms: float
    replanned: bool
    moved_experts: int
    moved_bytes: int
    cost_ms: float
    net_ms: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PolicyRun:
    """A policy over the whole series.

    Attributes
    ----------
    name : str
    total_ms : float
        Of all windows, with moves and stalls.
    replans, moved_experts, moved_bytes : int
    unpaid : int
        Re-plans whose `net_ms` is below 0.
    per_window : tuple of PolicyWindow
    """

    name: str
    total_ms: float
    replans: int
    moved_experts: int
    moved_bytes: int
    unpaid: int
    per_window: tuple[PolicyWindow, ...]

    @classmethod
    def of(cls, name: str, windows: tuple[PolicyWindow, ...]) -> PolicyRun:
        """Add up windows."""
        return cls(
            name=name,
            total_ms=sum(each.ms for each in windows),
            replans=sum(each.replanned for each in windows),
            moved_experts=sum(each.moved_experts for each in windows),
            moved_bytes=sum(each.moved_bytes for each in windows),
            unpaid=sum(each.net_ms is not None and each.net_ms < 0 for each in windows),
            per_window=windows,
        )


@dataclass(frozen=True, kw_only=True)
class EngineSetting:
    """What an engine's own re-planning would cost on the series.

    Attributes
    ----------
    engine : str
    options : str
        As they are given on its command line.
    total_ms : float
    replans : int
    recommended : bool
        The best of its engine here: chosen in hindsight, so that another series will do somewhat worse.
    """

    engine: str
    options: str
    total_ms: float
    replans: int
    recommended: bool


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Simulation(Shown):
    """Policies side by side.

    Attributes
    ----------
    policies : tuple of PolicyRun
        ``never``, ``every_window``, ``eplb_every_window``, ``on_drift``, ``on_gain`` and ``oracle``.
    drifts : tuple of Drift
        From each window to the next, (W - 1); of single dumps, from all before.
    forecasts : tuple of ForecastScore
        The best first.
    engine_settings : tuple of EngineSetting
    now : mapping
        What the gate says after the last window: ``replan`` and ``reason``.
    plan : Plan
        That the gate would run next.
    notes : tuple of str
        Machine and model, and what was assumed.
    windows : int
    window_passes : int
    """

    policies: tuple[PolicyRun, ...]
    drifts: tuple[Drift, ...]
    forecasts: tuple[ForecastScore, ...]
    engine_settings: tuple[EngineSetting, ...]
    now: Mapping[str, Any]
    plan: Plan = field(compare=False)
    notes: tuple[str, ...]
    windows: int
    window_passes: int

    def __getitem__(self, name: str) -> PolicyRun:
        """Return the run of a policy."""
        return next(run for run in self.policies if run.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the plan, JSON-ready."""
        return {
            "windows": self.windows,
            "window_passes": self.window_passes,
            "policies": [asdict(run) for run in self.policies],
            "drift": [each.as_dict() for each in self.drifts],
            "forecasts": [each.as_dict() for each in self.forecasts],
            "engine_settings": [asdict(each) for each in self.engine_settings],
            "now": dict(self.now),
            "notes": list(self.notes),
        }

    def _shown(self) -> tuple[str, Facts]:
        rows = {
            run.name: f"{number(run.total_ms / 1e3)} s, {run.replans} re-plans, {run.moved_experts:,} experts moved"
            for run in self.policies
        }
        return f"Simulation of {self.windows} windows", rows | {"now": str(self.now["reason"])}
