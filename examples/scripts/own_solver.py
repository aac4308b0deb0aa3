"""A solver of one's own: frozen parameters, `supports` and `run`; the contract suite checks it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    name, summary = "shuffle", "The better of many random plans."

    def supports(self, problem):
        return None if problem.is_free else "It keeps no constraints."

    def run(self, problem, search):
        rng = np.random.default_rng(search.seed)
        while not search.done:
            search.offer(rng.permuted(np.tile(np.r_[: problem.num_slots], (problem.num_layers, 1)), axis=1))
