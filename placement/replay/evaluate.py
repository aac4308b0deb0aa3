"""Replay every token of a trace through a plan, and report what crosses, and who waits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.loads.split import best_split_max_load
from placement.plan.plan import Plan
from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy
from placement.replay.activation import activated_experts
from placement.replay.choices import engine_choices, recorded_topology, replayed_objective
from placement.replay.evaluation import Evaluation, HotLink
from placement.replay.kernels.crossing import sum_crossing
from placement.replay.passes import PASS_TOKENS, Passes, PassFigures, refuse_long_passes, settled_pass_tokens
from placement.replay.replay import Replay
from placement.topology.topology import Topology
from traces import Batch, InputError, LoadCounts, Trace, Violations
from traces.profile.kernels import count_load
from traces.profile.sample import SampleBuilder
from traces.support.kinds import checked
from traces.support.parallel import available_cores, map_threads
from traces.trace import BATCH_TOKENS

__all__ = ["evaluate"]

BATCHED_TOKENS = 32_768
LEAST_BATCH = 2_048  # tokens
CELL_NUMBERS = 1 << 23
Loads = npt.NDArray[np.int32]


@checked
def evaluate(
    plan: Plan,
    trace: Trace,
    topology: Topology | None = None,
    *,
    engine: str | None = None,
    execution: Execution | None = None,
    dedup: Dedup | None = None,
    ownership: Ownership | None = None,
    replica_policy: ReplicaPolicy | None = None,
    decode_batch: int | None = None,
    pass_tokens: Sequence[int] = (),
    workers: int | None = None,
) -> Evaluation:
    """Replay a trace through a plan, as the plan was made for.

    Parameters
    ----------
    plan : Plan
        What is left out below is as its provenance records it.
    trace : Trace
        Streams; memory does not grow with it.
    topology : Topology, optional
    engine : str, optional
        Replay as this engine does, ``sglang`` or ``sglang:static`` say; what else is given wins.
    execution, dedup, ownership, replica_policy : optional
        See `Objective`. With replicas under ``context_coherent``, a token is near the GPUs of its experts in the layer
        before, the first listed first. Where the plan does not record them either: ``context_coherent``; ``gpu`` and
        ``token``; ``fair`` (context_coherent) or ``same_node`` (dispatch).
    decode_batch : int, optional
        Tokens per batch, to count `activated_experts` under ``dispatch``. Where it is left out, they are counted if
        the plan's objective has a weight for them.
    pass_tokens : sequence of int
        Tokens of a forward pass, for the balance per pass; several sizes give a `PassFigures` each. 64, 256 and 2,048
        if it is empty.
    workers : int, optional
        Threads; all cores by default. The result does not depend on it.

    Raises
    ------
    InputError
        If plan, trace and topology do not fit together, the trace holds no token, an option that is given has no
        effect (`dedup`, `ownership` and `decode_batch` under ``context_coherent``, `pass_tokens` beyond the trace), or
        nothing names a topology.
    """
    if isinstance(trace, LoadCounts):
        detail = "Counts hold no tokens to replay."
        remedy = "Give a trace with token identity (topk_ids), or use `expected_loads` for the loads of the GPUs."
        raise InputError.of("counts_only", trace.provenance.source, detail, remedy)
    given = {"execution": execution, "dedup": dedup, "ownership": ownership, "replica_policy": replica_policy}
    said, _ = engine_choices(engine, trace)
    asked = said | {name: value for name, value in given.items() if value is not None}
    objective, batch = replayed_objective(plan.provenance, asked, decode_batch)
    machine = recorded_topology(plan, "/plan") if topology is None else topology
    if machine is None:
        detail = "The plan does not record the topology that it was made for."
        remedy = "Give `topology`, Topology.parse('4x8') for instance."
        raise InputError.of("topology_unknown", "/topology", detail, remedy)
    sample = SampleBuilder(0 if batch is None else BATCHED_TOKENS, 0)
    _check_fit(plan, trace, machine)
    replay = Replay.of(plan.physical_to_logical_map, plan.num_experts, plan.slots_per_gpu, machine, objective)
    threads = available_cores() if workers is None else max(1, workers)
    parts = [replay, *(replay.fork() for _ in range(threads - 1))]
    passes = Passes(settled_pass_tokens(pass_tokens), plan.num_layers, machine.num_gpus)
    has_replicas = bool((plan.replicas > 1).any())
    loads = np.zeros((threads, plan.num_layers, 1, plan.num_experts), np.int64)

    def add(part: Replay, load: npt.NDArray[np.int64], batch: Batch, bounds: npt.NDArray[np.int64]) -> Loads:
        """Replay the cells of a batch, and return the load of each, (C, L, G)."""
        cells = np.zeros((max(len(bounds) - 1, 0), plan.num_layers, machine.num_gpus), np.int32)
        for number, cell in enumerate(cells):
            piece = batch.select(slice(bounds[number], bounds[number + 1]))
            before = part.load.copy()
            part.add(piece.topk_ids, piece.rows, piece.seq_id, piece.source_rank)
            cell[:] = part.load - before
        if has_replicas and len(cells):
            piece = batch.select(slice(bounds[0], bounds[-1]))
            for layer in range(plan.num_layers):
                count_load(piece.topk_ids, layer, np.array([len(piece)]), load[layer])
        return cells

    with ThreadPoolExecutor(threads) as pool:
        for tokens in trace.batches(_batch_tokens(plan.num_layers * machine.num_gpus)):
            if not len(tokens):
                continue
            sample.add(tokens)
            bounds = passes.bounds(len(tokens))
            share = -(-(len(bounds) - 1) // threads)
            shares = [bounds[n * share : (n + 1) * share + 1] for n in range(threads)]
            cells = list(pool.map(add, parts, loads, [tokens] * threads, shares))
            passes.add(bounds, np.concatenate(cells))
    for part in parts[1:]:
        replay.join(part)
    if not replay.tokens:
        raise InputError.of(
            "zero_tokens",
            trace.provenance.source,
            "The trace holds no tokens.",
            "Check the recording and any selection of it.",
        )
    refuse_long_passes(pass_tokens, replay.tokens, trace.provenance.source)
    drawn, activated = sample.finish(), None
    if drawn is not None and batch is not None:
        activated = activated_experts(
            plan.physical_to_logical_map,
            plan.num_experts,
            plan.slots_per_gpu,
            drawn,
            machine,
            objective,
            batch,
        )
    expert_load = loads.sum(axis=(0, 2)).astype(np.float64) if has_replicas else None
    return _report(replay, plan, passes.figures(), activated, expert_load, threads)


def _batch_tokens(cell: int) -> int:
    """Return the tokens of a batch: the loads of its cells of 64 tokens or so, `cell` numbers each, stay small."""
    return max(LEAST_BATCH, min(BATCH_TOKENS, CELL_NUMBERS // max(cell, 1) * PASS_TOKENS[0]))


def _check_fit(plan: Plan, trace: Trace, topology: Topology) -> None:
    found = Violations()
    remedy = "Use the trace and the topology that the plan was made for."
    if plan.num_gpus != topology.num_gpus:
        detail = f"The plan has {plan.num_gpus} GPUs, the topology {topology.num_gpus}."
        found.add("gpus_differ", "/topology", detail, remedy)
    # What a trace leaves open is found from its tokens, without the experts after the last one that was used.
    states = not trace.provenance.experts_inferred
    if plan.num_experts < trace.num_experts or (states and plan.num_experts != trace.num_experts):
        says = "states" if states else "has"
        detail = f"The plan places {plan.num_experts} experts, the trace {says} {trace.num_experts}."
        found.add("experts_differ", "/num_experts", detail, remedy)
    if plan.layer_ids.tolist() != trace.layer_ids.tolist():
        detail = f"The plan's layers {_short(plan.layer_ids)} are not the trace's {_short(trace.layer_ids)}."
        found.add("layers_differ", "/layer_ids", detail, remedy + " Name the layers of the trace with `layer_ids`.")
    found.raise_if_any()


def _short(layers: npt.NDArray[np.int64]) -> str:
    return f"{layers[0]}..{layers[-1]} ({len(layers)})"


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
    return ratio


def _report(
    replay: Replay,
    plan: Plan,
    per_pass: tuple[PassFigures, ...],
    activated: npt.NDArray[np.float64] | None,
    expert_load: npt.NDArray[np.float64] | None,
    threads: int,
) -> Evaluation:
    topology, objective = replay.topology, replay.objective
    context = objective.execution == "context_coherent"
    sums = map_threads(
        lambda matrix: sum_crossing(matrix, topology.node_of_gpu, topology.hop_cost), replay.traffic, threads
    )
    counts = np.array([item[:3] for item in sums], dtype=np.int64).reshape(-1, 3)  # of one layer, there are none
    total, hop = counts[:, 0], np.array([item[3] for item in sums], dtype=np.float64)
    assigned = replay.load.sum(axis=1)
    active = replay.fanout[:, 2]
    if context:
        crossing = counts[:, 1:]
        whole = total
    else:
        crossing, whole = replay.away[:, :2], assigned
    hop_whole = active if not context and objective.dedup != "none" else total
    mean, largest = assigned / topology.num_gpus, replay.load.max(axis=1)
    max_over_mean = _ratio(largest, mean)
    columns = {
        "cross_gpu_fraction": _ratio(crossing[:, 0], whole),
        "cross_node_fraction": _ratio(crossing[:, 1], whole),
        "fanout_gpus": _ratio(replay.fanout[:, 0], active),
        "fanout_nodes": _ratio(replay.fanout[:, 1], active),
        "traffic": _ratio(hop, hop_whole),
        "imbalance_max_over_mean": max_over_mean,
    }
    if not context:
        columns["remote_gpus"] = _ratio(replay.away[:, 2], active)
        columns["remote_nodes"] = _ratio(replay.away[:, 3], active)
    if expert_load is not None:
        fair = np.full(topology.num_gpus, 1 / topology.num_gpus)  # as the other balance metrics, whatever the speeds
        columns["imbalance_optimal_split"] = best_split_max_load(expert_load, plan.physical_to_logical_map, fair)
    if activated is not None:
        columns["activated_experts"] = activated
    per_layer: dict[str, list[Any]] = {"layer_id": plan.layer_ids.tolist(), "tokens": active.tolist()}
    per_layer |= {name: values.tolist() for name, values in columns.items()}
    matrix = replay.traffic.sum(axis=0)

    def overall(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> float:
        return float(part.sum() / whole.sum()) if whole.sum() else 0.0

    return Evaluation(
        execution=objective.execution,
        dedup=None if context else objective.dedup,
        ownership=None if context else objective.ownership,
        replica_policy=objective.replica_policy,
        tokens=replay.tokens,
        cross_gpu_fraction=overall(crossing[:, 0], whole),
        cross_node_fraction=overall(crossing[:, 1], whole),
        fanout_gpus=overall(replay.fanout[:, 0], active),
        fanout_nodes=overall(replay.fanout[:, 1], active),
        remote_gpus=None if context else overall(replay.away[:, 2], active),
        remote_nodes=None if context else overall(replay.away[:, 3], active),
        traffic=overall(hop, hop_whole),
        traffic_unit=objective.traffic_unit,
        imbalance_max_over_mean=float(max_over_mean.mean()),
        balancedness_whole_trace=overall(mean, largest),
        per_pass=per_pass,
        imbalance_optimal_split=None if expert_load is None else float(columns["imbalance_optimal_split"].mean()),
        activated_experts=None if activated is None else float(activated.mean()),
        per_layer=per_layer,
        traffic_matrix=matrix,
        hottest_links=_hottest(matrix - np.diag(matrix.diagonal())),
        gpu_load=replay.load,
    )


def _hottest(matrix: npt.NDArray[np.int64], count: int = 8) -> tuple[HotLink, ...]:
    flat, total = matrix.ravel(), matrix.sum()
    used = np.flatnonzero(flat)  # few, on large machines
    order = used[np.argsort(-flat[used], kind="stable")[:count]]
    return tuple(
        HotLink(
            source=int(link // len(matrix)),
            target=int(link % len(matrix)),
            messages=int(flat[link]),
            share=float(flat[link] / total),
        )
        for link in order
    )
