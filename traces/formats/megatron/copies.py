"""Ranks whose files hold the very same: those that share their work write it several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["without_copies"]


class _Rank(Protocol):
    number: int
    content: str


Rank = TypeVar("Rank", bound=_Rank)


def without_copies(ranks: Sequence[Rank], what: str) -> tuple[list[Rank], list[str]]:
    """Leave out ranks with the very content of an earlier one.

    Parameters
    ----------
    ranks : sequence
        Each with its `number` and a hash of its `content`.
    what : str
        What the content is, for the notes.

    Returns
    -------
    ranks, notes
    """
    first: dict[str, Rank] = {}
    notes = []
    for rank in ranks:
        earlier = first.setdefault(rank.content, rank)
        if earlier is not rank:
            notes.append(f"Rank {rank.number} has the same {what} as rank {earlier.number} and was left out.")
    return list(first.values()), notes
