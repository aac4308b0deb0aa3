"""EPLB for a whole model: the compiled loops beside plain numpy, which must give the same plans.

Run: ``python benchmarks/eplb.py [--rounds N]``. Target: below 10 ms for 58 layers of 256 experts.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import numpy as np
import numpy.typing as npt
from _harness import Neighbours, conditions, interleaved, median_ratio, seconds, table

from solvers.methods.eplb.solver import rebalance

LAYERS, EXPERTS, TOP_K = 58, 256, 8
NODES, GPUS, SLOTS = 8, 64, 320
TOKENS, EXPONENTS, SEED = 100_000, (0.5, 0.8, 1.0), 0
TARGET_MS = 10.0

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def pack(weight: Floats, packs: int) -> Ints:
    """Pack the items of every row into packs of equal size, heaviest first, each into the lightest with room.

    Returns
    -------
    (rows, items) int64
        ``pack * size + rank in the pack`` of every item.
    """
    rows, items = weight.shape
    size = items // packs
    if size == 1:
        return np.broadcast_to(np.arange(items), weight.shape)
    order = np.argsort(-weight, axis=1, kind="stable")
    target = np.empty((rows, items), np.int64)
    total = np.zeros((rows, packs))  # infinite once a pack is full
    filled = np.zeros((rows, packs), np.int64)
    row = np.arange(rows)
    for item in order.T:
        lightest = total.argmin(axis=1)
        rank = filled[row, lightest]
        target[row, item] = lightest * size + rank
        filled[row, lightest] = rank + 1
        total[row, lightest] = np.where(rank + 1 == size, np.inf, total[row, lightest] + weight[row, item])
    return target


def replicate(weight: Floats, slots: int) -> tuple[Ints, Floats]:
    """Give every spare slot of a row to the expert with the largest load per replica.

    Returns
    -------
    held : (rows, slots) int64
        Expert of each replica.
    share : (rows, slots) float64
        Load of each replica.
    """
    rows, experts = weight.shape
    held = np.empty((rows, slots), np.int64)
    held[:, :experts] = np.arange(experts)
    replicas = np.ones((rows, experts), np.int64)
    share, row = weight.copy(), np.arange(rows)
    for slot in range(experts, slots):
        hottest = share.argmax(axis=1)
        held[:, slot] = hottest
        replicas[row, hottest] += 1
        share[row, hottest] = weight[row, hottest] / replicas[row, hottest]
    return held, np.take_along_axis(share, held, axis=1)


def numpy_eplb(weight: Floats, slots: int, groups: int, nodes: int, gpus: int) -> Ints:
    """Pack groups into nodes, replicate the hottest inside nodes, pack the replicas into GPUs; return the map (L, S).

    Python loops over items only: every step is for all layers and nodes at once.
    """
    layers, experts = weight.shape
    group_size = experts // groups
    where = pack(weight.reshape(layers, groups, group_size).sum(axis=2), nodes)
    by_node = np.empty((layers, groups, group_size), np.int64)
    np.put_along_axis(by_node, where[:, :, np.newaxis], np.arange(experts).reshape(1, groups, group_size), axis=1)
    expert_of = by_node.reshape(layers * nodes, experts // nodes)
    node_weight = np.take_along_axis(np.repeat(weight, nodes, axis=0), expert_of, axis=1)
    held, share = replicate(node_weight, slots // nodes)
    plan = np.empty_like(held)
    np.put_along_axis(plan, pack(share, gpus // nodes), np.take_along_axis(expert_of, held, axis=1), axis=1)
    return plan.reshape(layers, slots)


def balance(weight: Floats, plan: Ints) -> float:
    """Return the mean over layers of mean / max GPU load, replicas sharing an expert's load equally."""
    layers, slots = plan.shape
    flat = plan + np.arange(layers)[:, np.newaxis] * EXPERTS
    replicas = np.bincount(flat.ravel(), minlength=layers * EXPERTS)
    share = weight.ravel()[flat] / replicas[flat]
    load = share.reshape(layers, GPUS, slots // GPUS).sum(axis=2)
    return float((load.mean(axis=1) / load.max(axis=1)).mean())


def loads(exponent: float) -> Floats:
    """Return (L, E) whole tokens, drawn from loads proportional to ``rank ** -exponent`` in a random order."""
    rng = np.random.default_rng(SEED)
    popularity = np.arange(1, EXPERTS + 1) ** -exponent
    probability = np.stack([rng.permutation(popularity / popularity.sum()) for _ in range(LAYERS)])
    return rng.multinomial(TOKENS * TOP_K, probability).astype(np.float64)


def main() -> None:
    """Measure both policies at three skews and print milliseconds, ratio and balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="interleaved rounds (default: %(default)s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds starts at 1")
    data = f"multinomial Zipf loads, {LAYERS} x {EXPERTS}, {SLOTS} slots on {NODES} x {GPUS // NODES} GPUs"
    print(conditions(data, SEED, f"1 thread, {rounds} rounds"))
    rows, slowest, neighbours = [], 0.0, Neighbours()
    for policy, groups, nodes in (("hierarchical, 8 groups", 8, NODES), ("global", 1, 1)):
        for exponent in EXPONENTS:
            weight = loads(exponent)
            ours = partial(rebalance, weight, num_slots=SLOTS, num_groups=groups, num_nodes=nodes, num_gpus=GPUS)
            plain = partial(numpy_eplb, weight, SLOTS, groups, nodes, GPUS)
            # This is the warm-up as well.
            plan = ours()
            assert np.array_equal(plan, plain()), f"{policy}, exponent {exponent}: the plans differ"
            times = interleaved({"ours": partial(seconds, ours), "numpy": partial(seconds, plain)}, rounds)
            ms = {name: 1000 * statistics.median(runs) for name, runs in times.items()}
            ratio, least, greatest = median_ratio(times["numpy"], times["ours"])
            slowest = max(slowest, ms["ours"])
            spread = f"{ratio:.1f} ({least:.1f} to {greatest:.1f})"
            name = f"{policy}, exponent {exponent}"
            rows.append([name, f"{ms['ours']:.2f}", f"{ms['numpy']:.1f}", spread, f"{balance(weight, plan):.3f}"])
    print(f"both give the same plans, slot for slot; {neighbours}\n")
    print(table(["", "compiled, ms", "numpy, ms", "numpy / compiled", "mean/max load"], rows))
    print(f"compiled below {TARGET_MS:.0f} ms: {'yes' if slowest < TARGET_MS else 'NO'}, all {LAYERS} layers")


if __name__ == "__main__":
    main()
