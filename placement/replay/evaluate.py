"""Replay every token of a trace through a plan, and report what crosses, and who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan
from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy
from placement.replay.choices import CHOICES, engine_choices, recorded_topology, replayed_objective
from placement.replay.evaluation import Evaluation
from placement.replay.evaluator import Evaluator
from placement.replay.passes import PASS_TOKENS, refuse_long_passes, settled_pass_tokens
from placement.topology.topology import Topology
from traces import InputError, LoadCounts, Trace, Violations
from traces.support.kinds import checked
from traces.support.parallel import available_cores
from traces.together import batches_together
from traces.trace import BATCH_TOKENS

__all__ = ["Asked", "evaluate", "evaluate_together"]

LEAST_BATCH = 2_048  # tokens
CELL_NUMBERS = 1 << 23
PASS_BYTES = 256_000_000  # of matrices in one pass; what does not fit has another
Named = TypeVar("Named", bound=tuple[str, Any])  # the part, and any key


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
    asked: dict[str, Any] = {"engine": engine, "execution": execution, "dedup": dedup, "ownership": ownership}
    asked |= {"replica_policy": replica_policy, "decode_batch": decode_batch, "pass_tokens": pass_tokens}
    return evaluate_together({"": trace}, {("", 0): Asked(plan, topology, asked)}, workers=workers)["", 0]


@dataclass(frozen=True)
class Asked:
    """A replay: the plan, the topology, and options of `evaluate`.

    Attributes
    ----------
    plan : Plan
    topology : Topology or None
    options : mapping
        By the names of `evaluate`.
    """

    plan: Plan
    topology: Topology | None
    options: Mapping[str, Any]


def evaluate_together(
    parts: Mapping[str, Trace], asked: Mapping[Named, Asked], *, workers: int | None = None
) -> dict[Named, Evaluation]:
    """Replay several plans in as few passes over the tokens as memory allows.

    Parameters
    ----------
    parts : mapping of str to Trace
        Parts of one trace are read together.
    asked : mapping
        By the name of the part, and any key.
    workers : int, optional
        See `evaluate`.

    Returns
    -------
    dict
        An evaluation, as `evaluate` returns it, for each that is asked.

    Raises
    ------
    InputError
        As `evaluate`.
    """
    threads = available_cores() if workers is None else max(1, workers)
    evaluators: dict[Named, Evaluator] = {}
    for name, what in asked.items():
        same = [item for other, item in evaluators.items() if other[0] == name[0] and item.plan is what.plan]
        evaluators[name] = _evaluator(parts[name[0]], what, same[0] if same else None)
    waiting, found = list(evaluators), dict[Named, Evaluation]()
    while waiting:
        names, size = waiting[:1], evaluators[waiting[0]].num_bytes
        for name in waiting[1:]:
            size += evaluators[name].num_bytes
            if size > PASS_BYTES:
                break
            names.append(name)
        waiting = waiting[len(names) :]
        now = {name: evaluators.pop(name) for name in names}
        _one_pass(parts, now, threads)
        for name, evaluator in now.items():
            refuse_long_passes(
                asked[name].options.get("pass_tokens", ()), evaluator.tokens, parts[name[0]].provenance.source
            )
            found[name] = evaluator.figures(threads)
    return found


def _one_pass(parts: Mapping[str, Trace], evaluators: Mapping[Named, Evaluator], threads: int) -> None:
    """Have each evaluator take all tokens of its part."""
    used = list(dict.fromkeys(part for part, _ in evaluators))
    of_part = {part: [item for (name, _), item in evaluators.items() if name == part] for part in used}
    cell = max(item.plan.num_layers * item.topology.num_gpus for item in evaluators.values())
    read = batches_together([parts[part] for part in used], _batch_tokens(cell))
    with ThreadPoolExecutor(threads) as pool:
        running: list[Future[None]] = []
        for number, batch in read:  # the next batch is read while the last one is replayed
            for task in running:
                task.result()
            own = of_part[used[number]]
            if len(own) == 1:
                own[0].add(batch, pool, threads)
            else:
                running = [pool.submit(item.add, batch) for item in own]
        for task in running:
            task.result()
    for (part, _), item in evaluators.items():
        if not item.tokens:
            source = parts[part].provenance.source
            remedy = "Check the recording and any selection of it."
            raise InputError.of("zero_tokens", source, "The trace holds no tokens.", remedy)


def _evaluator(trace: Trace, asked: Asked, alike: Evaluator | None) -> Evaluator:
    """Return what replays the tokens of a trace as is asked."""
    if isinstance(trace, LoadCounts):
        detail = "Counts hold no tokens to replay."
        remedy = "Give a trace with token identity (topk_ids), or use `expected_loads` for the loads of the GPUs."
        raise InputError.of("counts_only", trace.provenance.source, detail, remedy)
    plan, options = asked.plan, asked.options
    said, _ = engine_choices(options.get("engine"), trace)
    given = {name: value for name in CHOICES if (value := options.get(name)) is not None}
    objective, batch = replayed_objective(plan.provenance, said | given, options.get("decode_batch"))
    machine = recorded_topology(plan, "/plan") if asked.topology is None else asked.topology
    if machine is None:
        detail = "The plan does not record the topology that it was made for."
        remedy = "Give `topology`, Topology.parse('4x8') for instance."
        raise InputError.of("topology_unknown", "/topology", detail, remedy)
    _check_fit(plan, trace, machine)
    sizes = settled_pass_tokens(options.get("pass_tokens", ()))
    return Evaluator(plan, machine, objective, decode_batch=batch, pass_tokens=sizes, alike=alike)


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
