"""What else the same machine could do: experts without expert parallelism, other collectives, weights that travel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from placement.advice.sample import PassSample
from placement.advice.timing import PassTimes, mean_step_ms
from placement.time.collectives import OF_DATA_SHEET, VECTOR_BYTES, everywhere_ms, inside_ms, slowest
from placement.time.model import TimeModel
from placement.time.overlap import of_halves

__all__ = [
    "FOR_EXPERTS",
    "Alternative",
    "all_gather",
    "data_parallel",
    "expert_counts",
    "pulled_weights",
    "tensor_parallel",
    "weights_gb",
]

Floats = npt.NDArray[np.float64]
FOR_EXPERTS: Final = 0.85  # of a GPU's memory that weights of experts may take: the KV cache needs some
MOST_TENSOR_PARALLEL: Final = 8


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Something else that could be done with the same machine.

    Attributes
    ----------
    name : str
    step_ms : float or None
        Of a forward pass of the same tokens; None where it can't be run, or is not known.
    gain_fraction : float or None
        Of the step of the plan that runs.
    memory_gb : float or None
        Weights of experts on a GPU.
    extra_memory_gb : float or None
        What that is beyond the plan that runs.
    detail : str
        What it is, what it rests on, why it can't be run.
    """

    name: str
    step_ms: float | None
    gain_fraction: float | None
    memory_gb: float | None
    extra_memory_gb: float | None
    detail: str


def weights_gb(time: TimeModel, slots: float, layers: int | None = None) -> float:
    """Return gigabytes of experts on a GPU with so many slots in every MoE layer of the model, or in so many layers."""
    shape = replace(time.model.shape, weight_dtype=time.weight_dtype)
    return (len(time.model.layout.moe_layers) if layers is None else layers) * slots * shape.expert_gb


def fits(time: TimeModel, gb: float) -> bool:
    """Whether so many gigabytes of experts leave room for the rest."""
    return gb <= FOR_EXPERTS * min(gpu.memory_gb for gpu in time.machine.gpus)


def expert_counts(sample: PassSample, num_experts: int) -> Floats:
    """Return the tokens of each expert in each pass, all ranks together, (P, L, E), scaled to the size of a pass."""
    ids = sample.tokens.topk_ids
    pass_of, found = sample.cell // sample.groups, []
    for number in range(sample.passes):
        part = ids[pass_of == number]
        layers = part.shape[1]
        flat = np.where(part >= 0, part.astype(np.int64) + num_experts * np.arange(layers)[:, None], -1).ravel()
        counts = np.bincount(flat[flat >= 0], minlength=layers * num_experts).reshape(layers, num_experts)
        found.append(counts * (sample.pass_tokens / len(part)))
    return np.stack(found)


def all_gather(time: TimeModel, times: PassTimes) -> tuple[float, str]:
    """Return the step with an all-gather and a reduce-scatter of all tokens in place of the all-to-all."""
    gpus = time.machine.num_gpus
    gb = time.pass_tokens * time.model.shape.hidden_size * VECTOR_BYTES / 1e9

    def collective(name: str) -> float:
        return float(of_halves(time.overlap, lambda part: everywhere_ms(time.machine, name, part * gb)[0]))

    gather, scatter = collective("nccl_all_gather"), collective("nccl_reduce_scatter")
    measured = everywhere_ms(time.machine, "nccl_all_gather", gb)[1]
    flat = np.ones_like(times.experts)
    step = mean_step_ms(time, replace(times, dispatch=gather * flat, combine=scatter * flat))
    source = "NCCL as measured" if measured else "70 % of the links' data sheet"
    return step, f"Every rank of {gpus} gets every token, whatever the plan; {source}."


def tensor_parallel(time: TimeModel, counts: Floats) -> tuple[float | None, float, str]:
    """Return the step with every expert split over the GPUs of a node, and data parallelism between them.

    Returns
    -------
    step_ms : float or None
        None where the weights don't fit.
    gb : float
        Of experts on a GPU.
    detail : str
    """
    size = min(MOST_TENSOR_PARALLEL, int(min(np.bincount(time.machine.nodes))))
    experts = counts.shape[2]
    gb = weights_gb(time, experts / size)
    what = f"Every expert split over {size} GPUs of a node, the others data parallel"
    if not fits(time, gb):
        return None, gb, f"{what}: {gb:.0f} GB of experts per GPU don't fit."
    tokens = size * time.tokens_per_gpu
    volume = tokens * time.model.shape.hidden_size * VECTOR_BYTES / 1e9

    def collective(name: str) -> float:
        return float(of_halves(time.overlap, lambda part: inside_ms(time.machine, name, part * volume, size)[0]))

    gather, scatter = collective("nccl_all_gather"), collective("nccl_reduce_scatter")
    measured = inside_ms(time.machine, "nccl_all_gather", volume, size)[1]
    share = counts * (size / time.machine.num_gpus)
    if size == 1:
        gather, scatter, time = 0.0, 0.0, time.without_overlap()
    step = _alone(time, share, tokens, gather, scatter, size)
    source = "NCCL as measured" if measured else "70 % of the links' data sheet"
    return step, gb, f"{what}: all-gather and reduce-scatter of {tokens:,} tokens; {source}."


