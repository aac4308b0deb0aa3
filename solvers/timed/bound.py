"""Milliseconds that no plan goes below: even loads on every rank, and only the messages that can't be avoided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from placement.replay.replay import homes_of
from placement.time.exchange import Way
from placement.time.experts import ExpertKernel, config_of
from placement.time.features import FEATURES, FIRST, SUSTAINED_TFLOP, TILES, units
from placement.time.model import TimeModel
from placement.time.overlap import of_halves
from placement.time.passes import LayerTimes
from solvers.bounds.instant_messages import least_copies
from solvers.judging.judge import Judge
from traces import Batch

__all__ = ["least_step_ms"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def least_step_ms(judge: Judge, slots_per_gpu: int) -> float:
    """Return a lower bound of `Judge.step_ms` over all plans with so many slots per GPU.

    The slowest rank takes at least what the mean rank takes, and every term of a kernel adds up over the ranks to at
    least what it is if no expert is split: experts with tokens, their pairs, their whole tiles. Of the tokens at home
    on a node, those leave it that need an expert which the node has no slot for: with as many slots as the node has, at
    most the most wanted experts stay. The busiest rank of a node sends at least its share of them.

    Parameters
    ----------
    judge : Judge
    slots_per_gpu : int
        C.
    """
    time, sample = judge.time, judge.sample
    pass_of = sample.cell // sample.groups
    parts = []
    for number in range(sample.passes):
        batch = sample.tokens.select(np.flatnonzero(pass_of == number))
        scale = sample.pass_tokens / len(batch)
        parts.append(_least(judge, batch, scale, slots_per_gpu))
    dense = time.dense_layers * time.rest_ms
    return float(np.mean([time.step_ms(part) - dense for part in parts])) + dense


def _least(judge: Judge, batch: Batch, scale: float, slots: int) -> LayerTimes:
    """Return the least times of one pass, layer by layer."""
    time, gpus = judge.time, judge.time.machine.num_gpus
    homes = homes_of(judge.travel, gpus, batch.rows, batch.seq_id, batch.source_rank)
    layers, experts = batch.topk_ids.shape[1], time.model.shape.num_experts
    least_experts, leaving, moving = np.empty(layers), np.zeros(layers), np.zeros(layers)
    inside = _columns(time)
    for layer in range(layers):
        ids = np.asarray(batch.topk_ids[:, layer], np.int64)
        counts = np.bincount(ids[ids >= 0], minlength=experts)
        least_experts[layer] = _experts(time, counts, int((ids >= 0).any(axis=1).sum()), scale, slots)
        if time.machine.num_nodes > 1:
            leaving[layer] = _moved(judge, ids, homes, time.machine.nodes, slots, scale, busiest=True)
        if inside is not None:
            moving[layer] = _moved(judge, ids, homes, inside, slots, scale, busiest=time.machine.num_nodes == 1)
    sent = {"inside": moving, "across": leaving}
    return LayerTimes(
        dispatch=_exchange(time, sent, "dispatch"),
        experts=least_experts,
        combine=_exchange(time, sent, "combine"),
        rest=time.rest_ms,
    )


def _moved(
    judge: Judge,
    ids: Counts,
    homes: npt.NDArray[np.int32],
    group_of: Counts,
    slots: int,
    scale: float,
    *,
    busiest: bool,
) -> float:
    """Return the copies that leave groups of ranks at least, by the busiest or the mean rank, in a scaled pass.

    The busiest rank moves no less than the mean one, and no less than that of any group: see
    `solvers.bounds.instant_messages` for all groups together.
    """
    experts, gpus = judge.time.model.shape.num_experts, len(group_of)
    sizes = np.bincount(group_of)
    room, spare = int(sizes.max()) * slots, gpus * slots - experts
    merged = judge.travel.dedup != "none"
    copies = least_copies(ids, group_of[homes], experts, len(sizes), room, spare, merged=merged)
    by_group = _leaving(judge, ids, homes, group_of, slots)
    least = max(copies, float((by_group * sizes).sum())) / gpus
    if busiest:
        least = max(least, float(by_group.max()))
    return least if scale == 1 else max(0.0, least * scale - 0.5)  # every rank rounds what it moves


def _experts(time: TimeModel, counts: Counts, tokens: int, scale: float, slots: int) -> float:
    """Return what the mean rank takes at least, by the cheapest kernel of each term."""
    gpus, kernel = time.machine.num_gpus, _cheapest(time)

    def least(part: float) -> float:
        return _kernel_ms(kernel, time, _terms(counts, tokens, scale, slots * gpus, part, gpus), slots)

    return float(of_halves(time.overlap, least))


def _terms(counts: Counts, tokens: int, scale: float, slots: int, part: float, gpus: int) -> Floats:
    """Return the least terms of the mean rank, for all of a pass or a half of it, as every slot halves its tokens."""
    used = counts[counts > 0]
    active, half = float(len(used)), np.zeros(0, np.int64)
    if scale == 1:
        pairs = float(counts.sum())
        whole = {size: float((-(-used // size)).sum() * size) for size in TILES}
        half = -(-np.maximum(used - 1 - (slots - len(counts)), 0) // 2)  # if each spare slot holds this one expert
    else:  # every slot rounds its own share of the tokens
        pairs = max(active, scale * counts.sum() - 0.5 * slots)
        whole = dict.fromkeys(TILES, pairs)
        tokens = int(scale * tokens - 0.5 * gpus)
    first = {size: min(pairs, size) for size in FIRST}
    if part < 1:
        odd = (slots + 1) // 2  # each of the others gives one half a token more than the other
        halves = np.maximum(part * pairs + np.array([-odd, odd]) / 2, 0)
        first = {size: float(np.minimum(halves, size).mean()) for size in FIRST}
        active, pairs = max(part * active, float((half > 0).sum())), part * pairs
        whole = {size: max(part * rows, float((-(-half // size)).sum() * size)) for size, rows in whole.items()}
    raw = {"launch": gpus, "slots": slots, "active": active, "weights": active, "pairs": pairs}
    raw |= {"pair_gb": pairs, "pair_count": pairs, "row_gb": part * tokens, "copy_gb": part * tokens}
    raw |= {f"tile{size}": rows for size, rows in whole.items()}
    raw |= {f"first{size}": least for size, least in first.items()}  # least where all are on one rank
    return np.array([max(0.0, raw.get(name, 0)) for name in FEATURES]) / gpus


def _cheapest(time: TimeModel) -> ExpertKernel:
    """Return the kernel; of several, one whose terms are each the least of all, as ranks may share as they like."""
    if len(time.kernels) == 1:
        return time.kernels[0]
    first = min(time.kernels, key=lambda kernel: kernel.floor_ms)
    per = {name: min(kernel.ms_per.get(name, 0.0) for kernel in time.kernels) for name in FEATURES}
    beside = {name: min(kernel.beside_ms_per.get(name, 0.0) for kernel in time.kernels) for name in FEATURES}
    tactics: dict[str, float] = {}
    for kernel in time.kernels:
        for name, factor in kernel.tactics.items():
            tactics[name] = min(tactics.get(name, 1.0), factor)
    return replace(first, ms_per=per, beside_ms_per=beside, tactics=tactics)


def _kernel_ms(kernel: ExpertKernel, time: TimeModel, mean: Floats, slots: int) -> float:
    shape = time.model.shape
    values = mean * units(shape, kernel.dtype)
    values[-1] = max(values[FEATURES.index("tile128")] - SUSTAINED_TFLOP, 0)
    factor = kernel.tactics.get(config_of(shape.expert_input, shape.intermediate_size, slots), 1.0)
    return factor * float(kernel.ms_of(values))


def _columns(time: TimeModel) -> Counts | None:
    """Return groups of ranks that a token leaves by a copy within a node only, (G,); None where there are none.

    In a single node, each rank is one. Merged copies arrive at the rank of the same index as their home, and are sent
    on to where experts are: a token needs no copy within a node if all its experts are on ranks of its home's index.
    """
    sizes = np.bincount(time.machine.nodes)
    if len(sizes) == 1:
        return np.arange(sizes[0])
    if time.dedup != "node" or sizes.min() < sizes.max():
        return None
    found: Counts = np.arange(time.machine.num_gpus) % sizes[0]
    return found


def _leaving(judge: Judge, ids: Counts, homes: npt.NDArray[np.int32], group_of: Counts, slots: int) -> Floats:
    """Return copies that a rank of each group of ranks sends out of it at least on average, before scaling.

    Parameters
    ----------
    judge : Judge
    ids : (T, K) int64
        Experts of each token; -1 is none.
    homes : (T,) int32
        Rank of each token.
    group_of : (G,) int64
        Node of each rank, or the rank itself.
    slots : int
    """
    found = []
    for group in range(int(group_of.max()) + 1):
        size = int((group_of == group).sum())
        mine = ids[group_of[homes] == group]
        wanted = np.bincount(mine[mine >= 0], minlength=1)
        kept = np.sort(wanted)[::-1][: size * slots].sum()  # pairs that its slots can serve
        width = (mine >= 0).sum(axis=1)
        if judge.travel.dedup == "none":
            sent = float(wanted.sum() - kept)
        else:  # a token stays only if all its experts are there; of those with fewest, most stay
            stay = int(np.searchsorted(np.cumsum(np.sort(width[width > 0])), kept, side="right"))
            sent = float((width > 0).sum() - stay)
        found.append(sent / size)
    return np.array(found)


def _exchange(time: TimeModel, sent: dict[str, Floats], way: Way) -> Floats:
    """Return the time of one direction for the copies that have to be sent.

    Beyond the measured numbers of nodes a curve is extrapolated, and need not rise with the volume: then only the
    inside of a node counts.
    """
    return of_halves(time.overlap, lambda part: _moved_ms(time, sent, way, part))


def _moved_ms(time: TimeModel, whole: dict[str, Floats], way: Way, part: float) -> Floats:
    sent = {tier: np.maximum(part * copies - (part < 1), 0) for tier, copies in whole.items()}  # halves of odd numbers
    shape = time.model.shape
    nodes = time.machine.num_nodes
    times = [time.inside.ms(way, 1, sent["inside"], shape)]
    known = [curve.nodes for curve in time.across.of(way, shape) if curve.nodes > 1]
    if nodes > 1 and known and (len(known) == 1 or min(known) <= nodes <= max(known)):
        times.append(time.across.ms(way, nodes, sent["across"], shape, forwarded=sent["inside"]))
    if time.machine.has_uplinks:  # some node sends as much as this, over an uplink that may be the fastest
        of_node = sent["across"] * int(np.bincount(time.machine.nodes).min())
        times.append(of_node * time.across.copy_gb(way, shape) * 1e3 / max(time.machine.uplink_gb_s))
    found: Floats = np.nanmax(np.stack(times), axis=0)
    return found
