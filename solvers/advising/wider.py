"""Plans with further slots: replicas one by one, or the hottest experts on every GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan
from solvers.methods.load_balance.solver import rebalance

__all__ = ["around_hottest", "with_hottest", "with_replicas"]


def with_hottest(plan: Plan, load: npt.NDArray[np.generic], count: int) -> Plan:
    """Return the plan with the experts of the highest load of each layer in further slots of every GPU.

    A GPU that has one of them already leaves the further slot empty.
    """
    gpus, layers = plan.num_gpus, plan.num_layers
    table = plan.physical_to_logical_map.reshape(layers, gpus, plan.slots_per_gpu)
    hot = _hottest(load, count)
    further = np.repeat(hot[:, None, :], gpus, axis=1)
    there = (table[:, :, :, None] == further[:, :, None, :]).any(axis=2)
    whole = np.concatenate([table, np.where(there, -1, further)], axis=2)
    return _with_map(plan, whole)


def around_hottest(plan: Plan, load: npt.NDArray[np.generic], count: int) -> Plan:
    """Return a plan with the hottest experts of each layer on every GPU, and the others balanced by load beside them.

    The others have the slots of the plan, so that some of them have replicas too: what a GPU held of the hottest ones
    is not missed on it.

    References
    ----------
    .. [1] The policy ``biased`` of ROCm/ATOM, pull request 1210.
    """
    gpus, layers, slots = plan.num_gpus, plan.num_layers, plan.slots_per_gpu
    values, hot = np.asarray(load, float), _hottest(load, count)
    whole = np.empty((layers, gpus, slots + count), np.int64)
    for layer in range(layers):
        others = np.setdiff1d(np.arange(plan.num_experts), hot[layer])
        table = rebalance(values[layer : layer + 1, others], num_slots=slots * gpus, num_gpus=gpus)[0]
        whole[layer, :, :slots] = np.where(table >= 0, others[table], -1).reshape(gpus, slots)
        whole[layer, :, slots:] = hot[layer]
    return _with_map(plan, whole)


def with_replicas(plan: Plan, load: npt.NDArray[np.generic], extra: int) -> Plan:
    """Return the plan with further slots on every GPU, filled one by one.

    The expert whose replicas have the highest load each gets another one, on the GPU with the least load that has a
    slot to spare and does not hold it.
    """
    gpus, layers, experts = plan.num_gpus, plan.num_layers, plan.num_experts
    table = plan.physical_to_logical_map.reshape(layers, gpus, plan.slots_per_gpu)
    whole = np.concatenate([table, np.full((layers, gpus, extra), -1, table.dtype)], axis=2)
    for layer, row in enumerate(np.asarray(load, float)):
        held = np.zeros((gpus, experts), bool)
        held[np.nonzero(table[layer] >= 0)[0], table[layer][table[layer] >= 0]] = True
        free = np.full(gpus, extra)
        while free.any():
            each = row / np.maximum(held.sum(axis=0), 1)
            busy = held @ each
            open_to = (free > 0)[:, None] & ~held
            some = np.flatnonzero(open_to.any(axis=0))
            if not len(some):
                break
            expert = some[np.argmax(each[some])]
            gpu = np.flatnonzero(open_to[:, expert])[np.argmin(busy[open_to[:, expert]])]
            whole[layer, gpu, plan.slots_per_gpu + extra - free[gpu]] = expert
            held[gpu, expert] = True
            free[gpu] -= 1
    return _with_map(plan, whole)


def _with_map(plan: Plan, table: npt.NDArray[np.integer[Any]]) -> Plan:
    return Plan.of(
        table.reshape(len(table), -1),
        layer_ids=plan.layer_ids,
        num_experts=plan.num_experts,
        gpus_per_node=plan.gpus_per_node,
    )


def _hottest(load: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.int64]:
    return np.argsort(-np.asarray(load, float), axis=1, kind="stable")[:, :count]
