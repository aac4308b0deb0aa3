"""Tokens of a trace as forward passes of a stated size, in groups of whole sequences that a bootstrap can draw."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from traces import Batch, InputError, Trace
from traces.support.words import Phase
from traces.thinning import BLOCK, WholeSequences
from traces.trace import BATCH_TOKENS

__all__ = ["BLOCK", "GROUPS", "MAX_PASSES", "PassSample", "sample_passes"]

Ints = npt.NDArray[np.int64]
GROUPS = 24  # draws of a bootstrap are of so many groups of sequences, at most
MAX_PASSES = 32
MAX_CHOICES = 24_000_000  # experts chosen by the tokens of a sample: tokens x layers x top-k
COLUMNS = frozenset({"seq_id", "source_rank"})  # what the home of a token depends on


@dataclass(frozen=True, kw_only=True, eq=False)
class PassSample:
    """Tokens, and which pass and group each is of.

    Attributes
    ----------
    tokens : Batch
        In the order of the passes.
    cell : (T,) int64
        ``pass * groups + group`` of each token.
    passes, groups : int
    pass_tokens : int
        Tokens that a pass stands for.
    scale : float
        What counts are multiplied by; above 1 where all tokens together make less than a pass.
    sequences : int
        Sequences, or blocks of tokens, that were sampled.
    by_sequence : bool
        Whether they are sequences.
    thinned : int
        One of so many sequences was taken.
    """

    tokens: Batch
    cell: Ints
    passes: int
    groups: int
    pass_tokens: int
    scale: float
    sequences: int
    by_sequence: bool
    thinned: int

    def of_size(self, pass_tokens: int) -> PassSample:
        """Return passes that stand for another number of tokens each; the tokens are the same."""
        factor = pass_tokens / self.pass_tokens
        return replace(self, pass_tokens=pass_tokens, scale=self.scale * factor)


def sample_passes(
    trace: Trace, pass_tokens: int, phase: Phase, *, groups: int = GROUPS, max_passes: int = MAX_PASSES
) -> PassSample:
    """Read tokens and cut them into passes.

    In prefill, a pass is of consecutive tokens, so of few sequences. In decode, it is of one token of every sequence in
    turn, as batches of an engine are. Of a trace that makes more passes than `max_passes`, they are spread evenly; one
    that makes none stands for a pass as a whole, scaled up.

    Parameters
    ----------
    trace : Trace
    pass_tokens : int
        Of all ranks together.
    phase : {"prefill", "decode"}
    groups, max_passes : int
        At most.

    Raises
    ------
    InputError
        If the trace holds no token.
    """
    tokens, unit, thinned = _read(trace)
    count = len(tokens)
    if not count:
        source = trace.provenance.source
        raise InputError.of("zero_tokens", source, "The trace holds no tokens.", "Check the recording.")
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    unit = np.argsort(np.argsort(first))[unit]  # numbered as they appear
    order = np.argsort(unit, kind="stable") if phase == "prefill" else np.lexsort((unit, _place_in_unit(unit)))
    sizes = np.bincount(unit)
    group_of_unit = np.minimum((np.cumsum(sizes) - sizes) * min(groups, len(sizes)) // count, groups - 1)
    if count < pass_tokens:
        passes, scale, chosen = 1, pass_tokens / count, [order]
    else:
        whole = count // pass_tokens
        passes, scale = min(whole, max_passes), 1.0
        starts = np.linspace(0, whole - 1, passes).round().astype(np.int64) * pass_tokens
        chosen = [order[start : start + pass_tokens] for start in starts]
    order = np.concatenate(chosen)
    number = np.repeat(np.arange(passes), [len(part) for part in chosen])
    _, group = np.unique(group_of_unit[unit[order]], return_inverse=True)
    used = int(group.max()) + 1
    return PassSample(
        tokens=tokens.select(order),
        cell=number * used + group,
        passes=passes,
        groups=used,
        pass_tokens=pass_tokens,
        scale=scale,
        sequences=len(np.unique(unit[order])),
        by_sequence="seq_id" in trace.columns,
        thinned=thinned,
    )


def _read(trace: Trace) -> tuple[Batch, Ints, int]:
    """Return tokens of whole sequences spread over the trace, the sequence of each, and one of how many was taken."""
    most = max(1024, MAX_CHOICES // (trace.num_layers * trace.top_k))
    kept = WholeSequences(most, trace.columns & COLUMNS)
    for batch in trace.batches(BATCH_TOKENS):
        kept.add(batch)
        if kept.full:
            break
    tokens, units = kept.tokens(trace.num_layers, trace.top_k)
    return tokens, units, kept.stride


def _place_in_unit(unit: Ints) -> Ints:
    """Return how many tokens of the same sequence come before each token."""
    order = np.argsort(unit, kind="stable")
    ordered = unit[order]
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    place = np.empty(len(unit), np.int64)
    place[order] = np.arange(len(unit)) - np.repeat(starts, np.diff(np.r_[starts, len(unit)]))
    return place