def data_parallel(time: TimeModel, counts: Floats) -> tuple[float | None, float, str]:
    """Return the step with every expert on every GPU: nothing travels."""
    experts = counts.shape[2]
    gb = weights_gb(time, experts)
    if not fits(time, gb):
        return None, gb, f"Every expert on every GPU: {gb:.0f} GB don't fit."
    whole = time.without_overlap()  # nothing to overlap with
    step = _alone(whole, counts / time.machine.num_gpus, time.tokens_per_gpu, 0.0, 0.0, 1)
    return step, gb, "Every expert on every GPU: nothing travels, every GPU reads the experts that its tokens choose."


def pulled_weights(time: TimeModel, counts: Floats) -> tuple[float | None, float, str]:
    """Return the step if tokens stay and the weights that they need are pulled from the other GPUs of the node.

    References
    ----------
    .. [1] DWDP: distributed weight data parallelism, arXiv 2604.01621: the next layer's weights travel while this one
       computes, so the longer of both counts.
    """
    size = int(min(np.bincount(time.machine.nodes)))
    experts = counts.shape[2]
    gb = weights_gb(time, experts / size) + weights_gb(time, experts * (1 - 1 / size), 2)
    if size == 1:
        return None, gb, "There is no other GPU in the node to pull weights from."
    if not fits(time, gb):
        return None, gb, f"A copy of all experts in every node, and two layers' at a time: {gb:.0f} GB don't fit."
    time = time.without_overlap()  # weights travel beside the whole batch
    own = counts / time.machine.num_gpus
    experts_ms = _experts(time, own, time.tokens_per_gpu, 1)
    used = (1 - np.exp(-own)).sum(axis=-1) * (1 - 1 / size)  # experts that a rank's tokens choose, and it does not hold
    pull = used * weights_gb(time, 1, 1) * 1e3 / (OF_DATA_SHEET * slowest(time.machine).nvlink_gb_s)
    longer = np.maximum(experts_ms + time.rest_ms, pull) - time.rest_ms
    step = mean_step_ms(time, _alike(time, longer, 0.0, 0.0))
    bound = "the links" if float(pull.mean()) > float((experts_ms + time.rest_ms).mean()) else "computing"
    detail = f"Tokens stay, weights are pulled within a node of {size} a layer ahead; bound by {bound}."
    return step, gb, detail


def _alone(time: TimeModel, counts: Floats, rows: int, gather: float, scatter: float, size: int) -> float:
    """Return the step of ranks that are all alike."""
    return mean_step_ms(time, _alike(time, _experts(time, counts, rows, size), gather, scatter))


def _alike(time: TimeModel, experts: Floats, gather: float, scatter: float) -> PassTimes:
    """Return the times of passes, (P, L) each, with the same exchange in all."""
    flat = np.ones_like(experts)
    return PassTimes(
        dispatch=gather * flat,
        experts=experts,
        combine=scatter * flat,
        rest_ms=time.rest_ms,
        dispatch_even=gather * flat,
        combine_even=scatter * flat,
        remote=0 * flat,
    )


def _experts(time: TimeModel, counts: Floats, rows: int, size: int) -> Floats:
    """Return the time of the experts of a rank that has them all, or a part of each, (P, L)."""
    return of_halves(time.overlap, lambda part: _whole(time, part * counts, part * rows, size))


def _whole(time: TimeModel, counts: Floats, rows: float, size: int) -> Floats:
    kernel = max(time.kernels, key=lambda kernel: float(kernel.rank_ms(np.array([64]), 64, time.model.shape)))
    rounded = np.rint(counts).astype(np.int64)
    # A rank has whole tokens only: of rare experts, as many have one as the counts add up to.
    left = np.rint(counts.sum(-1)).astype(np.int64) - rounded.sum(-1)
    order = np.argsort(rounded - counts, axis=-1)
    rank = np.argsort(order, axis=-1)
    rounded += rank < np.maximum(left, 0)[..., None]
    return kernel.rank_ms(rounded, np.full(counts.shape[:-1], rows), time.model.shape, size)
