"""The way to a plan that is proposed: its steps within the budgets, and what may be between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from placement import Plan, score
from placement.moves.cost import moves_between
from placement.moves.rollout import Rollout, Step, rollout
from placement.plan.plan import replicas_on_gpu
from placement.survival.losses import lost_by_layer
from solvers.replanning.repair import room_beside
from solvers.replanning.setting import Setting
from traces import InputError

__all__ = ["way_to"]

Ints = npt.NDArray[np.integer[Any]]
Table = npt.NDArray[np.int32]


def way_to(setting: Setting, plan: Plan) -> Rollout:
    """Return the steps to a plan; where experts are lost or slots given up, the first one makes a plan again.

    Raises
    ------
    InputError
        If a budget is too small for a step that can't be cut.
    """
    target, problem = plan.physical_to_logical_map, setting.problem
    held = setting.carried.table.reshape(problem.num_layers, problem.num_gpus, -1)
    more = problem.slots_per_gpu - held.shape[2]
    first: tuple[Step, ...] = ()
    start = np.pad(held, ((0, 0), (0, 0), (0, max(more, 0))), constant_values=-1).reshape(problem.num_layers, -1)
    if len(setting.carried.lost) or more < 0:
        start = target if setting.start is None else setting.start
        moves = setting.moves(start)
        room = room_beside(setting.carried.table, start, problem.num_experts, problem.num_gpus)
        most = setting.request.staging_experts
        if most is not None and room > most:
            detail = f"The first step, after which every expert is there again, needs room for {room} experts."
            raise InputError.of("staging_too_small", "/staging_experts", detail, f"Give {room}, or leave it out.")
        seconds = moves.transfer_s(setting.links)
        first = (Step(table=start, moves=moves, staging=room, transfer_s=seconds, back_s=None),)
    way = _rollout(setting, start, target)
    return replace(way, steps=(*first, *way.steps))


def _rollout(setting: Setting, start: Ints, target: Ints) -> Rollout:
    size = setting.problem.expert_bytes
    try:
        return rollout(
            start,
            target,
            setting.problem.num_experts,
            setting.carried.topology.node_of_gpu,
            step_experts=setting.step_experts,
            layers=_order(setting, start, target),
            staging=setting.request.staging_experts,
            keeps=_keeps(setting, start),
            expert_bytes=size,
            links=setting.links,
        )
    except InputError as error:
        told = error.violations[0]
        if setting.request.step_bytes is None or told.code != "step_too_small":
            raise
        remedy = f"{told.remedy} An expert has {size:,} bytes."
        raise InputError.of(told.code, "/step_bytes", told.detail, remedy) from None


def _keeps(setting: Setting, start: Ints) -> Callable[[int, Table], bool] | None:
    """Return what says whether a layer is as safe as it has to be, or as it was where it runs."""
    problem = setting.problem
    rule = problem.sizes.survival
    if rule is None:
        return None
    experts, gpus = problem.num_experts, problem.num_gpus
    most = np.maximum(lost_by_layer(replicas_on_gpu(start, experts, gpus), rule), rule.lost)

    def keeps(layer: int, row: Table) -> bool:
        return int(lost_by_layer(replicas_on_gpu(row[None], experts, gpus), rule)[0]) <= int(most[layer])

    return keeps


def _order(setting: Setting, start: Ints, target: Ints) -> list[int]:
    """Return the layers by what each gains per move, the best first: a rollout that is stopped has done most."""
    problem = setting.problem
    before, after = score(problem, start), score(problem, target)
    weights = problem.objective
    gain = weights.imbalance_weight * (before.max_load - after.max_load) / problem.num_layers
    traffic = weights.traffic_weight * (before.traffic_by_layer - after.traffic_by_layer)
    gain[: len(traffic)] += traffic
    node = setting.carried.topology.node_of_gpu
    moved = moves_between(start, target, problem.num_experts, node).by_layer(problem.num_layers)
    order: list[int] = np.argsort(-gain / np.maximum(moved, 1), kind="stable").tolist()
    return order
