"""Recordings of some ranks: the same contiguous shares of the experts in all layers, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence
from traces.model.layout import ModelLayout
from traces.provenance import Provenance
from traces.support.shown import runs

__all__ = ["Ranks", "held_ranks", "missing_ranks", "rank_findings"]

ENOUGH = 8  # assignments per expert and layer, were they even: then a share of the experts is not unused by chance
MOSTLY = 0.75  # of a rank's experts have tokens; a few may be left out by the router
# Cells without tokens that are no chance, for one rank where only weights are known, and for several ranks; by trial.
SINGLE_CELLS, SEVERAL_CELLS = 8, 32
SHOWN = 4


class Ranks(NamedTuple):
    """The ranks `there`, out of `ranks` that hold `size` experts each, are the whole of a recording.

    `dealt`: experts are dealt out in turn (vLLM's ``round_robin``), rather than an aligned share to each rank.
    """

    there: tuple[int, ...]
    ranks: int
    size: int
    dealt: bool = False

    @property
    def experts(self) -> str:
        """Their experts, as words."""
        if self.dealt:
            return f"{', '.join(map(str, self.there[:SHOWN]))} and every {self.ranks}th from there"
        first = [f"{self.size * rank}-{self.size * (rank + 1) - 1}" for rank in self.there[:SHOWN]]
        return ", ".join([*first, *(["..."] if len(self.there) > SHOWN else [])])


def held_ranks(load: npt.NDArray[np.float64]) -> Ranks | None:
    """Return the ranks whose experts have all the load; None where all have some.

    The experts of a rank are an aligned share of all. A router leaves experts out here and there, but not a whole share
    of them in all layers.

    Parameters
    ----------
    load : (L, E) float64
        Layers without any load say nothing.

    Returns
    -------
    Ranks or None
        One rank where the smallest aligned share that has everything is one; else the largest shares, several of
        which have tokens and the others none.
    """
    experts = load.shape[1]
    used = load.any(axis=0)
    layers, unused = int(load.any(axis=1).sum()), int(experts - used.sum())
    if not 0 < unused < experts:
        return None
    at = np.flatnonzero(used)
    first, last = int(at[0]), int(at[-1])
    sizes = [size for size in range(1, experts) if experts % size == 0]
    for size in sizes:
        if first // size == last // size:
            alone = Ranks(there=(first // size,), ranks=experts // size, size=size)
            return None if layers == 1 and size == 1 else alone
    for ranks in reversed(sizes):  # the most ranks first: the smallest share that has everything
        if ranks > 1 and len(of := np.unique(at % ranks)) == 1 and len(at) > MOSTLY * experts / ranks:
            return Ranks(there=tuple(of.tolist()), ranks=ranks, size=experts // ranks, dealt=True)
    if layers * unused < SEVERAL_CELLS:
        return None
    for size in (size for size in reversed(sizes) if size > 1):
        part = used.reshape(-1, size).mean(axis=1)
        if ((part > MOSTLY) | (part == 0)).all():
            return Ranks(there=tuple(np.flatnonzero(part).tolist()), ranks=experts // size, size=size)
    return None


def rank_findings(evidence: Evidence, model: ModelLayout | None) -> Iterator[Finding]:
    """Tell recordings of some ranks only, and of one pipeline stage where the model is known."""
    layers, experts = int(evidence.recorded.sum()), evidence.load.shape[1]
    held = held_ranks(evidence.load)
    if held is not None and _is_no_chance(evidence, layers) and not _degenerate(evidence):
        one = len(held.there) == 1
        which = f"rank {held.there[0]} of {held.ranks}" if one else f"{len(held.there)} of {held.ranks} ranks"
        yield Finding(
            code="single_rank",
            severity="warning",
            detail=f"Only experts {held.experts} of {experts} have tokens, in all layers: {which}, most likely. The "
            "others are unused in a plan's eyes: they are crowded onto few GPUs, which the real traffic overloads.",
            remedy="Give the files of all ranks together, or sum their counts; or record on rank 0 what is summed over "
            "ranks.",
            words=f"experts of {'one rank' if one else which} only ({held.experts} of {experts})",
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


def missing_ranks(provenance: Provenance, known: bool) -> Iterator[Finding]:
    """Tell ranks whose files are not there; `known`: whether the loads tell it already.

    Ranks in equal steps from 0 on are all: those between them compute the same tokens and may record nothing.
    """
    there = provenance.ranks
    if known or not there or there == tuple(range(0, there[-1] + 1, there[1] if len(there) > 1 else 1)):
        return
    lacking = sorted(set(range(there[-1])) - set(there))
    yield Finding(
        code="single_rank",
        severity="warning",
        detail=f"The files are those of rank(s) {runs(there)}, and those of {runs(lacking)} are not there, nor perhaps "
        "later ones: what the other ranks' tokens, or experts, have to do is not counted.",
        remedy="Give the files of all ranks together.",
        words=f"files of some ranks only ({runs(there)})",
    )


def _is_no_chance(evidence: Evidence, layers: int) -> bool:
    """Whether so many tokens were counted that a share of the experts is not unused by chance."""
    experts = evidence.load.shape[1]
    if evidence.is_counted:
        return bool(evidence.load.sum() >= ENOUGH * layers * experts)
    return layers * int((~evidence.load.any(axis=0)).sum()) >= SINGLE_CELLS


def _degenerate(evidence: Evidence) -> bool:
    """Whether every token has all experts that are used: that is another fault."""
    return int((evidence.load.sum(axis=0) > 0).sum()) <= evidence.each
