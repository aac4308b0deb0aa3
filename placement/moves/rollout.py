"""From one plan to another in steps: each a valid plan within memory, no expert without a live copy on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.moves.cost import Moves, moves_between
from placement.moves.cycles import OUTSIDE, Cycles, cycles
from placement.moves.links import Links
from traces import InputError

__all__ = ["Rollout", "Step", "rollout"]

Ints = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]
Keeps = Callable[[int, Table], bool]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step: experts are sent, and every GPU takes the next plan when all have theirs.

    Attributes
    ----------
    table : (L, S) int32
        The plan after it.
    moves : Moves
        From the plan before it.
    staging : int
        Experts that a GPU receives before it may drop any, at most: room that it needs beside its slots, for one layer.
    transfer_s : float or None
        Layer after layer, links shared fairly.
    back_s : float or None
        The same for the way back to the plan before it.
    """

    table: Table
    moves: Moves
    staging: int
    transfer_s: float | None
    back_s: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout:
    """Steps from one plan to another.

    Attributes
    ----------
    start : (L, S) int32
    steps : tuple of Step
        The last one ends at the target. Step k is undone by the plan after step k - 1.
    """

    start: Table
    steps: tuple[Step, ...]

    @property
    def moved(self) -> int:
        """Experts that are sent, all steps together."""
        return sum(step.moves.experts for step in self.steps)

    @property
    def staging(self) -> int:
        """Experts of one layer that a GPU needs room for beside its slots, at most."""
        return max((step.staging for step in self.steps), default=0)

    def tables(self) -> Iterator[Table]:
        """Yield the plans in order, the start first."""
        yield self.start
        yield from (step.table for step in self.steps)


def rollout(
    start: npt.NDArray[np.integer[Any]],
    target: npt.NDArray[np.integer[Any]],
    num_experts: int,
    node_of_gpu: Ints,
    *,
    step_experts: int | None = None,
    staging: int | None = None,
    layers: Iterable[int] | None = None,
    keeps: Keeps | None = None,
    expert_bytes: int | None = None,
    links: Links | None = None,
) -> Rollout:
    """Cut the way from one plan to another into steps.

    Engines exchange a layer at once: every GPU receives what it lacks into a buffer of one layer while the old experts
    stay, and copies it into the slots. A layer that fits the budget is exchanged so. Others are cut into cycles of GPUs
    (`cycles`): one cycle needs room for a single expert per GPU, and any number of them leaves a valid plan.

    Parameters
    ----------
    start, target : (L, S) integers
        Both hold every expert.
    num_experts : int
    node_of_gpu : (G,) int64
    step_experts : int, optional
        Experts that a step may send, all GPUs and layers together; None for no limit, so that there is one step.
    staging : int, optional
        Experts that a GPU has room for beside its slots, at least 1; the slots of a layer by default, which is the
        buffer of SGLang and vLLM.
    layers : iterable of int, optional
        Rows in the order in which they change; as they are by default.
    keeps : callable, optional
        ``keeps(layer, row)``: whether a layer may be so between two steps, beside that every expert is there. Cycles
        are exchanged together until it may.
    expert_bytes : int, optional
    links : Links, optional
        For times.

    Raises
    ------
    InputError
        If a budget is too small for an exchange that can't be cut further: it names the least that goes.
    """
    gpus = len(node_of_gpu)
    state, end = np.array(start, np.int32), np.array(target, np.int32)
    room = state.shape[1] // gpus if staging is None else staging
    if room < 1:
        detail = "Full GPUs exchange experts only with room for one of them beside their slots."
        raise InputError.of("staging_range", "/staging", detail, "Give at least 1.")
    begin, steps, sent, pending = state.copy(), [], 0, state.copy()
    used = 0

    def close() -> None:
        nonlocal state, sent, used
        moves = moves_between(state, pending, num_experts, node_of_gpu, expert_bytes)
        back = moves_between(pending, state, num_experts, node_of_gpu, expert_bytes)
        steps.append(
            Step(
                table=pending.copy(),
                moves=moves,
                staging=used,
                transfer_s=moves.transfer_s(links),
                back_s=back.transfer_s(links),
            )
        )
        state, sent, used = pending.copy(), 0, 0

    for layer in range(len(state)) if layers is None else layers:
        may = None if keeps is None else partial(keeps, layer)
        for row in _exchanges(state[layer], end[layer], num_experts, gpus, room, step_experts, may):
            into = _received(pending[layer], row, num_experts, gpus)
            if step_experts is not None and sent and sent + into.sum() > step_experts:
                close()
            # Two exchanges of a layer in one step are one for the engine, which goes from plan to plan.
            whole = _received(state[layer], row, num_experts, gpus)
            if whole.max(initial=0) > room:
                close()
                whole = _received(state[layer], row, num_experts, gpus)
            pending[layer] = row
            sent, used = sent + int(into.sum()), max(used, int(whole.max(initial=0)))
    if not np.array_equal(pending, state):
        close()
    return Rollout(start=begin, steps=tuple(steps))


