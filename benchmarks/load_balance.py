"""`load_balance` beside global EPLB for a whole model: balance and milliseconds.

Run: ``python benchmarks/load_balance.py [--rounds N]``. Target: in no layer less balanced than EPLB, no two replicas of
an expert on a GPU, and 58 layers on all four clusters below 20 ms in total, at each exponent.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from _harness import Neighbours, available_cores, conditions, interleaved, seconds, table

from placement.plan.plan import replicas_on_gpu
from solvers.methods.eplb import solver as eplb
from solvers.methods.load_balance import solver as load_balance

LAYERS, EXPERTS, TOP_K = 58, 256, 8
CLUSTERS = ((4, 32, 288), (8, 64, 320), (8, 72, 288), (18, 144, 288))  # nodes, GPUs, slots per layer
TOKENS, EXPONENTS, SEED = 100_000, (0.5, 0.8, 1.0), 0
TARGET_MS = 20.0

Floats = npt.NDArray[np.float64]
Tables = npt.NDArray[np.integer]


def loads(exponent: float) -> Floats:
    """Return (L, E) whole tokens, drawn from loads proportional to ``rank ** -exponent`` in a random order."""
    rng = np.random.default_rng(SEED)
    popularity = np.arange(1, EXPERTS + 1) ** -exponent
    probability = np.stack([rng.permutation(popularity / popularity.sum()) for _ in range(LAYERS)])
    return rng.multinomial(TOKENS * TOP_K, probability).astype(np.float64)


def balance(weight: Floats, plan: Tables, gpus: int) -> tuple[Floats, int]:
    """Return mean / max GPU load of each layer, replicas sharing an expert's load equally, and seconds on a GPU."""
    replicas = replicas_on_gpu(plan, EXPERTS, gpus)
    load = np.einsum("le,leg->lg", weight, replicas / replicas.sum(axis=2, keepdims=True))
    return load.mean(axis=1) / load.max(axis=1), int(np.maximum(replicas - 1, 0).sum())


def wall_and_cpu(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time of one call and the CPU time of its threads, in milliseconds."""
    cpu = time.process_time()
    wall = seconds(work)
    return 1000 * wall, 1000 * (time.process_time() - cpu)


def main() -> None:
    """Measure the four clusters at three skews and print balance and milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="interleaved rounds (default: %(default)s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds starts at 1")
    workers = min(2, available_cores())
    print(conditions(f"multinomial Zipf loads, {LAYERS} x {EXPERTS}", SEED, f"{workers} threads, {rounds} rounds"))
    rows, neighbours, totals = [], Neighbours(), {exponent: np.zeros(2) for exponent in EXPONENTS}
    for nodes, gpus, slots in CLUSTERS:
        for exponent in EXPONENTS:
            weight = loads(exponent)
            ours = partial(load_balance.rebalance, weight, num_slots=slots, num_gpus=gpus, workers=workers)
            theirs = partial(eplb.rebalance, weight, num_slots=slots, num_groups=1, num_nodes=1, num_gpus=gpus)
            # This is the warm-up as well.
            (new, new_doubles), (old, old_doubles) = balance(weight, ours(), gpus), balance(weight, theirs(), gpus)
            name = f"{nodes}/{gpus}/{slots}, exponent {exponent}"
            assert (new >= old * (1 - 1e-12)).all(), f"{name}: a layer is less balanced"
            assert new_doubles == 0, f"{name}: two replicas on a GPU"
            times = interleaved({"ours": partial(wall_and_cpu, ours), "eplb": partial(wall_and_cpu, theirs)}, rounds)
            ms = {key: [statistics.median(column) for column in zip(*runs, strict=True)] for key, runs in times.items()}
            totals[exponent] += ms["ours"]
            figures = [f"{old.mean():.4f}", f"{new.mean():.4f}", f"{(new / old).max():.3f}", f"{old_doubles}"]
            rows.append([name, *figures, f"{ms['eplb'][0]:.1f}", f"{ms['ours'][0]:.1f}", f"{ms['ours'][1]:.1f}"])
    print(f"in no layer less balanced than EPLB, no two replicas of an expert on a GPU; {neighbours}\n")
    header = [
        "nodes/GPUs/slots",
        "EPLB",
        "load_balance",
        "best layer / EPLB",
        "doubles in EPLB",
        "EPLB, ms",
        "ms",
        "CPU ms",
    ]
    print(table(header, rows))
    for exponent, (wall, cpu) in totals.items():
        verdict = "yes" if wall < TARGET_MS else "NO"
        print(
            f"exponent {exponent}, four clusters, below {TARGET_MS:.0f} ms: {verdict}, {wall:.1f} ms ({cpu:.1f} of CPU)"
        )
    wall, cpu = np.sum(list(totals.values()), axis=0)
    print(f"all twelve: {wall:.1f} ms ({cpu:.1f} of CPU)")


if __name__ == "__main__":
    main()
