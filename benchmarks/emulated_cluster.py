"""A cluster of network namespaces: a real all-to-all of a trace's passes under several plans, against predictions.

    sudo python benchmarks/emulated_cluster.py --nodes 2 --per-node 2
    sudo python benchmarks/emulated_cluster.py --degraded          # one uplink at a quarter of its speed (C4's case)

Nodes are bridges, ranks are processes in namespaces of their own, and links are shaped by ``tc``: 400 Mbit/s per rank,
and an uplink of 40 Mbit/s that all ranks of a node share. PyTorch's gloo moves the bytes, dispatch and combine of every
layer, between processes of real-time priority that need little of a core. Launch and efficiency are fitted on even
exchanges alone; what the plans take is predicted from these two numbers, the links, and who sends how much to whom.
Needs root, iproute2 and PyTorch; says so and ends otherwise. Nothing outside of the namespaces that it makes, and
removes, is changed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _harness import Neighbours, conditions, table
from _namespaces import Cluster, cluster, why_not
from scipy.optimize import nnls

import solvers
from placement import Objective, Plan
from placement.replay.replay import Replay
from placement.time import Links
from traces import Trace, load
from traces.synthetic import Synthetic, generate

Floats = npt.NDArray[np.float64]
RANK_MBIT, UPLINK_MBIT, PORT = 400.0, 40.0, 29_555
EVEN_BYTES = (50_000, 200_000, 600_000)  # from each rank to each other, of the exchanges that are fitted
APART = 0.05  # pairs of plans that differ by more are to be in the right order
PLANS = ("contiguous", "random", "eplb", "ours")


def plans_of(study: solvers.Study, seed: int) -> dict[str, Plan]:
    """Return the plans that are compared."""
    own = solvers.Limits(work=200_000)
    found = {name: study.solve(name, seed=seed).plan for name in ("contiguous", "random", "eplb")}
    return found | {"ours": study.solve("auto", limits=own, seed=seed, workers=1).plan}


def sizes_of(plan: Plan, study: solvers.Study, trace: Trace, tokens: int, passes: int, size: int) -> Floats:
    """Return bytes from rank to rank of each pass and exchange, (P, 2 L, G, G): dispatch and combine of each layer."""
    problem, found = study.problem, []
    batches = list(trace.batches())
    ids, rows = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("topk_ids", "rows"))
    if len(ids) < tokens * passes:
        raise SystemExit(f"The trace has {len(ids):,} tokens held out, {passes} passes have {tokens * passes:,}.")
    for number in range(passes):
        part = slice(number * tokens, (number + 1) * tokens)
        replay = Replay.of(
            plan.physical_to_logical_map, plan.num_experts, plan.slots_per_gpu, problem.topology, problem.objective
        )
        replay.add(ids[part], rows[part], None, None)
        there = replay.traffic * size
        found.append(np.concatenate([there, there.transpose(0, 2, 1)]))
    return np.array(found, float)


def run(made: Cluster, sizes: Floats) -> Floats:
    """Run exchanges in order, (J, G, G) bytes; return the seconds of the slowest rank in each, (J,)."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "jobs.npy", sizes.astype(np.int64))
        script = Path(__file__).with_name("_cluster_ranks.py")
        words = (sys.executable, str(script), folder, made.addresses[0], str(PORT), *made.ranks)
        process = subprocess.Popen(words)
        try:
            if process.wait():
                raise RuntimeError(f"an exchange ended with {process.returncode}")
        finally:
            process.terminate()
            process.wait()
        times = np.array([json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(len(made.ranks))])
        return np.asarray(times[..., 1].max(axis=0) - times[..., 0].min(axis=0), float)


def fitted(links: Links, even: Floats, seconds: Floats) -> tuple[float, float]:
    """Return launch in milliseconds and efficiency, fitted to even exchanges in relative error."""
    known = links.ms(even / 1e9)
    terms = np.stack([known, np.ones_like(known)], axis=1) / (1e3 * seconds)[:, None]
    slope, launch = nnls(terms, np.ones(len(known)))[0]
    return float(launch), 1 / float(slope)


def compared(rows: dict[tuple[str, int, int], tuple[Floats, Floats]]) -> tuple[list[list[str]], Floats, list[bool]]:
    """Return a table row per plan and pass size, relative errors, and whether pairs that differ are in order."""
    lines, errors, order = [], [], []
    for (name, tokens, seed), (measured, predicted) in rows.items():
        errors.extend(np.abs(predicted / measured - 1).tolist())
        wrong = float(np.median(np.abs(predicted / measured - 1)))
        lines.append([name, str(tokens), str(seed), *(f"{1e3 * each.mean():.0f}" for each in (measured, predicted))])
        lines[-1].append(f"{wrong:.1%}")
    for one, other in combinations(rows, 2):
        if one[1:] == other[1:]:
            pair = [rows[key] for key in (one, other)]
            real, told = (np.log(pair[0][which].mean() / pair[1][which].mean()) for which in (0, 1))
            if abs(real) > np.log(1 + APART):
                order.append(bool(np.sign(real) == np.sign(told)))
    return lines, np.array(errors), order


