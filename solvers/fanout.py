"""Search under dispatch: fewer messages per token by exact replay of sampled tokens, copies included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost import home_share
from placement.replay import POLICIES, copy_table, homes_of
from solvers.arrange import conform, separate_copies
from solvers.eplb import Eplb
from solvers.kernels.fanout import LayerModel, LayerState, anneal_layer, route_all
from solvers.kernels.random import seeded
from solvers.search import Search
from solvers.threads import run_together
from traces import TokenSample

__all__ = ["improve_fanout"]

Table = npt.NDArray[np.int32]
SEARCH_TOKENS = 4096  # more tokens cost trials; the plan is scored on the whole sample
STEP = 256
HOPELESS = 8.0  # a trial that costs this many typical changes of traffic in load alone is not priced further
DEFAULT_TRIALS_PER_LAYER = 40_000


def improve_fanout(problem: Problem, search: Search, *, hot: float, cold: float) -> None:
    """Anneal every layer from EPLB's plan (or the search's start) and offer the result.

    Parameters
    ----------
    problem : Problem
        Dispatch; layers are independent of each other.
    search : Search
    hot, cold : float
        Temperatures in units of the mean change of traffic by a random trial; the start is good, so `hot` is divided
        by 4.
    """
    base = _base(problem)
    search.offer(base, 0)
    start = base if search.start is None else np.asarray(search.start, dtype=np.int32)
    if problem.num_gpus == 1:
        return
    if search.work is None and search.remaining_s is None:
        search = search.part(1.0, 0)
        search.work = DEFAULT_TRIALS_PER_LAYER * problem.num_layers
    sample = problem.profile.sample
    assert sample is not None  # Annealing.supports refuses counts
    start = _drop_second_copies(start, problem.num_gpus)
    messages = unit_count(problem, sample)
    table = start.copy()
    workers = max(1, min(search.workers, problem.num_layers))

    def task(first: int) -> Callable[[], None]:
        rows = range(first, problem.num_layers, workers)
        # The worker's layers share its time; every layer has the same part of the work.
        whole = search.part(0.99, 0, work_share=1.0, spare_offers=1)

        def run() -> None:
            for done, layer in enumerate(rows):
                if whole.done:
                    return
                part = whole.part(1 / (len(rows) - done), layer, work_share=1 / problem.num_layers)
                table[layer] = _Layer(problem, sample, start, layer, messages).run(part, hot / 4, cold)

        return run

    run_together(search, [task(first) for first in range(workers)])
    search.offer(table, 1)


def unit_count(problem: Problem, sample: TokenSample) -> int:
    """Return how many assignments (dedup none) or tokens and layers (else) the traffic is a mean over."""
    present = sample.topk_ids[:SEARCH_TOKENS] >= 0
    return max(1, int((present if problem.objective.dedup == "none" else present.any(axis=2)).sum()))


def _base(problem: Problem) -> Table:
    """Return the plan to start from: EPLB's where it applies, else experts in order."""
    if Eplb().supports(problem) is None:
        table: npt.NDArray[np.integer[Any]] = Eplb().table(problem)
        return separate_copies(table, problem.profile.load, problem.num_gpus)
    gpu = np.arange(problem.num_experts) * problem.num_gpus // problem.num_experts
    return conform(problem, np.tile(gpu, (problem.num_layers, 1)))


def _drop_second_copies(table: Table, num_gpus: int) -> Table:
    """Empty the slots that hold a second copy on the same GPU: the kernel knows at most one copy per expert and GPU."""
    result = table.copy()
    for row in result.reshape(len(table) * num_gpus, -1):
        _, first = np.unique(row, return_index=True)
        row[np.setdiff1d(np.arange(len(row)), first)] = -1
    return result


