"""What a plan costs on the tokens of a domain, and how sure that is: groups of sequences, drawn again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement import Plan, Problem
from placement.replay.replay import Replay
from traces import Trace
from traces.profile.sample import row_priority

__all__ = ["GroupCosts", "replay_groups"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
GROUPS = 128  # of sequences, by a hash: a bootstrap over so many is as good as over more
BLOCK = 64  # tokens that are taken for a sequence where the trace has none, as in `Trace.split`


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupCosts:
    """What each group of a domain's sequences does under a plan.

    Attributes
    ----------
    problem : Problem
        Its objective's weights, its caps and its topology count.
    load : (S, L, G) int64
        Assignments on each GPU.
    hops : (S,) float64
        Hop cost of all messages; see `Objective`.
    messages : (S,) int64
        What the traffic is a mean over: token-layers, assignments or pairs of layers; see `Objective`.
    """

    problem: Problem
    load: Ints
    hops: Floats
    messages: Ints

    def cost(self, drawn: Floats | None = None) -> Floats:
        """Return the objective on these tokens: traffic, imbalance and load above the cap, each with its weight.

        The weight of the spread is left out: it hedges against tokens that are not known, and these are.

        Parameters
        ----------
        drawn : (B, S) float64, optional
            How often each group counts in each of B draws; every group once by default.

        Returns
        -------
        (B,) float64
        """
        times = np.ones((1, len(self.load))) if drawn is None else drawn
        rest, above = self._parts(times)
        result: Floats = rest + self.problem.objective.imbalance_weight * above.mean(axis=1)
        return result

    def hedged(self) -> float:
        """Return what other tokens of the domain are expected to cost: with the spread, under its weight.

        In a layer, how far the busiest GPU is above its share on these tokens, and how far loads may be off on others,
        are independent, so that their squares add up: what is small beside the noise of the sequences is worth little.
        """
        weights = self.problem.objective
        rest, above = self._parts(np.ones((1, len(self.load))))
        both = np.hypot(weights.imbalance_weight * above[0], weights.load_spread_weight * self.spread())
        return float(rest[0] + both.mean())

    def _parts(self, times: Floats) -> tuple[Floats, Floats]:
        """Return what draws (B, S) cost but for the imbalance, (B,), and the largest load less 1 by layer, (B, L)."""
        weights, groups = self.problem.objective, len(self.load)
        layers, gpus = self.load.shape[1:]
        load = (times @ self.load.reshape(groups, -1).astype(np.float64)).reshape(len(times), layers, gpus)
        total = np.maximum(load.sum(axis=2, keepdims=True), 1.0)
        relative = load / total / self.problem.topology.fair_share
        rest = weights.traffic_weight * (times @ self.hops) / np.maximum(times @ self.messages, 1.0)
        if (caps := self.problem.load_caps) is not None:
            over = np.maximum(relative - caps[None, :, None], 0.0).sum(axis=2).mean(axis=1)
            rest = rest + weights.load_excess_weight * over
        return rest, relative.max(axis=2) - 1.0

    def spread(self) -> Floats:
        """Return the standard error of a GPU's load in each layer, in mean GPU loads, from groups of sequences, (L,).

        Sequences have any length: loads are ratios of two sums over clusters of unequal size (see
        `placement.loads.deviations.sequence_deviations`).
        """
        groups, layers, gpus = self.load.shape
        if groups < 2:
            return np.zeros(layers)
        count = self.load.sum(axis=2, keepdims=True)
        total = np.maximum(count.sum(axis=0), 1)
        apart = (self.load - count * (self.load.sum(axis=0) / total)) / total
        variance = (apart**2).sum(axis=0) * groups / (groups - 1)
        spread: Floats = np.sqrt(variance.mean(axis=1)) * gpus
        return spread

    @property
    def imbalance(self) -> float:
        """Mean over layers of the largest GPU load over the fair one."""
        load = self.load.sum(axis=0)
        relative = load / np.maximum(load.sum(axis=1, keepdims=True), 1) / self.problem.topology.fair_share
        return float(relative.max(axis=1).mean())

    @property
    def traffic(self) -> float:
        """The objective's traffic term."""
        return float(self.hops.sum() / max(int(self.messages.sum()), 1))


def replay_groups(problem: Problem, plans: Sequence[Plan], trace: Trace) -> list[GroupCosts]:
    """Replay a domain's tokens through plans, group by group of sequences; they are read once for all plans.

    Parameters
    ----------
    problem : Problem
    plans : sequence of Plan
    trace : Trace
        Streams; memory does not grow with it.
    """
    objective, topology = problem.objective, problem.topology
    replays = [
        Replay.of(plan.physical_to_logical_map, plan.num_experts, plan.slots_per_gpu, topology, objective)
        for plan in plans
    ]
    load = np.zeros((len(plans), GROUPS, problem.num_layers, problem.num_gpus), np.int64)
    hops = np.zeros((len(plans), GROUPS))
    messages = np.zeros((len(plans), GROUPS), np.int64)
    for batch in trace.batches():
        key = batch.rows // BLOCK if batch.seq_id is None else batch.seq_id.astype(np.int64)
        group = (row_priority(key, 0) % np.uint64(GROUPS)).astype(np.int64)
        for number in np.unique(group).tolist():
            part = batch.select(group == number)
            for which, replay in enumerate(replays):
                cell = replay.fork()
                cell.add(part.topk_ids, part.rows, part.seq_id, part.source_rank)
                load[which, number] += cell.load
                hops[which, number] += float((cell.traffic * topology.hop_cost).sum())
                if objective.execution == "context_coherent":
                    messages[which, number] += int(cell.traffic.sum())
                elif objective.dedup == "none":
                    messages[which, number] += int(cell.load.sum())
                else:
                    messages[which, number] += int(cell.fanout[:, 2].sum())
    used = load[0].any(axis=(1, 2))
    return [
        GroupCosts(problem=problem, load=load[which, used], hops=hops[which, used], messages=messages[which, used])
        for which in range(len(plans))
    ]
