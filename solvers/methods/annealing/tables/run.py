"""One annealing run over a model's items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from solvers.arrange.conform import pack
from solvers.arrange.relabel import Relabelling, relabel_all
from solvers.methods.annealing.tables.kernels.swaps import SwapState, anneal
from solvers.methods.annealing.tables.model import ItemModel
from solvers.searching.kernels.random import seeded
from solvers.searching.search import Search
from solvers.survival.rule import of_layers

__all__ = ["SwapRun"]

Table = npt.NDArray[np.int32]
# Shares of the excess weight at the start and the end of a run: a soft cap lets the search cross it on its way. Chosen
# by trial.
COUPLED_RAMP = (0.005, 0.1)
TRIALS_PER_STEP = 100_000  # between two looks at the clock: some 10 ms


class SwapRun:
    """One annealing run.

    Parameters
    ----------
    model : ItemModel
    gpu : (L, S) int64
        Where the items start.
    entropy : tuple of int
        Seed.
    """

    def __init__(self, model: ItemModel, gpu: npt.NDArray[np.int64], entropy: tuple[int, ...]) -> None:
        self.model = model
        self.gpu = np.array(gpu, dtype=np.int64)
        self.rng = seeded(*entropy)
        self.relabelling = Relabelling.of(model.problem) if model.coupled else None
        self._refresh()

    def _refresh(self) -> None:
        model, rule = self.model, self.model.problem.sizes.survival
        held = np.zeros((1, 1, 1), np.int64)
        if (model.collide >= 0).any():
            held = np.zeros((len(self.gpu), model.problem.num_experts, model.problem.num_gpus), np.int64)
            layer, item = np.nonzero(model.collide >= 0)
            np.add.at(held, (layer, model.collide[layer, item], self.gpu[layer, item]), 1)
        together, variance = np.zeros((1, 1, 1)), np.zeros((1, 1))
        if len(model.covariance):
            one_hot = (self.gpu[:, :, None] == np.arange(model.problem.num_gpus)).astype(float)
            together = np.ascontiguousarray((model.covariance @ one_hot).transpose(0, 2, 1))
            own = together * one_hot.transpose(0, 2, 1)
            variance = own.sum(axis=2) if len(model.margin) else own.sum(axis=(1, 2))[:, None]
        self.state = SwapState(
            gpu=self.gpu,
            place=model.place(self.gpu),
            load=model.gpu_load(self.gpu),
            held=held,
            together=together,
            variance=variance,
            alive=of_layers(self.table(), rule, model.problem.num_experts, model.problem.slots_per_gpu),
        )

    def run(self, search: Search, hot: float, cold: float, ramp: tuple[float, float] = COUPLED_RAMP) -> Table:
        """Anneal from temperature `hot` to `cold` (in units of the model's scale) over the whole of `search`.

        Returns
        -------
        (L, S) int32
            The map at the end.
        """
        model, problem = self.model, self.model.problem
        L, G = problem.num_layers, problem.num_gpus
        step = TRIALS_PER_STEP if search.work is None else int(np.clip(search.work // 256, 100, TRIALS_PER_STEP))
        # Relabelling costs about as much as this many trials; it gets a twentieth of the time.
        relabel_every = 20 * L * (problem.num_slots**2 // 60 + 400 * problem.topology.num_nodes**2 + 10 * G * G)
        spent = since = 0
        while (used := search.progress(spent)) < 1.0:
            trials = step if search.work is None else max(1, min(step, search.work - spent))
            self._anneal(trials, model.scale * hot * (cold / hot) ** used, ramp[0] ** (1.0 - used) * ramp[1] ** used)
            spent += trials
            since += trials
            if self.relabelling is not None and since >= relabel_every:
                since = 0
                renamed = relabel_all(self.gpu, model.traffic, self.relabelling)
                if not np.array_equal(renamed, self.gpu):
                    self.gpu = renamed
                    self._refresh()
        # A run that is cut short is still hot; a moment at temperature 0 makes its state worth keeping.
        self._anneal(2 * step, model.scale * 1e-9, 1.0)
        return self.table()

    def run_at(self, trials: int, temperature: float) -> None:
        """Run some trials at a temperature, in units of the model's scale."""
        self._anneal(trials, self.model.scale * temperature, 1.0)

    def _anneal(self, trials: int, temperature: float, ramp: float) -> float:
        model = self.model
        change: float = anneal(model.items, model.weights(ramp), self.state, trials, temperature, self.rng)
        return change

    def table(self) -> Table:
        """Return the map of the present state."""
        problem = self.model.problem
        return pack(self.model.expert, self.gpu, problem.num_gpus, problem.slots_per_gpu)
