"""Search under dispatch: fewer messages per token by exact replay of sampled tokens, copies included."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost import home_share
from placement.replay import POLICIES, copy_table, homes_of
from solvers.arrange import conform, separate_copies
from solvers.copy_budget import copy_levels, share_out
from solvers.eplb import Eplb
from solvers.kernels.fanout import LayerModel, LayerState, route_all
from solvers.kernels.fanout_anneal import anneal_layer, load_cost, most_active
from solvers.kernels.random import State, seeded
from solvers.router_groups import grouped_eplb
from solvers.search import Search
from solvers.threads import each_layer
from traces import TokenSample

__all__ = ["base_plan", "improve_fanout"]

Table = npt.NDArray[np.int32]
Row = npt.NDArray[np.int32]
STEP = 1024
STAGES = ((0.3, 2048), (0.5, 4096), (0.7, 8192))  # until so much of a run is used up: this many tokens; then all
HOPELESS = 8.0  # a trial that costs this many typical changes of traffic in load alone is not priced further
DEFAULT_TRIALS_PER_LAYER = 400_000
RUN_TRIALS, RUN_S = 4_000_000, 1.5  # with as much for each, several runs per layer are better than a longer one
MAX_RUNS = 4
NOMINAL_TRIALS_PER_S = 200_000  # of a core, with copies; only to choose a temperature
HOT_TRIALS_PER_PAIR = 20  # of slots
WHOLE_TRIALS_PER_PAIR = 5  # with fewer, a search from whole groups does not get far from them
BUDGET_SHARE, BUDGET_HOT = 0.3, 0.1


def improve_fanout(problem: Problem, search: Search, *, hot: float, cold: float) -> None:
    """Anneal every layer from EPLB's plan (or the search's start) and offer the result.

    Where the router keeps to groups of experts and these can be dealt out to the nodes, no layer ends worse than in
    EPLB's hierarchical plan, which keeps groups whole, and with enough time layers that cost less there start there.

    Parameters
    ----------
    problem : Problem
        Dispatch; layers are independent of each other.
    search : Search
    hot, cold : float
        Temperatures in units of the mean change of traffic by a random trial. With a start plan, or little time for
        a large layer, `hot` is divided by 4, so as not to lose what it starts from.
    """
    base = base_plan(problem)
    search.offer(base, 0)
    start = base if search.start is None else np.asarray(search.start, dtype=np.int32)
    if problem.num_gpus == 1:
        return
    grouped = grouped_eplb(problem) if search.start is None else None
    whole = None if grouped is None else _apart(problem, grouped)
    if whole is not None:
        if not search.offers_are_dear:
            search.offer(whole, 1)
        whole = _drop_second_copies(whole, problem.num_gpus)
    if search.work is None and search.remaining_s is None:
        search = search.part(1.0, 0)
        search.work = DEFAULT_TRIALS_PER_LAYER * problem.num_layers
    trials = _trials_per_layer(problem, search)
    if search.start is not None or trials < HOT_TRIALS_PER_PAIR * problem.num_slots**2:
        # Too short to find back to a plan as good as EPLB's from a hot start.
        hot /= 4
    sample = problem.profile.sample
    assert sample is not None  # Annealing.supports refuses counts
    start = _drop_second_copies(start, problem.num_gpus)
    most: list[int] = [problem.num_slots] * problem.num_layers
    if problem.copies_limited:
        begin, most = _budgets(problem, sample, start, search.part(BUDGET_SHARE, 0), cold=cold)
        start = begin if search.start is None else start
        search = search.part(1.0, 1, work_share=1 - BUDGET_SHARE)
    table = start.copy()

    def anneal(part: Search, layer: int) -> None:
        row = start[layer]
        other = None if whole is None else _Layer(problem, sample, whole[layer], layer, len(sample))
        if other is not None and trials >= WHOLE_TRIALS_PER_PAIR * problem.num_slots**2:
            row = other.row if other.cost < _Layer(problem, sample, row, layer, len(sample)).cost else row
        found = _search_layer(problem, sample, row, layer, part, most[layer], hot=hot, cold=cold)
        if other is not None and other.cost < found.cost:
            found = other
        table[layer] = found.row

    each_layer(problem, search, anneal)
    search.offer(table, 2)


def _trials_per_layer(problem: Problem, search: Search) -> float:
    """Return about how many trials there will be for a layer."""
    if search.work is not None:
        return search.work / problem.num_layers
    return (search.remaining_s or 0.0) * search.workers / problem.num_layers * NOMINAL_TRIALS_PER_S


def _budgets(
    problem: Problem, sample: TokenSample, start: Table, search: Search, *, cold: float
) -> tuple[Table, list[int]]:
    """Share the budget of copies out to the layers by short searches with ever more of them.

    Returns
    -------
    (L, S) int32, list of int
        The best maps found within the budgets, and the slots that each layer may use.
    """
    budget = problem.copy_budget
    assert budget is not None
    # What a start holds already is paid for; most often nothing.
    held = (start >= 0).sum(axis=1)
    spare = int(problem.capacity.sum() - held.max())
    levels = copy_levels(max(0, spare))
    cost = np.zeros((problem.num_layers, len(levels)))
    rows = np.repeat(start[:, None], len(levels), axis=1)

    def trace(part: Search, layer: int) -> None:
        row = start[layer]
        for number, extra in enumerate(levels):
            level = part.part(1 / (len(levels) - number), number, work_share=1 / len(levels))
            found = _anneal(
                problem, sample, row, layer, level, number, int(held[layer] + extra), hot=BUDGET_HOT, cold=cold
            )
            row = rows[layer, number] = found.row
            cost[layer, number] = found.cost

    each_layer(problem, search, trace)
    left = budget - int(held.sum()) + problem.num_layers * problem.num_experts
    given = share_out(cost, levels, left)
    best = np.searchsorted(levels, given, side="right") - 1  # the largest level within the budget
    return rows[np.arange(problem.num_layers), best], (held + given).tolist()


def _messages(problem: Problem, sample: TokenSample, tokens: int) -> int:
    """Return how many assignments (dedup none) or tokens and layers (else) the traffic is a mean over."""
    present = sample.topk_ids[:tokens] >= 0
    return max(1, int((present if problem.objective.dedup == "none" else present.any(axis=2)).sum()))


def base_plan(problem: Problem) -> Table:
    """Return the plan to start from: EPLB's where it applies, else experts in order."""
    if Eplb().supports(problem) is None:
        return _apart(problem, Eplb())
    gpu = np.arange(problem.num_experts) * problem.num_gpus // problem.num_experts
    return conform(problem, np.tile(gpu, (problem.num_layers, 1)))


