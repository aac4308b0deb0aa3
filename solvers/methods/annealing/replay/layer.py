"""One layer under dispatch: the search state that the compiled loops take, and annealing it once or in several runs."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.replay.replay import POLICIES, replica_table
from solvers.methods.annealing.replay.kernels.loads import load_cost, sum_up
from solvers.methods.annealing.replay.kernels.rules import most_active
from solvers.methods.annealing.replay.kernels.serving import gather, serve_all
from solvers.methods.annealing.replay.kernels.state import Draws, LayerModel, LayerState, Loads, Prices, Split
from solvers.methods.annealing.replay.kernels.trials import anneal_layer
from solvers.methods.annealing.replay.levels import Ground, Grounds, empty_level
from solvers.searching.kernels.random import State, seeded
from solvers.searching.search import Search
from solvers.survival.rule import alive_of

__all__ = ["FEW", "Layer", "anneal_once", "may_be_less", "search_layer"]

Row = npt.NDArray[np.integer[Any]]
STEP = 1024  # trials between two looks at the clock: some 10 ms
# Until so much of a run is used up: this many tokens; then all; chosen by trial: a hot search accepts most trials,
# whose price is per token.
STAGES = ((0.4, 2048), (0.6, 8192))
FEW, FEW_ERROR = 2048, 0.2  # tokens, and how far the cost on so many may be off; some 3 % is usual
# A trial that costs this many typical changes of traffic in load alone is not priced further; exp(-8) of such trials
# would pass.
HOPELESS = 8.0
# With as much for each, several runs per layer are better than a longer one; chosen by trial.
RUN_TRIALS, RUN_S = 4_000_000, 4.0
# Of slots, where that is less: in general, and where loads count by a cap alone (docs/decisions/0032-soft-caps.md).
RUN_TRIALS_PER_PAIR, CAP_TRIALS_PER_PAIR = 40, 300
LOCAL = 8  # of 16 exchanges. Chosen by trial
# Of 16 other exchanges, those with an expert of about the same load; about the same: at most this part of all experts
# away in the order of loads, and within these limits. Measured in docs/decisions/0019-sets-of-tokens.md.
ALIKE, ALIKE_PART, LEAST_ALIKE, MOST_ALIKE = 12, 16, 4, 16
# Times the last temperature, if loads count, and by traffic alone. Below, next to nothing is accepted, and trials of
# single tokens' worth are noise. Measured, as what follows, in docs/decisions/0032-soft-caps.md.
EARLIER, COLDER = 10.0, 3.0
EARLIER_TRIALS_PER_PAIR = 1  # of slots; with fewer, a run has no time to settle at that: 92 x 896 in half a minute
LEAST_SHARE = 0.01  # of the price of load above the cap, which falls with the square of the temperature
MAX_RUNS = 4  # more gain less than longer ones. Chosen by trial


class Layer:
    """Search state of one layer, in the form that the kernel takes.

    Parameters
    ----------
    ground : Ground
    row : (S,) integers
        The layer's row of a map; no GPU holds two replicas of an expert.
    layer : int
    most : int, optional
        Used slots at most; by default all that there are.
    like : Layer, optional
        The same layer on other tokens, or with another row: what both share is taken from there.
    """

    def __init__(
        self, ground: Ground, row: Row, layer: int, *, most: int | None = None, like: Layer | None = None
    ) -> None:
        problem = ground.problem
        self.problem, self.layer = problem, layer
        reach = int(np.clip(problem.num_experts // ALIKE_PART, LEAST_ALIKE, MOST_ALIKE))
        self._draws = Draws(local=LOCAL, alike=ALIKE, reach=reach)
        sample = problem.profile.sample
        assert sample is not None
        topology, objective = problem.topology, problem.objective
        E, G, S, N = problem.num_experts, problem.num_gpus, problem.num_slots, topology.num_nodes
        ids = np.ascontiguousarray(sample.topk_ids[: ground.tokens, layer])
        n = len(ids)
        # Read-only, as the rows of what was pickled are: for the other kind, all loops would be compiled once more.
        rows = sample.rows[:n]
        rows.flags.writeable = False
        assignments, words = int((ids >= 0).sum()), -(-n // 64)
        start, middle, member = np.zeros(E + 1, np.int64), np.zeros(E, np.int64), np.zeros((E + 1, words), np.uint64)
        token, residue = np.zeros(assignments, np.int64), np.zeros(assignments, np.int64)
        gather(ids, rows, layer, start, middle, token, residue, member)
        distinct, top_k = objective.dedup != "none", ids.shape[1]
        shares, deviations, moments = ground.shares, problem.load_deviations, problem.home_moments
        by_load = np.argsort(problem.relative_load[layer], kind="stable")
        position = np.arange(S) % problem.slots_per_gpu
        covariance = _covariance(deviations, layer) if like is None else like.model.covariance
        weights, layers, caps = objective, problem.num_layers, problem.load_caps
        batch = objective.decode_batch if weights.activated_weight else 0
        batches = -(-n // batch) if batch else 0
        self.model: LayerModel = LayerModel(
            order=by_load,
            rank=np.argsort(by_load),
            start=start,
            middle=middle,
            token=token,
            residue=residue,
            member=member,
            most_saved=ground.most_saved,
            rows=rows,
            home=ground.homes,
            load=problem.relative_load[layer],
            covariance=covariance,
            own=covariance.diagonal().copy(),
            moments=np.zeros((0, 0)) if moments is None else moments[layer],
            split=Split(
                policy=POLICIES[objective.replica_policy],
                homes=np.full((1, G), 1 / G) if shares is None else shares[layer],
                alike=shares is None,
                node_of_gpu=topology.node_of_gpu,
                node_size=np.bincount(topology.node_of_gpu),
                fair=topology.fair_share,
                share=np.zeros(G + 1),
            ),
            distinct=distinct,
            layer=layer,
            lock=self._locks(),
            allowed=np.ascontiguousarray(problem.allowed[layer]),
            usable=position < np.repeat(problem.capacity, problem.slots_per_gpu),
            most=S if most is None else most,
            batch=batch,
            scale=weights.traffic_weight / ground.messages,
            activated_weight=weights.activated_weight / layers / max(batches, 1),
            prices=Prices(
                cap=np.inf if caps is None else float(caps[layer]),
                excess=weights.load_excess_weight / layers if caps is not None and np.isfinite(caps[layer]) else 0.0,
                largest=weights.imbalance_weight / layers,
                margin=problem.load_margin,
                spread=problem.spread_weight / layers,
                spread_free=problem.spread_tolerance,
            ),
        )
        gpus, counts = replica_table(row[None], E, problem.slots_per_gpu)
        most_replicas = min(G, S - E + 1)
        room = np.full((E, most_replicas + 1), -1, np.int64)
        room[:, : gpus.shape[2]] = gpus[0]
        slot = np.flatnonzero(row >= 0)
        item_at = np.full((E, G), -1, np.int64)
        item_at[row[slot], slot // problem.slots_per_gpu] = slot
        self.state = LayerState(
            expert_of=row.astype(np.int64),
            gpu_of=np.arange(S) // problem.slots_per_gpu,
            item_on=np.arange(S).reshape(G, -1),
            replicas=room,
            counts=counts[0].copy(),
            item_at=item_at,
            bits=np.zeros((S + 1, words), np.uint64),
            gpus=empty_level(ground.gpus, top_k, distinct=distinct),
            nodes=empty_level(ground.nodes, top_k, distinct=distinct),
            part=np.zeros(S),
            gpu_load=np.zeros(G),
            overlap=np.zeros((G, E)),
            variance=np.zeros(G),
            active=np.zeros((S + 1, batches), np.uint64),
            active_on=np.zeros((batches, G), np.int32),
            home_overlap=np.zeros((0 if moments is None else E, G, G)),
            share=np.zeros((2, G)),
            by_home=np.zeros((2, G, G)),
            served=np.zeros((2, most_replicas + 1, words), np.uint64),
            served_active=np.zeros((2, most_replicas + 1, batches), np.uint64),
            room=np.zeros((2, words), np.uint64),
            choice=np.full((2, G), -1, np.int64),
            near=np.zeros(N, np.int64),
            sums=np.zeros(2),
            highest=np.zeros(3, np.int64),
            value=np.zeros(2),
            alive=alive_of(row, problem.sizes.survival, E, problem.slots_per_gpu),
        )
        messages = serve_all(self.state, self.model)
        self._full = self.model.prices
        self._price_loads()
        self.state.value[1] = most_active(self.state.active_on)
        # What the layer adds to the objective, on these tokens.
        loads, active = float(self.state.value[0]), float(self.state.value[1])
        self.cost = self.model.scale * messages + loads + self.model.activated_weight * active

    def _price_loads(self) -> None:
        """Set what the loads cost as they are, and what the trials of an exchange add to."""
        state, model = self.state, self.model
        none, varies = np.zeros(len(state.gpu_load)), len(model.covariance) > 0 or len(model.moments) > 0
        known = Loads(model.load, model.covariance, model.own, varies, state.gpu_load, state.overlap, state.variance)
        state.value[0] = load_cost(-1, -1, none, none, none, known, model.prices)
        sum_up(state.gpu_load, state.variance, model.prices, state.sums, state.highest)

    def soften(self, share: float) -> None:
        """Let loads above the cap cost this share of their price from here on, and `cost` with them."""
        before = float(self.state.value[0])
        self.model = self.model._replace(prices=self._full._replace(excess=share * self._full.excess))
        self._price_loads()
        self.cost += float(self.state.value[0]) - before

    def on(self, ground: Ground) -> Layer:
        """Return the layer with the row that it has now, on other tokens."""
        return Layer(ground, self.row, self.layer, most=self.model.most, like=self)

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
        change = anneal_layer(self.state, self.model, trials, temperature, hopeless, self._draws, rng)
        if temperature >= 0:
            self.cost += change
        return change


def _covariance(deviations: npt.NDArray[np.float64] | None, layer: int) -> npt.NDArray[np.float64]:
    """Return that of the experts' loads, (E, E); (0, 0) where it doesn't count."""
    return np.zeros((0, 0)) if deviations is None else np.ascontiguousarray(deviations[layer] @ deviations[layer].T)


def search_layer(grounds: Grounds, first: Layer, search: Search, *, hot: float, cold: float) -> Layer:
    """Anneal one layer from `first`, on few tokens, over the whole of `search`, in one or more runs.

    Returns
    -------
    Layer
        The best state, on all tokens.
    """
    pairs = grounds.problem.num_slots**2
    trials = trials_of(search)
    prices = first.model.prices
    per_pair = CAP_TRIALS_PER_PAIR if prices.excess and not prices.largest else RUN_TRIALS_PER_PAIR
    runs = int(np.clip(trials // min(RUN_TRIALS, per_pair * pairs), 1, MAX_RUNS))
    found = []
    for number in range(runs):
        part = search.part(1 / (runs - number), number, work_share=1 / runs)
        found.append(anneal_once(grounds, first, part, number, hot=hot, cold=cold))
    best = min(found, key=attrgetter("cost"))
    if may_be_less(first, best):
        best = min(best, first.on(grounds.of()), key=attrgetter("cost"))
    return best


def trials_of(search: Search) -> float:
    """Return about how many trials a search has; all there can be without limits."""
    return search.work if search.work is not None else (search.remaining_s or 0.0) * RUN_TRIALS / RUN_S


def may_be_less(on_few: Layer, other: Layer) -> bool:
    """Whether a row may cost less than `other` on all tokens; on few it is known, and a look at all takes longer."""
    return on_few.cost * (1 - FEW_ERROR) < other.cost


def anneal_once(grounds: Grounds, first: Layer, search: Search, number: int, *, hot: float, cold: float) -> Layer:
    """Anneal one layer once from `first`, on ever more tokens.

    While it is hot, most trials are accepted, which takes time per token, and a few tokens are as good as many. When it
    is cold, few are, and the others cost the same whatever the number of tokens. A load cap is soft while it is hot:
    where loads leave little room, a way from one plan that keeps it to another leads over plans that don't.
    """
    rng, prices = seeded(search.seed, 3, first.layer, number), first.model.prices
    enough = trials_of(search) >= EARLIER_TRIALS_PER_PAIR * grounds.problem.num_slots**2
    cold = min(hot, (EARLIER if prices.excess or (prices.largest and enough) else COLDER) * cold)
    stages = [(end, count) for end, count in STAGES if count < grounds.most] + [(1.0, grounds.most)]
    state = first.on(grounds.of(stages[0][1]))
    unit = max(state.anneal(200, -1.0, np.inf, rng), 1e-15)
    spent = 0
    caps = prices.excess > 0.0
    while (used := search.progress(spent)) < 1.0:
        if used >= stages[0][0]:
            stages = [stage for stage in stages if used < stage[0]]
            state = state.on(grounds.of(stages[0][1]))
        trials = STEP if search.work is None else max(1, min(STEP, search.work - spent))
        temperature = hot * (cold / hot) ** used
        if caps:
            state.soften(max((cold / temperature) ** 2, LEAST_SHARE))
        state.anneal(trials, unit * temperature, HOPELESS * unit, rng)
        spent += trials
    if len(stages) > 1:
        state = state.on(grounds.of())
    if caps:
        state.soften(1.0)
    state.anneal(STEP, 0.0, HOPELESS * unit, rng)
    return state
