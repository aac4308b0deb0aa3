"""Naming the GPUs of a new plan so that as few experts as possible move: assignment problems, solved exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.moves.freedom import Freedom
from placement.moves.kernels import settle_slots
from placement.plan.plan import Plan, replicas_on_gpu
from placement.problem.problem import Problem
from traces import Violations
from traces.support.kinds import checked

__all__ = ["Relabelled", "moved_experts", "relabel", "relabelled_table"]

Ints = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Relabelled:
    """A plan under the names that move least.

    Attributes
    ----------
    plan : Plan
        The same arrangement; its score is that of the plan that was given.
    name : (L, G) int64
        ``name[l, g]``: the GPU of the plan that was given whose experts GPU g holds now.
    moved_before, moved_after : int
        Experts that a GPU has to be sent, under the old names and the new ones.
    exact_score : bool
        Whether the score is the same to rounding; see `Freedom`.
    """

    plan: Plan
    name: Ints
    moved_before: int
    moved_after: int
    exact_score: bool


@checked
def relabel(problem: Problem, running: Plan, target: Plan) -> Relabelled:
    """Name the GPUs of `target` so that as few experts as possible move from `running`.

    What is minimised, exactly over all names that leave the score as it is (`Freedom`): experts that a GPU has to be
    sent; then those that no GPU of its node held; then changes of name. Inside a GPU, what stays keeps its slot.
    Which of its replicas an expert's slot is has no name of its own, so that replicas are exchanged for nothing.

    Parameters
    ----------
    problem : Problem
        Of the target: topology, how tokens travel, constraints.
    running, target : Plan
        Of the same layers and experts, on the same GPUs; the slots per GPU may differ.

    Returns
    -------
    Relabelled

    Raises
    ------
    InputError
        If the target is not of the problem's sizes, or the running plan of others.

    Notes
    -----
    GPUs of a node to GPUs of a node is an assignment problem (Kuhn, 1955); with its value as the profit of a pair of
    nodes, nodes to nodes is another. With one name for all layers (tokens that go straight from layer to layer), the
    overlaps of all layers are added first; else each layer has its own.
    """
    wanted = problem.table_of(target)
    _check_running(problem, running)
    freedom = Freedom.of(problem)
    held = running.physical_to_logical_map
    table, name = relabelled_table(held, wanted, problem.num_experts, freedom)
    return Relabelled(
        plan=target.replacing(physical_to_logical_map=table),
        name=name,
        moved_before=moved_experts(held, wanted, problem.num_experts, problem.num_gpus),
        moved_after=moved_experts(held, table, problem.num_experts, problem.num_gpus),
        exact_score=freedom.exact or not freedom.any,
    )


def _check_running(problem: Problem, running: Plan) -> None:
    found = Violations()
    for name in ("num_experts", "num_gpus"):
        own, wanted = getattr(running, name), getattr(problem, name)
        if own != wanted:
            detail = f"The running plan's {name} is {own}, that of the problem {wanted}."
            found.add("plan_differs", f"/running/{name}", detail, "Give a plan of the same model and machine.")
    if running.layer_ids.tolist() != problem.profile.layer_ids.tolist():
        detail = "The running plan has other layers than the problem."
        found.add("plan_differs", "/running/layer_ids", detail, "Give a plan of the same model and machine.")
    found.raise_if_any()


def moved_experts(
    before: npt.NDArray[np.integer[Any]], after: npt.NDArray[np.integer[Any]], num_experts: int, num_gpus: int
) -> int:
    """Return how many experts a GPU holds in one map and not in another before it, all layers together."""
    held, wanted = (replicas_on_gpu(table, num_experts, num_gpus) > 0 for table in (before, after))
    return int((wanted & ~held).sum())


def relabelled_table(
    running: npt.NDArray[np.integer[Any]], target: npt.NDArray[np.integer[Any]], num_experts: int, freedom: Freedom
) -> tuple[Table, Ints]:
    """Return the map under the names that move least, (L, S), and these names, (L, G).

    Parameters
    ----------
    running : (L, G * B) integers
        What GPUs hold; experts may be missing, as where a GPU is lost.
    target : (L, G * C) integers
    num_experts : int
    freedom : Freedom
    """
    layers, gpus = len(target), len(freedom.node_of_gpu)
    before = replicas_on_gpu(running, num_experts, gpus) > 0
    after = replicas_on_gpu(target, num_experts, gpus) > 0
    name = _names(before, after, freedom) if freedom.any else np.tile(np.arange(gpus), (layers, 1))
    slots = np.take_along_axis(target.reshape(layers, gpus, -1), name[:, :, None], axis=1)
    table = settle_slots(running.reshape(layers, gpus, -1), slots)
    return table.reshape(target.shape), name


def _names(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], freedom: Freedom) -> Ints:
    """Return the best names, (L, G), of holdings (L, E, G)."""
    layers, _, gpus = before.shape
    starts = np.flatnonzero(np.r_[True, np.diff(freedom.node_of_gpu) != 0])
    on_node = np.logical_or.reduceat(before, starts, axis=2)
    held, wanted = (item.astype(np.float64).transpose(0, 2, 1) for item in (before, after))
    stays = held @ wanted.transpose(0, 2, 1)  # (L, G, G): experts of block h that GPU g holds
    near = on_node.astype(np.float64).transpose(0, 2, 1) @ wanted.transpose(0, 2, 1)  # (L, N, G): that node n holds
    if freedom.coupled:
        stays, near = (item.sum(axis=0, keepdims=True) for item in (stays, near))
    # One number that ranks by experts that stay, then by those that stay on their node, then by names that stay: the
    # sums are whole numbers far below 2**53, so that nothing is lost to rounding.
    step = gpus + 1.0
    own = stays * (step * (near.sum(axis=(1, 2)).max() + 1)) + np.eye(gpus)
    found = np.stack([_best(own[row], near[row] * step, freedom) for row in range(len(own))])
    return np.broadcast_to(found, (layers, gpus)).copy()


def _best(own: npt.NDArray[np.float64], near: npt.NDArray[np.float64], freedom: Freedom) -> Ints:
    """Return which block of the target each GPU gets, (G,), in one layer or in all of them together."""
    from scipy.optimize import linear_sum_assignment

    node, kind = freedom.node_of_gpu, freedom.kind_of_node
    members = [np.flatnonzero(node == number) for number in range(len(kind))]
    name = np.empty(len(node), np.int64)
    for first in np.unique(kind):
        nodes = np.flatnonzero(kind == first)
        groups = [
            np.flatnonzero(freedom.twins[members[first]] == one) for one in np.unique(freedom.twins[members[first]])
        ]
        value = np.empty((len(nodes), len(nodes)))
        chosen: dict[tuple[int, int], Ints] = {}
        for a, here in enumerate(nodes):
            for b, there in enumerate(nodes):
                block = own[np.ix_(members[here], members[there])]
                inner = np.empty(len(block), np.int64)
                value[a, b] = near[here, members[there]].sum()
                for group in groups:
                    row, column = linear_sum_assignment(block[np.ix_(group, group)], maximize=True)
                    inner[group[row]] = group[column]
                    value[a, b] += block[group[row], group[column]].sum()
                chosen[a, b] = members[there][inner]
        for a, b in zip(*linear_sum_assignment(value, maximize=True), strict=True):
            name[members[nodes[a]]] = chosen[int(a), int(b)]
    return name