def _received(before: Table, after: Table, num_experts: int, gpus: int) -> Ints:
    """Return how many experts each GPU receives from others in a layer, (G,)."""
    held, wanted = (np.zeros((gpus, num_experts + 1), bool) for _ in range(2))
    for found, row in ((held, before), (wanted, after)):
        np.put_along_axis(found, row.reshape(gpus, -1).astype(np.int64), values=True, axis=1)  # -1 is the last column
    counts: Ints = (wanted & ~held)[:, :num_experts].sum(axis=1)
    return counts


def _exchanges(
    start: Table,
    target: Table,
    num_experts: int,
    gpus: int,
    room: int,
    most: int | None,
    may: Callable[[Table], bool] | None,
) -> Iterator[Table]:
    """Yield the rows (S,) that a layer goes through, the target last; nothing where it does not change."""
    if np.array_equal(start, target):
        return
    into = _received(start, target, num_experts, gpus)
    if into.max(initial=0) <= room and (most is None or into.sum() <= most):
        yield target
        return
    known: Cycles = cycles(start, target, gpus)
    row, reached, last = start, start, len(known) - 1
    for number, cycle in enumerate(known):
        reached = target if number == last else _applied(reached, target, cycle, gpus)
        if number < last and may is not None and not may(reached):
            continue  # together with the next one
        into = _received(row, reached, num_experts, gpus)
        if most is not None and (count := int(into.sum())) > most:
            detail = f"An exchange of {count} experts can't be cut further; a step may send {most}."
            raise InputError.of("step_too_small", "/step_experts", detail, f"Allow at least {count} experts per step.")
        if (needed := int(into.max(initial=0))) > room:
            detail = f"An exchange that can't be cut further sends {needed} experts to a GPU that has room for {room}."
            raise InputError.of("staging_too_small", "/staging_experts", detail, f"Give room for {needed}.")
        yield reached
        row = reached


def _applied(row: Table, target: Table, cycle: list[tuple[int, int, int]], gpus: int) -> Table:
    """Return a row after one cycle; what arrives goes to its slot of the target where that one gets free."""
    found = row.copy()
    per_gpu = len(row) // gpus
    gone = {a: expert for expert, a, _ in cycle if a != OUTSIDE}
    for expert, _, b in cycle:
        if b == OUTSIDE:
            continue
        slots, wanted = (item[b * per_gpu : (b + 1) * per_gpu] for item in (found, target))
        free = np.flatnonzero(row[b * per_gpu : (b + 1) * per_gpu] == gone[b])
        own = free[wanted[free] == expert]
        misplaced = free[wanted[free] != gone[b]]
        slots[(own if len(own) else misplaced if len(misplaced) else free)[0]] = expert
    return found
