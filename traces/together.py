"""Several parts of one trace in one pass: what was held out and what was not are read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from traces import rules as checks
from traces.batch import Batch
from traces.tokens import Selected
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["batches_together"]


def batches_together(parts: Sequence[Trace], max_tokens: int = BATCH_TOKENS) -> Iterator[tuple[int, Batch]]:
    """Read parts from their start: those that were selected from the same trace in one pass, others one by one.

    Parameters
    ----------
    parts : sequence of Trace
    max_tokens : int
        See `Trace.batches`.

    Yields
    ------
    int, Batch
        The number of the part, and its next tokens; checked as by `Trace.batches`, in the order of the part.

    Raises
    ------
    InputError
        As `Trace.batches`.
    """
    whole = [part.read.__self__ if _is_selected(part) else None for part in parts]  # type: ignore[attr-defined]
    done: set[int] = set()
    for first, own in enumerate(whole):
        if first in done:
            continue
        if own is None:
            for batch in parts[first].batches(max_tokens):
                yield first, batch
            continue
        alike = [number for number, other in enumerate(whole) if other is not None and other.read_all == own.read_all]
        done.update(alike)
        yield from _one_pass({number: parts[number] for number in alike}, max_tokens)


def _is_selected(part: Trace) -> bool:
    return isinstance(getattr(part.read, "__self__", None), Selected)


def _one_pass(parts: dict[int, Trace], max_tokens: int) -> Iterator[tuple[int, Batch]]:
    from traces.duplicates import check_duplicates  # compiles, so it is imported when tokens are read

    selections: dict[int, Selected] = {number: part.read.__self__ for number, part in parts.items()}  # type: ignore[attr-defined]
    for batch in next(iter(selections.values())).read_all(max_tokens):
        for number, part in parts.items():
            selected = batch.select(selections[number].keep(batch))
            if len(selected):
                checks.check_batch(selected, part)
                check_duplicates(selected, part)
                yield number, selected