class _Layer:
    """Search state of one layer, in the form that the kernel takes."""

    def __init__(self, problem: Problem, sample: TokenSample, start: Table, layer: int, messages: int) -> None:
        self.problem, self.layer = problem, layer
        topology, objective = problem.topology, problem.objective
        E, G = problem.num_experts, problem.num_gpus
        ids = sample.topk_ids[:SEARCH_TOKENS, layer].astype(np.int64)
        n = len(ids)
        homes = homes_of(objective, G, sample.rows[:n], sample.seq_id[:n], sample.source_rank[:n])
        token, place = np.nonzero(ids >= 0)
        expert = ids[token, place]
        order = np.argsort(expert, kind="stable")
        hop, node = topology.hop_cost, topology.node_of_gpu
        gpu_cost, node_cost = hop, np.zeros((G, topology.num_nodes))
        if objective.dedup == "node":
            gpu_cost = hop[topology.entry_gpu[:, node], np.arange(G)[None, :]]
            node_cost = hop[np.arange(G)[:, None], topology.entry_gpu]
        shares = home_share(problem)
        position = np.arange(problem.num_slots) % problem.slots_per_gpu
        self.model = LayerModel(
            start=np.searchsorted(expert[order], np.arange(E + 1)),
            token=token[order],
            place=place[order],
            rows=sample.rows[:n],
            home=homes.astype(np.int64),
            load=problem.relative_load[layer],
            deviations=np.zeros((E, 0)) if problem.load_deviations is None else problem.load_deviations[layer],
            homes=np.full((1, G), 1 / G) if shares is None else shares[layer],
            fair=topology.fair_share,
            policy=POLICIES[objective.copy_policy],
            node_of_gpu=node,
            gpu_cost=np.ascontiguousarray(gpu_cost),
            node_cost=np.ascontiguousarray(node_cost),
            distinct=objective.dedup != "none",
            layer=layer,
            lock=self._locks(),
            allowed=np.ascontiguousarray(problem.allowed[layer]),
            usable=position < np.repeat(problem.capacity, problem.slots_per_gpu),
        )
        gpus, counts = copy_table(start[layer][None], E, problem.slots_per_gpu)
        room = np.full((E, G + 1), -1, np.int64)
        room[:, : gpus.shape[2]] = gpus[0]
        held = np.zeros((E, G), np.uint8)
        expert_of_copy, copy = np.nonzero(gpus[0] >= 0)
        held[expert_of_copy, gpus[0][expert_of_copy, copy]] = 1
        self.state = LayerState(
            table=start[layer].astype(np.int64),
            copies=room,
            counts=counts[0].copy(),
            held=held,
            used=np.full(ids.shape, -1, np.int64),
            on_gpu=np.zeros((n, G), np.uint8),
            on_node=np.zeros((n, topology.num_nodes), np.uint8),
            gpu_load=np.zeros(G),
            window_load=np.zeros((G, self.model.deviations.shape[1])),
            variance=np.zeros(G if problem.load_margin else 1),
            share=np.zeros(G + 1),
        )
        route_all(self.state, self.model)
        self.scale = objective.traffic_weight / messages

    def _locks(self) -> npt.NDArray[np.int8]:
        """Return 1 for experts of a group (they stay on their node), 2 for pinned ones."""
        lock = np.zeros(self.problem.num_experts, np.int8)
        layer_id = int(self.problem.profile.layer_ids[self.layer])
        for group in self.problem.constraints.groups:
            if group.layer_id in (None, layer_id):
                lock[list(group.experts)] = 1
        for pin in self.problem.constraints.pins:
            if pin.layer_id in (None, layer_id):
                lock[pin.expert] = 2
        return lock

    def run(self, search: Search, hot: float, cold: float) -> npt.NDArray[np.integer[Any]]:
        """Anneal over the whole of `search`; return the layer's row of the map."""
        problem = self.problem
        caps = problem.load_caps
        rng = seeded(search.seed, 3, self.layer)
        fixed = (
            self.scale,
            np.inf if caps is None else float(caps[self.layer]),
            0.0 if caps is None else problem.objective.load_excess_weight / problem.num_layers,
            problem.objective.imbalance_weight / problem.num_layers,
            problem.load_margin,
            problem.spread_weight / problem.num_layers,
            problem.spread_tolerance,
            problem.slots_per_gpu,
        )
        unit = max(anneal_layer(self.state, self.model, *fixed, 200, -1.0, np.inf, rng), 1e-15)
        spent = 0
        while (used := search.progress(spent)) < 1.0:
            trials = STEP if search.work is None else max(1, min(STEP, search.work - spent))
            anneal_layer(
                self.state, self.model, *fixed, trials, unit * hot * (cold / hot) ** used, HOPELESS * unit, rng
            )
            spent += trials
        anneal_layer(self.state, self.model, *fixed, STEP, 0.0, HOPELESS * unit, rng)
        return self.state.table
