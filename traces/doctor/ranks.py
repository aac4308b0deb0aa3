"""Recordings of some ranks: the same contiguous shares of the experts in all layers, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence
from traces.held_ranks import ENOUGH, held_ranks
from traces.model.layout import ModelLayout
from traces.provenance import Provenance
from traces.support.shown import runs

__all__ = ["missing_ranks", "rank_findings"]

SINGLE_CELLS = 8  # without tokens that are no chance, for one rank where only weights are known; by trial


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
    """Tell ranks whose slots or files are not there; `known`: whether the loads of experts tell it already.

    Several ranks in equal steps from 0 on are all: those between them compute the same tokens and may record nothing.
    Rank 0 alone may be all or one of many, which no file says.
    """
    there, held = provenance.ranks, provenance.held
    if known:
        return
    if held is not None:
        which = f"rank {held.there[0]}" if len(held.there) == 1 else f"{len(held.there)} ranks"
        yield Finding(
            code="single_rank",
            severity="warning",
            detail=f"Only physical slots {held.experts} of {held.ranks * held.size} have tokens, in all layers: those "
            f"of {which} of {held.ranks}, most likely. Experts that only other ranks hold are unused in a plan's eyes: "
            "they are crowded onto few GPUs, which the real traffic overloads.",
            remedy="Give the files of all ranks together, or sum their counts; or record what is summed over ranks.",
            words=f"tokens in the slots of {which} only ({held.experts} of {held.ranks * held.size})",
        )
        return
    if there == (0,):
        yield Finding(
            code="single_rank",
            severity="warning",
            detail="Only rank 0's file is there, and every rank writes one. If there were more, what the other ranks' "
            "tokens, or experts, have to do is not counted: a plan balances rank 0's share of the traffic, and the "
            "whole of it is less even than the figures say.",
            remedy="Give the files of all ranks together (their folder). If there was one rank only, or all ranks "
            "compute the same tokens (tensor parallelism without data-parallel attention), this is all.",
            words="rank 0's file only",
        )
        return
    if not there or there == tuple(range(0, there[-1] + 1, there[1] if len(there) > 1 else 1)):
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
