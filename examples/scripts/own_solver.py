"""A solver of one's own: frozen parameters, `supports` and `run`; the contract suite checks it."""

from dataclasses import dataclass

import numpy as np

from solvers import testing


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    name, summary = "shuffle", "The best of many random plans."

    def supports(self, problem):  # why a problem can't be taken; None if it can
        return None if problem.is_free and problem.num_slots == problem.num_experts else "It keeps no constraints."

    def run(self, problem, search):
        rng, rows = np.random.default_rng(search.seed), np.tile(np.arange(problem.num_slots), (problem.num_layers, 1))
        for trial in range(min(search.work or 100, 100)):
            search.offer(rng.permuted(rows, axis=1), trial)
            if search.done:
                break


testing.check_solver(Shuffle())
print("Shuffle keeps the contract.")
