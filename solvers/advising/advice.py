"""The result of an advice: a verdict, its figures, why, and what else could be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from placement import Plan
from placement.advice.judging import Gain, Verdict
from placement.advice.without_ep import Alternative
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.shown import Facts, Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Advice", "TwoPhases", "sentence"]


def percent(fraction: float) -> str:
    """Return a fraction in per cent, with its sign."""
    return f"{100 * fraction:+.1f} %"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Advice(Shown, ByContent):
    """Whether to change the placement, on tokens that the plan was not fitted on.

    Attributes
    ----------
    verdict : {"worth_it", "not_worth_it", "not_enough_data"}
        By the rule of `placement.advice.judging.verdict_of`.
    step_ms_before, step_ms_after : float
        Of a forward pass under the plan that runs, and under the one that was found.
    gain_fraction : float
        Of the step.
    gain_interval : (float, float)
        90 %, over sequences by a bootstrap, and over the time model's own error.
    moe_share : float
        Of dispatch, experts and combine in the step before.
    reasons : tuple of str
        Sentences.
    alternatives : tuple of Alternative
    phase : str
    machine, model : str
    plan : Plan
        The plan that was found.
    gain : Gain
        Times by part and layer, before and after.
    """

    verdict: Verdict
    step_ms_before: float
    step_ms_after: float
    gain_fraction: float
    gain_interval: tuple[float, float]
    moe_share: float
    reasons: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    phase: str
    machine: str
    model: str
    plan: Plan
    gain: Gain

    def _shown(self) -> tuple[str, Facts]:
        facts = [
            ("step", f"{self.step_ms_before:.4g} ms before, {self.step_ms_after:.4g} ms after"),
            ("MoE share", f"{self.moe_share:.0%} of the step before"),
            *(("why", reason) for reason in self.reasons[:3]),
            *((each.name, each.detail) for each in self.alternatives[:4]),
        ]
        return sentence(self), facts

    def as_dict(self) -> dict[str, Any]:
        """Return the advice as a JSON-ready dictionary."""
        names = ("verdict", "step_ms_before", "step_ms_after", "gain_fraction")
        return {name: getattr(self, name) for name in names} | {
            "gain_interval": list(self.gain_interval),
            "moe_share": self.moe_share,
            "reasons": list(self.reasons),
            "alternatives": [asdict(each) for each in self.alternatives],
        }

    def detailed(self) -> dict[str, Any]:
        """Return the same with the verdict as a sentence, the parts of a step, and the milliseconds of each layer."""
        gain = self.gain
        old, new = (part.dispatch + part.experts + part.combine + part.rest for part in (gain.before, gain.after))
        layers = [
            {
                "layer_id": int(layer),
                "before_ms": float(before),
                "after_ms": float(after),
                "messages_between_nodes_before": float(remote_before),
                "messages_between_nodes_after": float(remote_after),
            }
            for layer, before, after, remote_before, remote_after in zip(
                self.plan.layer_ids, old, new, gain.remote_before, gain.remote_after, strict=True
            )
        ]
        parts = [{"name": name, "before": pair[0], "after": pair[1]} for name, pair in self.parts().items()]
        told = {"sentence": sentence(self), "phase": self.phase, "machine": self.machine, "model": self.model}
        return told | self.as_dict() | {"parts": parts, "layers": layers}

    def parts(self) -> dict[str, tuple[float, float]]:
        """Return milliseconds of each part of a step, before and after, and copies of a token between nodes."""
        found = {}
        for name in ("dispatch", "experts", "combine"):
            found[name] = tuple(float(getattr(part, name).sum()) for part in (self.gain.before, self.gain.after))
        layers = len(self.gain.before.experts)
        moe = [sum(found[name][number] for name in found) for number in (0, 1)]
        rest = moe[0] * (1 / self.moe_share - 1) if self.moe_share else layers * self.gain.before.rest
        found["rest"] = (rest, rest)
        found["step"] = (self.step_ms_before, self.step_ms_after)
        remote = (float(self.gain.remote_before.mean()), float(self.gain.remote_after.mean()))
        found["messages between nodes"] = remote
        return found  # type: ignore[return-value]  # pairs, as was made

    def to_frame(self) -> DataFrame:
        """Return the alternatives as a table, a row each; needs pandas (the extra ``frame``).

        Raises
        ------
        ImportError
        """
        return frame([asdict(each) for each in self.alternatives])


def sentence(advice: Advice) -> str:
    """Return the verdict in one sentence."""
    low, high = advice.gain_interval
    gain = f"{percent(advice.gain_fraction)} of a {advice.phase} step ({percent(low)} to {percent(high)}, 90 %)"
    return {
        "worth_it": f"Worth it: the plan gains {gain}.",
        "not_worth_it": f"Not worth it: a plan gains {gain}.",
        "not_enough_data": f"Not enough data to tell: a plan gains {gain}.",
    }[advice.verdict]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TwoPhases(Shown, ByContent):
    """Prefill and decode, each with a plan of its own, and one plan for both.

    Attributes
    ----------
    phases : mapping of str to Advice
        By phase.
    one_plan : mapping
        Of the best of both plans, where one is used for both: ``of`` (whose plan it is), ``prefill_step_ms``,
        ``decode_step_ms``, ``prefill_cost_fraction`` and ``decode_cost_fraction`` (beyond each phase's own plan).
    separate_pools : mapping
        What a pool for each phase needs: ``gpus``, ``expert_gb_per_gpu`` by phase, ``moved_gb`` to go from one plan to
        the other on the same GPUs, and ``detail``.
    reasons : tuple of str
    """

    phases: Mapping[str, Advice]
    one_plan: Mapping[str, Any]
    separate_pools: Mapping[str, Any]
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """``worth_it`` if a plan is in either phase; ``not_enough_data`` if neither is, and one can't be told."""
        verdicts = [advice.verdict for advice in self.phases.values()]
        order: tuple[Verdict, ...] = ("worth_it", "not_enough_data", "not_worth_it")
        return next(word for word in order if word in verdicts)

    def _shown(self) -> tuple[str, Facts]:
        facts = [(name, sentence(advice)) for name, advice in self.phases.items()]
        return f"Both phases: {self.verdict}", [*facts, *(("why", reason) for reason in self.reasons)]

    def as_dict(self) -> dict[str, Any]:
        """Return the advice as a JSON-ready dictionary."""
        return {
            "verdict": self.verdict,
            "phases": {name: advice.as_dict() for name, advice in self.phases.items()},
            "one_plan": dict(self.one_plan),
            "separate_pools": dict(self.separate_pools),
            "reasons": list(self.reasons),
        }

    def to_frame(self) -> DataFrame:
        """Return the alternatives of both phases as a table; needs pandas (the extra ``frame``).

        Raises
        ------
        ImportError
        """
        rows = [{"phase": name} | asdict(each) for name, advice in self.phases.items() for each in advice.alternatives]
        return frame(rows)
