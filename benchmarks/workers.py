"""What a worker of a Dask cluster costs when the layers of one plan are dealt out: 1, 2 and 4 local workers.

Run: ``python benchmarks/workers.py [--work N] [--rounds N]``. Needs the extra ``dask``.
Synthetic 58 x 256, top-8, 4 of 8 groups, 60,000 tokens (seed 5; half of them fitted), 8x8 with 5 slots, one message per
node. Workers are processes with one thread, on the loopback; the run without a cluster has one thread as well. With a
work limit all of them must find the same plan. The last table has what 8 to 100 machines would take, by the parts that
were measured: what stays here, what a task's bytes take on a link, and layers per worker.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
import time
import warnings
from typing import Any

import numpy as np
from _harness import Neighbours, conditions, table
from instances import INSTANCES

import placement
import solvers

INSTANCE = INSTANCES["58x256_8x8_sequences"]
WORKERS, ON_PAPER, LINK_GBIT = (1, 2, 4), (8, 20, 58, 100), 10


def problem() -> placement.Problem:
    """Return the problem of the fitted half."""
    return INSTANCE.problem(INSTANCE.parts()[0])


def cpu_s() -> float:
    """Return the CPU time of this process (a worker's, where one runs it)."""
    return time.process_time()


def task_bytes(asked: placement.Problem) -> int:
    """Return about what a task carries: the problem without its matrices over pairs of experts."""
    from solvers.searching.dealing import without_pairs

    return len(pickle.dumps(without_pairs(asked)))


def run(asked: placement.Problem, work: int, executor: Any = None) -> tuple[float, float, solvers.Solution]:
    """Return wall and CPU seconds of this process, and the solution."""
    start, cpu = time.perf_counter(), cpu_s()
    found = solvers.solve(asked, "annealing", limits=solvers.Limits(work=work), seed=0, workers=1, executor=executor)
    return time.perf_counter() - start, cpu_s() - cpu, found


def main() -> int:
    """Print what each number of workers takes; return 1 if a plan differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=int, default=6_000_000, help="trials in all (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: %(default)s)")
    options = parser.parse_args()
    from distributed import Client, LocalCluster

    warnings.filterwarnings("ignore", message="Sending large graph")
    from api.jobs.executors import executor_factory

    print(conditions("synthetic 58 x 256, seed 5", 0, f"1 thread a worker, {options.work:,} trials"))
    neighbours, asked = Neighbours(), problem()
    run(asked, 100_000)  # compiles
    alone = [run(asked, options.work) for _ in range(options.rounds)]
    plan = alone[0][2].plan.physical_to_logical_map
    here = statistics.median(wall for wall, _, _ in alone)
    rows = [["no cluster", "-", f"{here:.1f}", f"{here:.1f}", "-", "1.00"]]
    starts, others = [], []
    for count in WORKERS:
        with (
            LocalCluster(
                n_workers=count, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
            ) as cluster,
            Client(cluster) as client,
        ):
            make = executor_factory(cluster.scheduler_address.replace("tcp://", "dask://"))
            first, _, _ = run(asked, options.work, make)
            walls, mine, theirs = [], [], []
            for _ in range(options.rounds):
                before = sum(client.run(cpu_s).values())
                wall, own, found = run(asked, options.work, make)
                theirs.append(sum(client.run(cpu_s).values()) - before)
                walls.append(wall)
                mine.append(own)
                if not np.array_equal(found.plan.physical_to_logical_map, plan):
                    print(f"{count} workers find another plan")
                    return 1
        wall, own, other = (statistics.median(each) for each in (walls, mine, theirs))
        starts.append(first - wall)
        others.append(other)
        rows.append([f"{count} workers", f"{first:.1f}", f"{wall:.1f}", f"{own:.1f}", f"{other:.1f}"])
        rows[-1].append(f"{here / wall:.2f}")
    print(table(["", "first plan, s", "next plans, s", "CPU s here", "CPU s of workers", "times faster"], rows))
    kept, bytes_ = float(rows[1][3]), task_bytes(asked)
    each = (others[-1] - others[0]) / (WORKERS[-1] - WORKERS[0])
    print(f"a task carries {bytes_ / 1e6:.0f} MB; a worker more costs {each:.2f} s of CPU in all; the same plan always")
    sent = 8 * bytes_ / LINK_GBIT / 1e9
    layers, search = asked.num_layers, others[0] - each
    paper = []
    for count in ON_PAPER:
        used = min(count, layers)
        slowest = -(-layers // used)
        paper.append([f"{count}", str(used), str(slowest), f"{kept:.1f}", f"{sent * used:.1f}"])
        for times in (1, 10):  # the trials that were measured, and ten times as many
            total = kept + sent * used + each + times * search * slowest / layers
            paper[-1] += [f"{total:.1f}", f"{times * here / total:.1f}"]
    words = ["workers", "used", "layers of the slowest", "here, s", f"sending at {LINK_GBIT} Gbit/s, s"]
    words += ["all, s", "times faster", "10 x trials: all, s", "times faster"]
    print("\non paper:\n" + table(words, paper))
    print(f"\n{neighbours}, {os.cpu_count()} cores for all workers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
