"""The result of a re-plan: a verdict, the plan with few moves, what it costs, and the way there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from placement import Plan
from placement.moves.carry import Carried
from placement.moves.cost import Moves
from placement.moves.rollout import Rollout
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.shown import Facts, Shown, number

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Replan", "ReplanPoint", "ReplanVerdict", "replan_sentence"]

ReplanVerdict = Literal["leave_it", "replan", "not_enough_data"]


@dataclass(frozen=True, kw_only=True)
class ReplanPoint:
    """A plan between the one that runs and the best one that was found.

    Attributes
    ----------
    moved_experts : int
        Experts that are sent to GPUs.
    moved_bytes : int or None
    between_nodes : int
        Of these, sent from another node.
    value : float
        On the part that plans are fitted on.
    gain_fraction : float or None
        There; None where the plan that runs can't go on.
    transfer_s : float or None
    chosen : bool
    """

    moved_experts: int
    moved_bytes: int | None
    between_nodes: int
    value: float
    gain_fraction: float | None
    transfer_s: float | None
    chosen: bool


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Replan(Shown, ByContent):
    """Whether to change the plan that runs, to what, and how.

    Attributes
    ----------
    verdict : {"leave_it", "replan", "not_enough_data"}
    reasons : tuple of str
        Sentences, the most important first.
    unit : str
        ``ms per step`` where machine and model are known, else ``score``.
    before : float or None
        On what is held out, under the plan that runs; None where it can't go on.
    after : float
    gain_fraction : float or None
        Of a step; of a score, with what even loads cost counted in (`ScoreMeasure.gain`).
    gain_interval : (float, float) or None
        90 %.
    horizon_s, saved_s : float
        How long the new plan is expected to be good, and what of that time it saves; `saved_s` is None where gains are
        not in time.
    stall_s, transfer_s : float
        What the steps cost: the engine's stalls, and bytes over the links; `transfer_s` is None where sizes or links
        are not known.
    plan : Plan
        The one with few moves.
    moves : Moves
        To it.
    without_relabelling, with_relabelling : int
        Experts that the best plan that was found would move, under the names of the search and under the best ones.
    front : tuple of ReplanPoint
        From few moves to many.
    rollout : Rollout
    plans : tuple of Plan
        After each step.
    carried : Carried
        What the GPUs hold.
    """

    verdict: ReplanVerdict
    reasons: tuple[str, ...]
    unit: str
    before: float | None
    after: float
    gain_fraction: float | None
    gain_interval: tuple[float, float] | None
    horizon_s: float
    saved_s: float | None
    stall_s: float
    transfer_s: float | None
    plan: Plan
    moves: Moves
    without_relabelling: int
    with_relabelling: int
    front: tuple[ReplanPoint, ...]
    rollout: Rollout
    plans: tuple[Plan, ...]
    carried: Carried

    @property
    def cost_s(self) -> float:
        """Stalls and transfers, as far as they are known."""
        return self.stall_s + (self.transfer_s or 0.0)

    def _shown(self) -> tuple[str, Facts]:
        moved = f"{self.moves.experts:,} experts, {self.moves.between_nodes:,} from another node"
        size = "" if self.moves.bytes is None else f", {number(self.moves.bytes / 1e9)} GB"
        facts = [
            ("moves", moved + size),
            ("steps", f"{len(self.rollout.steps)}, {self.cost_s:.3g} s"),
            *(("why", reason) for reason in self.reasons[:4]),
        ]
        told = {"verdict": self.verdict, "moved_experts": self.moves.experts, "saved_s": self.saved_s}
        return replan_sentence(told | {"gain_fraction": self.gain_fraction, "gain_interval": self.gain_interval}), facts

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a JSON-ready dictionary; the plan is apart."""
        layer_ids = self.plan.layer_ids
        found = {name: getattr(self, name) for name in ("verdict", "unit", "before", "after", "gain_fraction")}
        return found | {
            "gain_interval": None if self.gain_interval is None else list(self.gain_interval),
            "reasons": list(self.reasons),
            "horizon_s": self.horizon_s,
            "saved_s": self.saved_s,
            "cost_s": self.cost_s,
            "stall_s": self.stall_s,
            "transfer_s": self.transfer_s,
            **_moved(self.moves),
            "moved_by_layer": _by_layer(self.moves, layer_ids),
            "best_plan": {
                "moved_without_relabelling": self.without_relabelling,
                "moved_with_relabelling": self.with_relabelling,
            },
            "front": [asdict(point) for point in self.front],
            "machine": {
                "gpus": len(self.carried.rank_before),
                "dead_gpus": list(self.carried.dead),
                "rank_before": [None if rank < 0 else int(rank) for rank in self.carried.rank_before],
                "lost_experts": [[int(layer_ids[row]), int(expert)] for row, expert in self.carried.lost],
            },
            "steps": self.steps(),
        }

    def steps(self) -> list[dict[str, Any]]:
        """Return the steps in order, JSON-ready; every one is undone by the plan before it."""
        return [
            {
                "step": index,
                "layers": sorted({int(self.plan.layer_ids[row]) for row in step.moves.arrivals[:, 0]}),
                **_moved(step.moves),
                "staging_experts": step.staging,
                "transfer_s": step.transfer_s,
                "back_transfer_s": step.back_s,
                "arrivals": [
                    [int(self.plan.layer_ids[row]), int(expert), int(gpu), None if source < 0 else int(source)]
                    for row, expert, gpu, source in step.moves.arrivals
                ],
            }
            for index, step in enumerate(self.rollout.steps, 1)
        ]

    def to_frame(self) -> DataFrame:
        """Return the front as a table, a row each; needs pandas (the extra ``frame``).

        Raises
        ------
        ImportError
        """
        return frame([asdict(point) for point in self.front])


def _moved(moves: Moves) -> dict[str, Any]:
    return {
        "moved_experts": moves.experts,
        "moved_bytes": moves.bytes,
        "between_nodes": moves.between_nodes,
        "from_checkpoint": moves.from_checkpoint,
    }


def _by_layer(moves: Moves, layer_ids: npt.NDArray[np.int64]) -> Mapping[str, int]:
    counts = moves.by_layer(len(layer_ids))
    return {str(layer): int(count) for layer, count in zip(layer_ids, counts, strict=True) if count}


def replan_sentence(found: Mapping[str, Any]) -> str:
    """Return the verdict in one sentence, of a document of `Replan.as_dict`."""
    moved = f"{found['moved_experts']:,} experts moved"
    if found["gain_fraction"] is None or found["gain_interval"] is None:
        return f"Re-plan: the plan that runs can't go on; {moved}."
    low, high = found["gain_interval"]
    what = "of a step" if found["saved_s"] is not None else "of the score, even loads counted in,"
    gain = f"{100 * found['gain_fraction']:+.1f} % {what} ({100 * low:+.1f} % to {100 * high:+.1f} %, 90 %)"
    return {
        "replan": f"Re-plan: {gain} for {moved}.",
        "leave_it": f"Leave it: a change gains {gain} for {moved}.",
        "not_enough_data": f"Not enough data to tell: a change gains {gain} for {moved}.",
    }[found["verdict"]]
