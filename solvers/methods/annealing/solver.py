"""Annealing on the joint objective: traffic under a load cap, parallel restarts, crossover by dynamic programming.

References
----------
Kirkpatrick, Gelatt and Vecchi, Science 220 (1983); ``docs/solvers.md``, section annealing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import separate_replicas
from solvers.arrange.in_order import in_order
from solvers.methods.annealing.replay.budgets import budgeted_by_load
from solvers.methods.annealing.replay.improve import improve_fanout
from solvers.methods.annealing.tables.crossover import Pool
from solvers.methods.annealing.tables.model import ItemModel
from solvers.methods.annealing.tables.run import SwapRun
from solvers.methods.eplb.solver import Eplb
from solvers.searching.search import Search
from solvers.searching.threads import run_together
from solvers.survival.effort import OutOfEffortError
from solvers.survival.repair import alive_by_load, kept_alive
from traces import Violations

__all__ = ["Annealing", "searches_by_tokens"]

Table = npt.NDArray[np.int32]
# At a time, and in all, to tell how many restarts there is time for; some 2 ms at a time, so that a stalled core shows.
SPEED_TRIALS, SPEED_S = 20_000, 0.03
# A run, most of it colder, makes more trials per second than its hot start; chosen by
# trial. It only decides how many restarts there are.
HOT_SLOWDOWN = 1.6
WARM_TRIALS_PER_ITEM = 1000  # with fewer, the first temperature falls with them. Chosen by trial
WARM_SHARE = 0.4  # first temperature of a run from a good plan, as a share of `hot`; chosen by trial
# After the last run, the pool of plans takes about as long; chosen by trial.
SPARE_OFFERS = 15
MAX_TABLE_BYTES = 4_000_000_000  # of a search; chosen for machines of 16 GB
# Of a run of useful length: shorter ones are fewer restarts. Chosen by trial.
WANTED_TRIALS_PER_ITEM = 20_000
MAX_RESTARTS = 12  # more add little to the pool, whose price is quadratic. Chosen by trial


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """Swap search that anneals.

    Attributes
    ----------
    restarts : int or None
        Independent runs; by default as many as the limits allow runs of a useful length, at most 12.
    hot, cold : float
        First and last temperature, in units of the spread of a random swap's cost.
    polish : float
        Share of the time for reheated runs from the best combination of all restarts.
    """

    restarts: int | None = None
    hot: float = 0.5
    cold: float = 0.01
    polish: float = 0.12

    name: ClassVar[str] = "annealing"
    summary: ClassVar[str] = "Compiled swap search on the joint objective: traffic, topology and load cap together."

    def __post_init__(self) -> None:
        found = Violations()
        if self.restarts is not None and self.restarts < 1:
            found.add("option_range", "/options/restarts", f"{self.restarts} restarts.", "Give at least 1.")
        if not 0 < self.cold <= self.hot:
            detail = f"Temperatures hot = {self.hot}, cold = {self.cold}."
            found.add("option_range", "/options/hot", detail, "Keep 0 < cold <= hot.")
        if not 0 <= self.polish < 1:
            found.add("option_range", "/options/polish", f"Share {self.polish}.", "Keep 0 <= polish < 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """All but what a dispatch without a sample of tokens can't price."""
        objective = problem.objective
        if (
            objective.execution == "dispatch"
            and problem.num_slots > problem.num_experts
            and problem.profile.sample is None
        ):
            return "replicas under dispatch need a sample of tokens, but the profile has counts only."
        tables = 3 * 8 * problem.num_layers * problem.num_slots**2
        if not searches_by_tokens(problem) and tables > MAX_TABLE_BYTES:
            return (
                f"{problem.num_layers} layers of {problem.num_slots} slots need tables of {tables / 1e9:.1f} GB "
                f"(at most {MAX_TABLE_BYTES / 1e9:g}); use fewer slots per GPU."
            )
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Search until done."""
        if searches_by_tokens(problem):
            improve_fanout(problem, search, hot=self.hot, cold=self.cold)
            return
        bases: list[Table] = []
        makers: list[Callable[[], Table | None]] = [
            lambda: kept_alive(problem, in_order(problem, search), search.effort),
            lambda: _replicated(problem, search),
        ]
        for make in makers:
            try:
                made = make()
            except OutOfEffortError as error:
                search.note(f"a start was left out: {error}")
                continue
            if made is not None:
                bases.append(made)
        if not bases:
            return
        given = search.best if search.start is None else np.asarray(search.start, dtype=np.int32)
        for step, base in enumerate(bases):
            search.offer(base, step)
        if problem.num_gpus == 1:
            search.exhausted()
            return
        if search.work is None and search.remaining_s is None:
            search = search.part(1.0, 1)
            search.work = MAX_RESTARTS * WANTED_TRIALS_PER_ITEM * problem.num_layers * problem.num_slots
        part = search.part(1.0, 1, spare_offers=SPARE_OFFERS)
        models = [ItemModel(problem, base) for base in bases]
        if part.progress(0) < 1.0:
            self._anneal(problem, part, models, given)

    def _anneal(self, problem: Problem, search: Search, models: list[ItemModel], given: Table | None) -> None:
        restarts, trials = self._restarts(problem, search, models[0])
        scarce = trials < WANTED_TRIALS_PER_ITEM
        # The fewer the trials, the less of a good plan may be given up at the start.
        warmth = max(self.cold, WARM_SHARE * self.hot * min(1.0, trials / WARM_TRIALS_PER_ITEM))
        warm: ItemModel | None = None
        # Under a work limit only what was asked for: `auto` is then never worse than this alone.
        if given is not None and ((scarce and search.work is None) or search.start is not None):
            warm = ItemModel(problem, given)
        workers = min(search.workers, restarts)
        pool = Pool(problem, limit=MAX_RESTARTS + 4) if models[0].coupled else None
        step = 0

        def take(tables: Sequence[Table], *, cross: bool = True) -> None:
            nonlocal step
            for table in tables:
                step += 1
                search.offer(table, step)
                if pool is not None:
                    pool.add(table)
            if pool is not None and cross:
                step += 1
                search.offer(pool.best(), step)

        def restart(part: Search, number: int) -> Callable[[], Table]:
            if warm is not None and (number == 0 if restarts == 1 else number % 2 == 1):
                run = SwapRun(warm, _in_place(problem), (search.seed, 1, number))
                return lambda: run.run(part, warmth, self.cold)
            model = models[number % len(models)]
            run = SwapRun(model, _shuffled(model, (search.seed, number)), (search.seed, 1, number))
            return lambda: run.run(part, self.hot, self.cold)

        def reheat(part: Search, number: int) -> Callable[[], Table]:
            assert search.best is not None
            # A run from a given plan keeps its items: they are the plan's slots.
            run = SwapRun(ItemModel(problem, search.best), _in_place(problem), (search.seed, 2, number))
            return lambda: run.run(part, self.hot / 4, self.cold, ramp=(0.05, 0.1))

        if search.start is not None and pool is not None:
            pool.add(np.asarray(search.start, dtype=np.int32))
        waves = -(-restarts // workers)
        tail = self.polish / (1 - self.polish) * waves
        for wave in range(waves):
            numbers = range(wave * workers, min((wave + 1) * workers, restarts))
            part = search.part(1 / (waves - wave + tail), 0, work_share=(1 - self.polish) / restarts)
            # How many waves there are depends on the cores; where only work limits, plans must not.
            cross = search.work is None or wave == waves - 1
            take(run_together(search, [restart(part, number) for number in numbers]), cross=cross)
            if search.done:
                return
        if self.polish:
            # The number of runs must not depend on the cores when only work limits them.
            count = 2 if search.work is not None else search.workers
            part = search.part(0.9, 0, work_share=self.polish / count)
            take(run_together(search, [reheat(part, number) for number in range(count)]))

    def _restarts(self, problem: Problem, search: Search, model: ItemModel) -> tuple[int, float]:
        """Return how many runs there are, and about how many trials each has per item."""
        wanted = WANTED_TRIALS_PER_ITEM * problem.num_layers * problem.num_slots
        if search.work is not None:
            count = int(np.clip(2 * search.work // wanted, 4, MAX_RESTARTS))
            trials = float(search.work)
        else:
            run = SwapRun(model, _in_place(problem), (0,))
            run.run_at(1, self.hot)  # loads the compiled loop
            made, begin = 0, time.monotonic()  # the clock, not the CPU's time: others may have the cores
            while (took := time.monotonic() - begin) < SPEED_S:
                run.run_at(SPEED_TRIALS, self.hot)
                made += SPEED_TRIALS
            speed = HOT_SLOWDOWN * made / took
            trials = (search.remaining_s or 0.0) * speed * search.workers
            rounds = int(np.clip(trials / wanted, 1, MAX_RESTARTS)) // search.workers
            count = max(1, rounds) * search.workers
        count = count if self.restarts is None else self.restarts
        return count, trials / count / (problem.num_layers * problem.num_slots)


def searches_by_tokens(problem: Problem) -> bool:
    """Whether trials are priced by replay of tokens; else by tables over pairs of slots."""
    objective = problem.objective
    spare = bool(problem.capacity.sum() > problem.num_experts)
    return objective.execution == "dispatch" and (objective.dedup != "none" or spare or objective.activated_weight > 0)


def _replicated(problem: Problem, search: Search) -> Table | None:
    """Return a plan with replicas to move around, or None where they can't pay, or nothing says which to make.

    Under a fair split replicas cost traffic; they pay only where load counts.
    """
    constraints = problem.constraints
    if not problem.load_counts or problem.num_slots == problem.num_experts:
        return None
    if problem.sizes.survival is not None:
        return alive_by_load(problem, search.effort)
    if problem.replicas_limited and not (constraints.pins or constraints.forbidden or constraints.groups):
        return budgeted_by_load(problem)
    if not problem.is_free or Eplb().supports(problem) is not None:
        return None
    table = Eplb().table(problem)
    if constraints.distinct_replicas:
        return separate_replicas(table, problem.profile.load, problem.num_gpus)
    return np.asarray(table, dtype=np.int32)


def _in_place(problem: Problem) -> npt.NDArray[np.int64]:
    """GPU of each slot, (L, S)."""
    return np.tile(np.arange(problem.num_slots) // problem.slots_per_gpu, (problem.num_layers, 1))


def _shuffled(model: ItemModel, entropy: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return random places that keep the constraints; where there are any, the order of the base plan."""
    problem = model.problem
    gpu = _in_place(problem)
    if not problem.is_free or (model.collide >= 0).any():
        return gpu
    rng = np.random.default_rng(entropy)
    return rng.permuted(gpu, axis=1)
