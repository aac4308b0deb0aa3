"""Recordings of one rank: the same contiguous share of the experts in all layers, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence
from traces.model.layout import ModelLayout
from traces.support.shown import runs

__all__ = ["Block", "rank_findings", "single_rank"]

ENOUGH = 8  # assignments per expert and layer, were they even: then a share of the experts is not unused by chance


class Block(NamedTuple):
    """The experts `first` to `last` are the whole of a recording, as rank `rank` of `ranks` has them."""

    first: int
    last: int
    rank: int
    ranks: int


def single_rank(load: npt.NDArray[np.float64]) -> Block | None:
    """Return the one rank whose experts have all the load, None where several have.

    Parameters
    ----------
    load : (L, E) float64
        Layers without any load say nothing.

    Returns
    -------
    Block or None
        Of the most ranks that fit: the smallest aligned share of the experts that has everything.
    """
    experts = load.shape[1]
    used = np.flatnonzero(load.any(axis=0))
    layers = int(load.any(axis=1).sum())
    if not len(used) or experts < 2:
        return None
    first, last = int(used[0]), int(used[-1])
    fits = [
        ranks
        for ranks in range(2, experts + 1)
        if experts % ranks == 0 and first // (experts // ranks) == last // (experts // ranks)
    ]
    if not fits or (layers == 1 and fits[-1] == experts):
        return None
    size = experts // fits[-1]
    return Block(first=first // size * size, last=first // size * size + size - 1, rank=first // size, ranks=fits[-1])


def rank_findings(evidence: Evidence, model: ModelLayout | None) -> Iterator[Finding]:
    """Tell recordings of one rank, and of one pipeline stage where the model is known."""
    layers, experts = int(evidence.recorded.sum()), evidence.load.shape[1]
    enough = not evidence.is_counted or evidence.load.sum() >= ENOUGH * layers * experts
    block = single_rank(evidence.load) if enough else None
    if block is not None and not _degenerate(evidence):
        yield Finding(
            code="single_rank",
            severity="warning",
            detail=f"Only experts {block.first} to {block.last} of {experts} have tokens, in all layers: rank "
            f"{block.rank} of {block.ranks}, most likely. The others are unused in a plan's eyes: they are crowded "
            "onto "
            "few GPUs, which the real traffic overloads.",
            remedy="Give the files of all ranks together, or sum their counts; or record on rank 0 what is summed over "
            "ranks.",
        )
    if model is None:
        return
    layers_there, whole = evidence.layer_ids.tolist(), list(model.moe_layers)
    at = [whole.index(one) for one in layers_there if one in whole]
    part = len(at) < len(whole) and at and at == list(range(at[0], at[0] + len(at)))
    if part and len(at) <= len(whole) // 2:
        yield Finding(
            code="single_rank",
            severity="warning",
            detail=f"Only layers {runs(layers_there)} are there, {len(at)} of the model's {len(whole)} MoE "
            "layers: one "
            "pipeline stage, most likely. Engines want every layer in a plan, and traffic between the stages is not "
            "counted.",
            remedy="Give the files of all stages together.",
        )


def _degenerate(evidence: Evidence) -> bool:
    """Whether a single expert has everything: that is another fault."""
    return int((evidence.load.sum(axis=0) > 0).sum()) <= (evidence.top_k or 1)
