"""One replay of tokens through a plan, batch by batch, and its figures."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.loads.split import best_split_max_load
from placement.plan.plan import Plan
from placement.problem.objective import SettledObjective
from placement.replay.activation import activated_experts
from placement.replay.evaluation import Evaluation, HotLink
from placement.replay.kernels.crossing import sum_crossing
from placement.replay.passes import Passes, PassFigures
from placement.replay.replay import Replay
from placement.topology.topology import Topology
from traces import Batch
from traces.profile.kernels import count_load
from traces.profile.sample import SampleBuilder
from traces.support.parallel import map_threads

__all__ = ["Evaluator"]

BATCHED_TOKENS = 32_768


class Evaluator:
    """Replays tokens through a plan as they come.

    Parameters
    ----------
    plan : Plan
    topology : Topology
    objective : SettledObjective
        How tokens travel.
    decode_batch : int or None
        Tokens per batch, to count activated experts; None where they are not counted.
    pass_tokens : tuple of int
        Sizes of passes.
    alike : Evaluator, optional
        Another replay of the same tokens through the same plan: their best split is taken from there.
    """

    def __init__(
        self,
        plan: Plan,
        topology: Topology,
        objective: SettledObjective,
        *,
        decode_batch: int | None,
        pass_tokens: tuple[int, ...],
        alike: Evaluator | None = None,
    ) -> None:
        self.plan, self.topology, self.objective, self.decode_batch = plan, topology, objective, decode_batch
        self._replay = Replay.of(
            plan.physical_to_logical_map, plan.num_experts, plan.slots_per_gpu, topology, objective
        )
        self._forks: list[Replay] = []
        self._passes = Passes(pass_tokens, plan.num_layers, topology.num_gpus)
        self._sample = SampleBuilder(0 if decode_batch is None else BATCHED_TOKENS, 0)
        self._alike = alike
        # What all replicas of an expert serve together, which the best split is of.
        self._load = np.zeros((1, plan.num_layers, plan.num_experts), np.int64)

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return self._replay.tokens + sum(fork.tokens for fork in self._forks)

    @property
    def num_bytes(self) -> int:
        """Memory of the matrices, for one thread."""
        return self._replay.traffic.nbytes

    def add(self, batch: Batch, pool: Executor | None = None, threads: int = 1) -> None:
        """Replay a batch, on `threads` threads of a pool, or on the caller's."""
        self._sample.add(batch)
        bounds = self._passes.bounds(len(batch))
        while len(self._forks) < threads - 1:
            self._forks.append(self._replay.fork())
        share = -(-(len(bounds) - 1) // threads)

        def work(part: Replay, number: int) -> npt.NDArray[np.int32]:
            own = bounds[number * share : (number + 1) * share + 1]
            if len(own) < 2:
                return np.zeros((0, *part.load.shape), np.int32)
            piece = batch.select(slice(own[0], own[-1]))
            return part.add(piece.topk_ids, piece.rows, piece.seq_id, piece.source_rank, own - own[0])

        run: Callable[..., Any] = map if pool is None else pool.map
        cells = list(run(work, [self._replay, *self._forks][:threads], range(threads)))
        self._passes.add(bounds, cells[0] if threads == 1 else np.concatenate(cells))
        if self._splits and self._alike is None:
            for layer in range(self.plan.num_layers):
                count_load(batch.topk_ids, layer, np.array([len(batch)]), self._load)

    @property
    def _splits(self) -> bool:
        return bool((self.plan.replicas > 1).any())

    @cached_property
    def best_split(self) -> npt.NDArray[np.float64] | None:
        """The least largest GPU load of each layer that any split of the tokens over the replicas gives, (L,)."""
        if self._alike is not None:
            return self._alike.best_split
        if not self._splits:
            return None
        fair = np.full(self.topology.num_gpus, 1 / self.topology.num_gpus)  # as other metrics, whatever the speeds
        load = self._load[0].astype(np.float64)
        return best_split_max_load(load, self.plan.physical_to_logical_map, fair)

    def figures(self, threads: int = 1) -> Evaluation:
        """Return the figures of all tokens so far, at least one."""
        for fork in self._forks:
            self._replay.join(fork)
        self._forks = []
        drawn, activated = self._sample.finish(), None
        if drawn is not None and self.decode_batch is not None:
            plan = self.plan
            activated = activated_experts(
                plan.physical_to_logical_map,
                plan.num_experts,
                plan.slots_per_gpu,
                drawn,
                self.topology,
                self.objective,
                self.decode_batch,
            )
        return _report(self._replay, self.plan, self._passes.figures(), activated, self.best_split, threads)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
    return ratio


def _report(
    replay: Replay,
    plan: Plan,
    per_pass: tuple[PassFigures, ...],
    activated: npt.NDArray[np.float64] | None,
    best_split: npt.NDArray[np.float64] | None,
    threads: int,
) -> Evaluation:
    topology, objective = replay.topology, replay.objective
    context = objective.execution == "context_coherent"
    sums = map_threads(
        lambda matrix: sum_crossing(matrix, topology.node_of_gpu, topology.hop_cost), replay.traffic, threads
    )
    counts = np.array([item[:3] for item in sums], dtype=np.int64).reshape(-1, 3)  # of one layer, there are none
    total, hop = counts[:, 0], np.array([item[3] for item in sums], dtype=np.float64)
    assigned = replay.load.sum(axis=1)
    active = replay.fanout[:, 2]
    if context:
        crossing = counts[:, 1:]
        whole = total
    else:
        crossing, whole = replay.away[:, :2], assigned
    hop_whole = active if not context and objective.dedup != "none" else total
    mean, largest = assigned / topology.num_gpus, replay.load.max(axis=1)
    max_over_mean = _ratio(largest, mean)
    columns = {
        "cross_gpu_fraction": _ratio(crossing[:, 0], whole),
        "cross_node_fraction": _ratio(crossing[:, 1], whole),
        "fanout_gpus": _ratio(replay.fanout[:, 0], active),
        "fanout_nodes": _ratio(replay.fanout[:, 1], active),
        "traffic": _ratio(hop, hop_whole),
        "imbalance_max_over_mean": max_over_mean,
    }
    if not context:
        columns["remote_gpus"] = _ratio(replay.away[:, 2], active)
        columns["remote_nodes"] = _ratio(replay.away[:, 3], active)
    if best_split is not None:
        columns["imbalance_optimal_split"] = best_split
    if activated is not None:
        columns["activated_experts"] = activated
    per_layer: dict[str, list[Any]] = {"layer_id": plan.layer_ids.tolist(), "tokens": active.tolist()}
    per_layer |= {name: values.tolist() for name, values in columns.items()}
    matrix = replay.traffic.sum(axis=0)

    def overall(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> float:
        return float(part.sum() / whole.sum()) if whole.sum() else 0.0

    return Evaluation(
        execution=objective.execution,
        dedup=None if context else objective.dedup,
        ownership=None if context else objective.ownership,
        replica_policy=objective.replica_policy,
        tokens=replay.tokens,
        cross_gpu_fraction=overall(crossing[:, 0], whole),
        cross_node_fraction=overall(crossing[:, 1], whole),
        fanout_gpus=overall(replay.fanout[:, 0], active),
        fanout_nodes=overall(replay.fanout[:, 1], active),
        remote_gpus=None if context else overall(replay.away[:, 2], active),
        remote_nodes=None if context else overall(replay.away[:, 3], active),
        traffic=overall(hop, hop_whole),
        traffic_unit=objective.traffic_unit,
        imbalance_max_over_mean=float(max_over_mean.mean()),
        balancedness_whole_trace=overall(mean, largest),
        per_pass=per_pass,
        imbalance_optimal_split=None if best_split is None else float(best_split.mean()),
        activated_experts=None if activated is None else float(activated.mean()),
        per_layer=per_layer,
        traffic_matrix=matrix,
        hottest_links=_hottest(matrix - np.diag(matrix.diagonal())),
        gpu_load=replay.load,
    )


def _hottest(matrix: npt.NDArray[np.int64], count: int = 8) -> tuple[HotLink, ...]:
    flat, total = matrix.ravel(), matrix.sum()
    used = np.flatnonzero(flat)  # few, on large machines
    order = used[np.argsort(-flat[used], kind="stable")[:count]]
    return tuple(
        HotLink(
            source=int(link // len(matrix)),
            target=int(link % len(matrix)),
            messages=int(flat[link]),
            share=float(flat[link] / total),
        )
        for link in order
    )
