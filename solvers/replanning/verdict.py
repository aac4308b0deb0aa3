"""Whether a re-plan pays: the rule, and the sentences that say why."""

from __future__ import annotations

from dataclasses import dataclass

from placement.advice.judging import LEAST_PER_EXPERT, TELLING, WORTH
from placement.moves.carry import Carried
from placement.moves.cost import Moves
from solvers.replanning.judging import Judged, Measure
from solvers.replanning.result import ReplanVerdict

__all__ = ["reasons_of", "verdict_of"]


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a re-plan costs, and for how long it is good.

    Attributes
    ----------
    stall_s : float
    transfer_s : float or None
    horizon_s : float
    """

    stall_s: float
    transfer_s: float | None
    horizon_s: float

    @property
    def cost_s(self) -> float:
        """Stalls and transfers, as far as they are known."""
        return self.stall_s + (self.transfer_s or 0.0)


def verdict_of(
    judged: Judged | None, measure: Measure, bill: Bill, moved: int, *, broken: bool = False
) -> ReplanVerdict:
    """Return the verdict by the rule that `docs/replan.md` states.

    Parameters
    ----------
    judged : Judged or None
        None where the plan that runs can't go on.
    measure : Measure
    bill : Bill
    moved : int
        Experts.
    broken : bool
        Whether the plan that runs does not keep what is asked.
    """
    if judged is None or broken:
        return "replan"
    if not moved:
        return "leave_it"
    if judged.groups < measure.least_groups:
        return "not_enough_data"
    needed = _needed(measure.in_time, bill)
    low, high = judged.interval
    if low > needed:
        return "replan"
    if high > needed and (judged.half > TELLING or judged.per_expert < LEAST_PER_EXPERT):
        return "not_enough_data"
    return "leave_it"


def _needed(in_time: bool, bill: Bill) -> float:
    """Return the gain that pays, as a fraction; a score has no time, so that it is the least that ever does."""
    if not in_time or not bill.horizon_s:
        return float("inf") if in_time else WORTH
    return bill.cost_s / bill.horizon_s


def reasons_of(
    verdict: ReplanVerdict,
    judged: Judged | None,
    measure: Measure,
    bill: Bill,
    moves: Moves,
    carried: Carried,
    notes: tuple[str, ...],
) -> tuple[str, ...]:
    """Return why, in sentences."""
    found: list[str] = []
    if carried.dead:
        found.append(f"Rank(s) {', '.join(map(str, carried.dead))} are gone; the others keep what they can.")
    if len(carried.lost):
        found.append(f"{len(carried.lost)} experts have no live copy: they are loaded from the checkpoint.")
    if judged is not None and not moves.experts:
        found.append("No plan was found that is better: nothing would move.")
    elif judged is not None:
        found.append(_gain(judged, measure, bill))
    if verdict == "not_enough_data" and judged is not None:
        found.append(
            f"{judged.groups} sequences, groups or dumps are held out, with {judged.per_expert:,.0f} tokens per expert "
            "and layer: record more."
        )
    if moves.experts:
        size = "" if moves.bytes is None else f", {moves.bytes / 1e9:.3g} GB"
        time = "" if bill.transfer_s is None else f", {bill.transfer_s:.3g} s over the links"
        found.append(f"{moves.experts:,} experts move ({moves.between_nodes:,} between nodes{size}{time}).")
    if bill.transfer_s is None and moves.experts:
        found.append("How long moving takes is not known: it needs a model and links (machine, or a topology).")
    return (*found, *notes)


def _gain(judged: Judged, measure: Measure, bill: Bill) -> str:
    low, high = judged.interval
    interval = f"{100 * low:+.2f} % to {100 * high:+.2f} %"
    if not measure.in_time:
        return (
            f"On what was held out the score goes from {judged.before:.4g} to {judged.after:.4g}: with even loads "
            f"counted in, a gain of {100 * judged.fraction:.2f} % ({interval}). Below {100 * WORTH:g} % no change "
            "pays; machine and model weigh time against moves."
        )
    if not bill.horizon_s:
        return "The plan is to be good for no time at all, so that nothing pays."
    return (
        f"In {bill.horizon_s:g} s the gain of {100 * judged.fraction:.2f} % ({interval}) saves "
        f"{judged.fraction * bill.horizon_s:.3g} s ({low * bill.horizon_s:.3g} to {high * bill.horizon_s:.3g}); the "
        f"change costs {bill.cost_s:.3g} s."
    )
