"""The least fan-out on tokens that were not seen: what no plan with a load cap can be below, however it was found.

Run: ``python benchmarks/fanout_floor.py [TRACE] [--topology 1xG] [--load-cap C] [--time-limit S]``.
Even sequences are fitted, odd ones held out. The plan of `auto` keeps the cap on the fitted tokens, or comes as close
as it can: in a layer that it leaves above the cap, any load up to its own is allowed. The floor is the least number of
distinct GPUs per *held-out* token and layer over all plans that keep these loads, chosen by looking at the held-out
tokens: no honest plan gets there. The sample trace by default.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _harness import Neighbours, available_cores, conditions, table

import placement
import solvers
import traces
from solvers.methods.set_partition.columns import SetColumns
from solvers.methods.set_partition.gpu_sets import GpuSets, count_sets, sets_fit
from solvers.methods.set_partition.solver import MOST
from solvers.searching.search import Search

SAMPLE = Path(__file__).parent.parent / "examples" / "tiny_moe" / "tiny_moe.npz"
SEED = 0
LAYER_S = 600.0


class WithinLoad(GpuSets):
    """Sets with a load up to some limit; the others are ruled out."""

    limit = np.inf

    def cost(self, price: float) -> npt.NDArray[np.floating]:
        """See `GpuSets.cost`."""
        result = super().cost(price)
        for gpu in range(result.shape[1]):
            result[self.loads(gpu) > self.limit, gpu] = np.inf
        return result


def floor(problem: placement.Problem, held: traces.TokenSample, row: npt.NDArray[np.integer], layer: int) -> SetColumns:
    """Return the least fan-out of a layer on held-out tokens, with loads up to the larger of cap and plan's own."""
    gpus = problem.num_gpus
    sets = WithinLoad(problem, layer, sample=held, hop=np.ones((gpus, gpus)))
    numbers = sets.number(row.reshape(gpus, -1))
    caps = problem.load_caps
    own = float(sets.relative_load(numbers, np.arange(gpus)).max()) * (1 + 1e-9)
    sets.limit = own if caps is None else max(float(caps[layer]), own)
    columns = SetColumns(sets, 0.0, row.reshape(gpus, -1))
    search = Search(problem, solvers.Limits(time_s=LAYER_S), seed=SEED)
    for most in MOST:
        columns.decide(most, search, lambda: None)
    return columns


def main() -> None:
    """Solve, bound, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--topology", default="1x8")
    parser.add_argument("--load-cap", type=float, default=1.05)
    parser.add_argument("--time-limit", type=float, default=60.0)
    options = parser.parse_args()
    trace, topology = traces.load(options.trace), placement.Topology.parse(options.topology)
    fit, odd = (trace.where(lambda batch, p=p: batch.seq_id % 2 == p, f"seq_id % 2 == {p}") for p in (0, 1))
    objective = placement.Objective(execution="dispatch")
    cap = placement.Constraints(load_cap=options.load_cap)
    problem = placement.Problem(traces.Profile.of(fit), topology, objective=objective, constraints=cap)
    if reason := sets_fit(problem):
        parser.error(reason)
    print(conditions(options.trace.name, SEED, f"{available_cores()} threads, {options.time_limit:g} s"))
    neighbours = Neighbours()
    found = solvers.solve(problem, limits=solvers.Limits(time_s=options.time_limit), seed=SEED)
    verdicts = [
        placement.evaluate(found.plan, part, topology, execution="dispatch", dedup="gpu") for part in (fit, odd)
    ]
    # As many as there are, so that the floor is that of all held-out tokens.
    sample = traces.Profile.of(odd, sample_tokens=10**7).sample
    assert sample is not None
    rows = found.plan.physical_to_logical_map
    # Loads are kept by what is allowed, not by a price.
    free = replace(problem, objective=replace(objective, load_excess_weight=0.0, load_spread_weight=0.0))
    layers = [floor(free, sample, rows[layer], layer) for layer in range(problem.num_layers)]
    print(f"{options.topology}, cap {options.load_cap}, {count_sets(problem):,} costs per layer")
    print(f"plan of auto in {found.elapsed_s:.1f} s, gap {found.plan.gap:.2%}\n")
    names = ("fan-out, fitted", "held out", "least held out", "proven", "max/mean, fitted", "held out")
    figures = [verdicts[0].fanout_gpus, verdicts[1].fanout_gpus]
    figures += [sum(columns.upper for columns in layers), sum(columns.bound for columns in layers)]
    figures += [verdict.imbalance_max_over_mean for verdict in verdicts]
    print(table(names, [[f"{figure:.4f}" for figure in figures]]))
    above = [str(layer) for layer, columns in enumerate(layers) if columns.sets.limit > options.load_cap]
    print(f"\nLayers above the cap: {', '.join(above) or 'none'}\n{neighbours}")


if __name__ == "__main__":
    main()