def _apart(problem: Problem, eplb: Eplb) -> Table:
    """Return EPLB's plan with second copies moved to other GPUs."""
    table: npt.NDArray[np.integer[Any]] = eplb.table(problem)
    return separate_copies(table, problem.profile.load, problem.num_gpus)


def _drop_second_copies(table: Table, num_gpus: int) -> Table:
    """Empty the slots that hold a second copy on the same GPU: the kernel knows at most one copy per expert and GPU."""
    result = table.copy()
    for row in result.reshape(len(table) * num_gpus, -1):
        _, first = np.unique(row, return_index=True)
        row[np.setdiff1d(np.arange(len(row)), first)] = -1
    return result


class _Layer:
    """Search state of one layer, in the form that the kernel takes."""

    def __init__(
        self, problem: Problem, sample: TokenSample, row: Row, layer: int, tokens: int, most: int | None = None
    ) -> None:
        self.problem, self.layer = problem, layer
        topology, objective = problem.topology, problem.objective
        E, G, S, N = problem.num_experts, problem.num_gpus, problem.num_slots, topology.num_nodes
        ids = sample.topk_ids[:tokens, layer].astype(np.int64)
        n = len(ids)
        homes = homes_of(objective, G, sample.rows[:n], sample.seq_id[:n], sample.source_rank[:n])
        token, place = np.nonzero(ids >= 0)
        expert = ids[token, place]
        order = np.argsort(expert, kind="stable")
        hop, node = topology.hop_cost, topology.node_of_gpu
        by_node = objective.dedup == "node"
        gpu_cost, node_cost = hop, np.zeros((G, N))
        if by_node:
            gpu_cost = hop[topology.entry_gpu[:, node], np.arange(G)[None, :]]
            node_cost = hop[np.arange(G)[:, None], topology.entry_gpu]
        shares, deviations, moments = home_share(problem), problem.load_deviations, problem.home_moments
        own = np.zeros((E, 0)) if deviations is None else deviations[layer]
        position = np.arange(S) % problem.slots_per_gpu
        weights, layers, caps = objective, problem.num_layers, problem.load_caps
        batch = objective.decode_batch if weights.activated_weight else 0
        batches = -(-n // batch) if batch else 0
        self.model = LayerModel(
            start=np.searchsorted(expert[order], np.arange(E + 1)),
            token=token[order],
            place=place[order],
            rows=sample.rows[:n],
            home=homes.astype(np.int64),
            load=problem.relative_load[layer],
            covariance=np.ascontiguousarray(own @ own.T) if own.shape[1] else np.zeros((0, 0)),
            moments=np.zeros((0, 0)) if moments is None else moments[layer],
            homes=np.full((1, G), 1 / G) if shares is None else shares[layer],
            fair=topology.fair_share,
            policy=POLICIES[objective.copy_policy],
            node_of_gpu=node,
            gpu_cost=np.ascontiguousarray(gpu_cost),
            node_cost=np.ascontiguousarray(node_cost),
            distinct=objective.dedup != "none",
            by_node=by_node and N > 1,
            layer=layer,
            lock=self._locks(),
            allowed=np.ascontiguousarray(problem.allowed[layer]),
            usable=position < np.repeat(problem.capacity, problem.slots_per_gpu),
            most=S if most is None else most,
            batch=batch,
            scale=weights.traffic_weight / _messages(problem, sample, n),
            activated_weight=weights.activated_weight / layers / max(batches, 1),
            cap=np.inf if caps is None else float(caps[layer]),
            excess_weight=0.0 if caps is None else weights.load_excess_weight / layers,
            max_weight=weights.imbalance_weight / layers,
            margin=problem.load_margin,
            spread_weight=problem.spread_weight / layers,
            spread_free=problem.spread_tolerance,
        )
        gpus, counts = copy_table(row[None], E, problem.slots_per_gpu)
        room = np.full((E, G + 1), -1, np.int64)
        room[:, : gpus.shape[2]] = gpus[0]
        slot = np.flatnonzero(row >= 0)
        item_at = np.full((E, G), -1, np.int64)
        item_at[row[slot], slot // problem.slots_per_gpu] = slot
        table = 0 if objective.dedup == "none" else S
        self.state = LayerState(
            expert_of=row.astype(np.int64),
            gpu_of=np.arange(S) // problem.slots_per_gpu,
            copies=room,
            counts=counts[0].copy(),
            item_at=item_at,
            used=np.full(ids.shape, -1, np.int32),
            at=np.full(ids.shape, -1, np.int32),
            on_gpu=np.zeros((n, G), np.uint16),
            on_node=np.zeros((n, N), np.uint16),
            fresh=np.zeros((S, G)),
            fresh_node=np.zeros((S, N)),
            lone=np.zeros((table, table)),
            lone_node=np.zeros((table, table) if self.model.by_node else (0, 0)),
            gpu_load=np.zeros(G),
            overlap=np.zeros((E, G)),
            variance=np.zeros(G),
            active=np.zeros((batches, E if batch else 0, G), np.int32),
            active_on=np.zeros((batches, G), np.int32),
            home_overlap=np.zeros((0 if moments is None else E, G, G)),
            share=np.zeros((3, G + 1)),
            by_home=np.zeros((2, G, G)),
            value=np.zeros(2),
        )
        messages = route_all(self.state, self.model)
        none, state, model = np.zeros(G), self.state, self.model
        varies = deviations is not None or moments is not None
        loads = load_cost(
            -1,
            -1,
            none,
            none,
            state.gpu_load,
            state.overlap,
            state.variance,
            none,
            varies,
            model.covariance,
            model.load,
            *model[-6:],
        )
        state.value[:] = loads, most_active(state.active_on)
        # What the layer adds to the objective, on these tokens.
        self.cost = model.scale * messages + loads + model.activated_weight * float(state.value[1])

    @property
    def row(self) -> Row:
        """The layer's row of the map, (S,)."""
        expert, gpu = self.state.expert_of, self.state.gpu_of
        order = np.lexsort((expert, expert < 0, gpu))  # empty slots last: a GPU may have no room there
        return expert[order].astype(np.int32)

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

    def anneal(self, trials: int, temperature: float, hopeless: float, rng: State) -> float:
        """See `anneal_layer`."""
        change = anneal_layer(self.state, self.model, trials, temperature, hopeless, rng)
        if temperature >= 0:
            self.cost += change
        return change


def _search_layer(
    problem: Problem, sample: TokenSample, row: Row, layer: int, search: Search, most: int, *, hot: float, cold: float
) -> _Layer:
    """Anneal one layer over the whole of `search`, in one or more runs; return the best state."""
    runs = 1
    if search.work is not None:
        runs = search.work // RUN_TRIALS
    elif search.remaining_s is not None:
        runs = int(search.remaining_s / RUN_S)
    runs = int(np.clip(runs, 1, MAX_RUNS))
    best = _Layer(problem, sample, row, layer, len(sample), most)
    for number in range(runs):
        part = search.part(1 / (runs - number), number, work_share=1 / runs)
        found = _anneal(problem, sample, row, layer, part, number, most, hot=hot, cold=cold)
        if found.cost < best.cost:
            best = found
    return best


def _anneal(
    problem: Problem,
    sample: TokenSample,
    row: Row,
    layer: int,
    search: Search,
    number: int,
    most: int,
    *,
    hot: float,
    cold: float,
) -> _Layer:
    """Anneal one layer once, on ever more tokens.

    While it is hot, most trials are accepted, which takes time per token, and a few tokens are as good as many. When it
    is cold, few are, and the others cost the same whatever the number of tokens.
    """
    rng = seeded(search.seed, 3, layer, number)
    stages = [(end, count) for end, count in STAGES if count < len(sample)] + [(1.0, len(sample))]
    state = _Layer(problem, sample, row, layer, stages[0][1], most)
    unit = max(state.anneal(200, -1.0, np.inf, rng), 1e-15)
    spent = 0
    while (used := search.progress(spent)) < 1.0:
        if used >= stages[0][0]:
            stages = [stage for stage in stages if used < stage[0]]
            state = _Layer(problem, sample, state.row, layer, stages[0][1], most)
        trials = STEP if search.work is None else max(1, min(STEP, search.work - spent))
        state.anneal(trials, unit * hot * (cold / hot) ** used, HOPELESS * unit, rng)
        spent += trials
    if len(stages) > 1:
        state = _Layer(problem, sample, state.row, layer, len(sample), most)
    state.anneal(STEP, 0.0, HOPELESS * unit, rng)
    return state
