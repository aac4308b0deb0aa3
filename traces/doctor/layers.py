"""Layers that differ from others: not recorded, with fewer experts, or with one expert that takes nearly everything."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from traces.doctor.diagnosis import Finding
from traces.doctor.evidence import Evidence, share
from traces.doctor.observing import Observation
from traces.model.layout import ModelLayout
from traces.support.shown import runs

__all__ = ["degenerate", "degenerate_layers", "layer_specific", "unrecorded"]

NEARLY_ALL = 0.95  # of a layer's assignments, by as many experts as a token has
ENOUGH = 20  # assignments per expert of a layer, were they even: then a row of unused experts is no chance
LEAST_TOKENS = 100
FEW = 3  # experts: of 64 with three that are dead by chance, these are the last ones once in 41,664 layers
LIVELY = 0.9  # of a layer's experts are used, up to the last one that is


def unrecorded(evidence: Evidence, seen: Observation | None, model: ModelLayout | None) -> Iterator[Finding]:
    """Tell layers without tokens, and layers of the model that are not there."""
    idle = evidence.layer_ids[~evidence.recorded]
    zeros = seen is not None and bool(seen.seen.blank[~evidence.recorded].any())
    if len(idle) and len(idle) < len(evidence.layer_ids):
        what = "hold nothing but zeros" if zeros else "have no tokens"
        yield _unrecorded(
            "warning",
            f"Layer(s) {runs(idle.tolist())} {what}: dense, hash-routed (DeepSeek-V4), or not recorded. A plan "
            "knows "
            "nothing of their experts.",
            "Leave dense ones out with `layer_ids`, or name the model (`model`); record the others again. Layers "
            "that a "
            "plan lacks are filled when it is exported.",
        )
    there = set(evidence.layer_ids.tolist())
    if model is not None:
        if lacking := sorted(set(model.moe_layers) - there):
            yield _unrecorded(
                "warning",
                f"{len(lacking)} of the model's {len(model.moe_layers)} MoE layers are not there: {runs(lacking)}.",
                "Record them; or have them filled when the plan is exported.",
            )
    elif gaps := sorted(set(range(max(there))) - there):
        yield _unrecorded(
            "note",
            f"The trace lacks layer(s) {runs(gaps)}: dense, or not recorded, which only the model tells.",
            "Name the model (`model`) to be sure. Engines want every MoE layer in a plan.",
        )


def _unrecorded(severity: str, detail: str, remedy: str) -> Finding:
    return Finding(code="unrecorded_layers", severity=severity, detail=detail, remedy=remedy)  # type: ignore[arg-type]


def layer_specific(evidence: Evidence) -> Iterator[Finding]:
    """Tell layers whose last experts nobody uses, though other layers do."""
    load, experts = evidence.load, evidence.load.shape[1]
    used = load > 0
    sizes = np.where(used.any(axis=1), experts - used[:, ::-1].argmax(axis=1), 0)
    enough = (load.sum(axis=1) >= ENOUGH * experts) & ~degenerate(evidence)
    if not enough.any():
        return
    most = int(sizes[enough].max())
    lively = used.sum(axis=1) >= LIVELY * sizes
    # Where all others are used, it is no chance that the few that are not are the last ones.
    last = (used.sum(axis=1) == sizes) & (most - sizes >= FEW)
    fewer = np.flatnonzero(enough & (last | (lively & (most - sizes >= max(4, most / 8)))))
    if len(fewer):
        counts = sorted({int(sizes[row]) for row in fewer})
        yield Finding(
            code="layer_specific_experts",
            severity="warning",
            detail=f"Layer(s) {runs(evidence.layer_ids[fewer].tolist())} use {runs(counts)} experts, others "
            f"{most}: "
            "their routers have fewer, most likely. A plan gives slots to experts that don't exist there, and the "
            "balance of these layers is that of half-empty GPUs.",
            remedy="Plan the layers of each size by themselves: choose them with `layers`, and say how many experts "
            "they have with `num_experts`. Engines that want one size for all layers can't place this model.",
            words=f"experts that exist in some layers only (layers {runs(evidence.layer_ids[fewer].tolist())} use "
            f"{runs(counts)} of {most})",
        )


def degenerate(evidence: Evidence) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which layers send nearly all tokens to the same experts, (L,) bool."""
    load = evidence.load
    _, shares = evidence.most_common()
    tokens = load.sum(axis=1) if evidence.tokens is None else evidence.tokens
    marked: np.ndarray[tuple[int], np.dtype[np.bool_]] = (shares >= NEARLY_ALL) & (tokens >= LEAST_TOKENS)
    if load.shape[1] < 2 * evidence.each:
        marked[:] = False  # with so few experts, one of them may well be in every list
    return marked


def degenerate_layers(evidence: Evidence) -> Iterator[Finding]:
    """Tell layers where one expert takes nearly all tokens or, of several per token, the same ones do."""
    expert, shares = evidence.most_common()
    marked = np.flatnonzero(degenerate(evidence))
    yield from _in_every_list(evidence, ~degenerate(evidence))
    if not len(marked):
        return
    worst = marked[int(shares[marked].argmax())]
    shown = share(shares[worst] * 1e6, 1e6)
    layers, worst_layer = runs(evidence.layer_ids[marked].tolist()), int(evidence.layer_ids[worst])
    each = evidence.each
    if each == 1:
        what = f"one expert takes nearly all tokens: expert {int(expert[worst])} of layer {worst_layer} has {shown}"
    else:
        same = np.argsort(evidence.load[worst])[-each:]
        what = f"nearly all tokens choose the same {each} experts: {runs(sorted(same.tolist()))} of layer {worst_layer}"
        what += f" have {shown}"
    yield Finding(
        code="degenerate_layer",
        severity="warning",
        detail=f"In layer(s) {layers} {what} of the load. No placement balances such a layer over more than {each} "
        "GPU(s): only replicas do, and the layer hides what a plan does to the others.",
        remedy="If the model is like that, give it redundant experts, and read the figures layer by layer; else the "
        "recording is not of routing: check it.",
    )


def _in_every_list(evidence: Evidence, others: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Finding]:
    """Tell layers where one of the several experts of nearly every token is the same."""
    tokens, each = evidence.tokens, evidence.each
    if tokens is None or each == 1 or evidence.load.shape[1] < 2 * each:
        return
    most = evidence.load.max(axis=1)
    marked = np.flatnonzero(others & (most >= NEARLY_ALL * tokens) & (tokens >= LEAST_TOKENS))
    same = (
        len(marked) == int(evidence.recorded.sum()) > 1 and len(set(evidence.load[marked].argmax(axis=1).tolist())) == 1
    )
    if not len(marked) or same:  # the same one in all layers is no routed expert: ids.py tells it
        return
    worst = marked[int((most[marked] / tokens[marked]).argmax())]
    yield Finding(
        code="degenerate_layer",
        severity="note",
        detail=f"In layer(s) {runs(evidence.layer_ids[marked].tolist())} nearly every token chooses the same expert "
        f"beside others: expert {int(evidence.load[worst].argmax())} of layer {int(evidence.layer_ids[worst])} is in "
        f"{share(most[worst], tokens[worst])} of the lists. On more than {each} GPUs, its GPU has the most to do.",
        remedy="Give it replicas (redundant experts), and read the figures layer by layer.",
    )
