"""What steps need: the distinct experts of their tokens, layer by layer, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from placement.residency.kernels.unions import next_uses, take_lanes, unite
from traces import InputError, Trace
from traces.support.content import ByContent
from traces.support.kinds import checked
from traces.support.words import Phase

__all__ = ["Accesses", "Tokens", "read_tokens"]

Ints = npt.NDArray[np.integer]
BLOCK = 64  # tokens that stand in for a sequence where a trace has no seq_id, as where it is split
MAX_CHOICES = 16_000_000  # experts chosen by the tokens that are read: tokens x layers x top-k; some 0.5 GB


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Tokens of a trace in memory, whose number is bounded.

    Attributes
    ----------
    ids : (T, L, K) integers
        Experts; -1 where an entry is missing.
    sequence : (T,) int64
        Numbered as they appear.
    num_experts : int
    cut : bool
        Whether the trace has more tokens.
    """

    ids: Ints
    sequence: npt.NDArray[np.int64]
    num_experts: int
    cut: bool

    def __len__(self) -> int:
        return len(self.ids)


@checked
def read_tokens(trace: Trace, max_choices: int = MAX_CHOICES) -> Tokens:
    """Read the tokens of a trace from its start, as many as memory is meant for.

    Parameters
    ----------
    trace : Trace
    max_choices : int
        Tokens x layers x top-k at most.

    Raises
    ------
    InputError
        If the trace holds no token.
    """
    most = max(1, max_choices // (trace.num_layers * trace.top_k))
    parts, units, count, cut = list[Ints](), list[Ints](), 0, False
    for batch in trace.batches():
        if not len(batch):
            continue
        if count == most:
            cut = True
            break
        taken = slice(0, most - count)
        cut = len(batch) > most - count
        parts.append(batch.topk_ids[taken])
        units.append((batch.rows // BLOCK if batch.seq_id is None else np.asarray(batch.seq_id))[taken])
        count += len(parts[-1])
        if cut:
            break
    if not count:
        source = trace.provenance.source
        raise InputError.of("zero_tokens", source, "The trace holds no tokens.", "Check the recording.")
    _, first, unit = np.unique(np.concatenate(units), return_index=True, return_inverse=True)
    sequence = np.argsort(np.argsort(first))[unit]
    return Tokens(ids=np.concatenate(parts), sequence=sequence, num_experts=trace.num_experts, cut=cut)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Accesses(ByContent):
    """The distinct experts that each step uses in each layer, A of them in all.

    An access is one expert of one layer in one step, however many tokens of the step chose it: that is what has to be
    in memory. Set number ``step * L + layer`` is ``expert[start[number] : start[number + 1]]``.

    Attributes
    ----------
    num_layers, num_experts : int
        L and E.
    start : (P * L + 1,) int64
        Where each set begins.
    expert : (A,) int32
        Ascending within a set.
    tokens : (A,) int32
        Tokens of the step that chose it.
    step_tokens : (P,) int64
        Tokens of each step.
    """

    num_layers: int
    num_experts: int
    start: npt.NDArray[np.int64]
    expert: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    step_tokens: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for array in (self.start, self.expert, self.tokens, self.step_tokens):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.expert)

    def __repr__(self) -> str:
        return f"Accesses of {self.num_steps:,} steps: {len(self):,} in {self.num_layers} layers"

    @classmethod
    @checked
    def of(cls, tokens: Tokens, *, phase: Phase = "decode", batch_tokens: int = 1) -> Accesses:
        """Cut tokens into steps, and take what each step needs.

        Parameters
        ----------
        tokens : Tokens
        phase : {"prefill", "decode"}
            A prefill step is of consecutive tokens; a decode step of one token of each of `batch_tokens` sequences,
            where a sequence that ends makes room for the next one. The last steps may have fewer.
        batch_tokens : int
            Tokens of a step, B.

        Raises
        ------
        InputError
            If B is not at least 1.
        """
        if batch_tokens < 1:
            detail = f"{batch_tokens} tokens make no step."
            raise InputError.of("batch_tokens_range", "/batch_tokens", detail, "Give at least 1.")
        count, layers = tokens.ids.shape[:2]
        if phase == "prefill" or batch_tokens == 1:
            order, bounds = None, np.append(np.arange(0, count, batch_tokens), count)
        else:
            order, bounds = _in_lanes(tokens.sequence, batch_tokens)
        ids = tokens.ids if order is None else tokens.ids[order]
        steps = len(bounds) - 1
        start = np.zeros(steps * layers + 1, np.int64)
        expert, used = np.empty(ids.size, np.int32), np.empty(ids.size, np.int32)
        size = unite(ids, bounds, tokens.num_experts, start, expert, used)
        return cls(
            num_layers=layers,
            num_experts=tokens.num_experts,
            start=start,
            expert=expert[:size].copy(),
            tokens=used[:size].copy(),
            step_tokens=np.diff(bounds),
        )

    @property
    def num_steps(self) -> int:
        """Number of steps, P."""
        return len(self.step_tokens)

    @cached_property
    def item(self) -> npt.NDArray[np.int32]:
        """Number of each access's expert among those of all layers, ``layer * E + expert``, (A,)."""
        layer = np.arange(len(self.start) - 1, dtype=np.int32) % np.int32(self.num_layers)
        return np.repeat(layer * np.int32(self.num_experts), np.diff(self.start)) + self.expert

    @cached_property
    def layer_of(self) -> npt.NDArray[np.int64]:
        """Layer of each access, (A,)."""
        return np.repeat(np.arange(len(self.start) - 1) % self.num_layers, np.diff(self.start))

    @cached_property
    def uses(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Number of the next set that needs each access's expert, (A,), and of the first one of each expert, (L * E,).

        The number of sets stands for never.
        """
        following = np.empty(len(self), np.int32)
        first = np.empty(self.num_layers * self.num_experts, np.int32)
        next_uses(self.start, self.expert, self.num_layers, self.num_experts, following, first)
        return following, first

    def spread(self, most: int, windows: int = 8) -> Accesses:
        """Return windows of consecutive steps, evenly spread, of about `most` accesses; all steps if these are fewer.

        Parameters
        ----------
        most : int
        windows : int
            What a recording is about changes with time, so that its beginning would tell too little.
        """
        if len(self) <= most:
            return self
        each = max(1, self.num_steps * most // len(self) // windows)
        first = np.linspace(0, self.num_steps - each, windows).round().astype(np.int64)
        step = np.unique((first[:, None] + np.arange(each)).ravel())
        size = np.diff(self.start).reshape(self.num_steps, self.num_layers)
        kept = np.zeros(self.num_steps, np.bool_)
        kept[step] = True
        mask = np.repeat(kept, size.sum(axis=1))
        return Accesses(
            num_layers=self.num_layers,
            num_experts=self.num_experts,
            start=np.concatenate([[0], np.cumsum(size[kept].ravel())]),
            expert=self.expert[mask],
            tokens=self.tokens[mask],
            step_tokens=self.step_tokens[kept],
        )


def _in_lanes(sequence: npt.NDArray[np.int64], lanes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the order of tokens in decode steps, and where each one begins: sequences take lanes as these are free."""
    size = np.bincount(sequence)
    begin, lane = np.empty(len(size), np.int64), np.empty(len(size), np.int64)
    take_lanes(size, lanes, begin, lane)
    grouped = np.argsort(sequence, kind="stable")
    place = np.empty(len(sequence), np.int64)
    place[grouped] = np.arange(len(sequence)) - np.repeat(np.cumsum(size) - size, size)
    step = begin[sequence] + place
    order = np.lexsort((lane[sequence], step))
    return order, np.concatenate([[0], np.cumsum(np.bincount(step))])