def parsed() -> argparse.Namespace:
    """Return what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--per-node", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--trace", help="recorded trace; synthetic routing by default")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128, 256], help="per rank and pass")
    parser.add_argument("--passes", type=int, default=2, help="of each size")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vector-bytes", type=int, default=4096, help="of a token that travels")
    parser.add_argument("--degraded", action="store_true", help="one uplink at a quarter of its speed")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def source(asked: argparse.Namespace, seed: int) -> Trace:
    """Return the trace of a seed."""
    if asked.trace:
        whole = load(asked.trace)
        assert isinstance(whole, Trace)
        some = load(asked.trace, layers=whole.layer_ids[: asked.layers].tolist())
        assert isinstance(some, Trace)
        return some
    shape: dict[str, Any] = {"num_experts": 32, "top_k": 4, "groups": 8, "group_limit": 2, "skew": 0.6, "affinity": 0.5}
    params = Synthetic(num_layers=asked.layers, num_tokens=16_384, **shape)
    return generate(replace(params, seed=seed, tokens_per_sequence=64))


def main() -> None:
    """Build the cluster, run everything, and print what was measured beside what was predicted."""
    asked = parsed()
    if (reason := why_not()) is not None or importlib.util.find_spec("torch") is None:
        print(f"Nothing is measured: {reason or 'PyTorch is not installed.'}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what was made is removed then too
    gpus, noise, began = asked.nodes * asked.per_node, Neighbours(), time.monotonic()
    uplinks = np.full(asked.nodes, UPLINK_MBIT)
    uplinks[-1] *= 0.25 if asked.degraded else 1.0
    links = Links(
        node_of_gpu=np.repeat(np.arange(asked.nodes), asked.per_node),
        rank_gb_s=np.full(gpus, RANK_MBIT / 8e3),
        uplink_gb_s=uplinks / 8e3,
    )
    jobs: list[tuple[tuple[str, int, int], Floats]] = []
    for seed in range(asked.seeds):
        trace = source(asked, seed)
        study = solvers.Study.of(
            trace,
            f"{asked.nodes}x{asked.per_node}",
            objective=Objective(execution="dispatch", dedup="gpu", imbalance_weight=1.0, load_spread_weight=0.0),
            seed=seed,
            workers=1,
        )
        assert study.held_out is not None
        for name, plan in plans_of(study, seed).items():
            for tokens in asked.tokens:
                sizes = sizes_of(plan, study, study.held_out, tokens * gpus, asked.passes, asked.vector_bytes)
                jobs.append(((name, tokens, seed), sizes))
    even = np.repeat([size * (1 - np.eye(gpus)) for size in EVEN_BYTES], 3, axis=0)
    order = np.random.default_rng(0).permutation(len(jobs))  # so that a slow while of the machine hits all plans
    shuffled = [jobs[number] for number in order]
    flat = np.concatenate([even, *(sizes.reshape(-1, gpus, gpus) for _, sizes in shuffled)])
    with cluster(asked.nodes, asked.per_node, [RANK_MBIT] * gpus, uplinks.tolist()) as made:
        seconds = run(made, flat)
    launch, efficiency = fitted(links, even[1:], seconds[1 : len(even)])  # the first finds its way
    model = replace(links, launch_ms=launch, rank_gb_s=links.rank_gb_s * efficiency)
    model = replace(model, uplink_gb_s=links.uplink_gb_s * efficiency)
    rows, at = {}, len(even)
    for key, sizes in shuffled:
        passes, exchanges = sizes.shape[:2]
        measured = seconds[at : at + passes * exchanges].reshape(passes, exchanges).sum(axis=1)
        rows[key] = (measured, model.ms(sizes / 1e9).sum(axis=1) / 1e3)
        at += passes * exchanges
    rows = dict(sorted(rows.items(), key=lambda row: (row[0][2], row[0][1], PLANS.index(row[0][0]))))
    lines, errors, right = compared(rows)
    told = {
        "median_error": float(np.median(errors)),
        "p90_error": float(np.quantile(errors, 0.9)),
        "order_right": float(np.mean(right)) if right else None,
        "pairs": len(right),
        "launch_ms": launch,
        "efficiency": efficiency,
    }
    if asked.json:
        print(json.dumps(told | {"rows": lines}))
        return
    print(conditions(asked.trace or "synthetic", asked.seeds, f"{gpus} ranks in namespaces"))
    print(table(["plan", "tokens", "seed", "measured ms", "predicted ms", "median error"], lines))
    print(
        f"launch {launch:.1f} ms, {efficiency:.0%} of the links; passes: median error {told['median_error']:.1%}, ",
        end="",
    )
    print(f"90 % within {told['p90_error']:.1%}; order of plans right in {sum(right)} of {len(right)} pairs")
    print(f"{noise}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
