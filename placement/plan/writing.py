"""Who writes plans as engines' files: the formats build on plans, so they are made known here from above."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Writer", "set_writer", "writer"]

Writer = Callable[..., tuple[str, ...]]  # takes what `placement.exports.export_plan` takes
_finders: list[Callable[[], Writer]] = []


def set_writer(find: Callable[[], Writer]) -> None:
    """Make known who writes; `find` is called when a plan is exported, and may import it then."""
    _finders[:] = [find]


def writer() -> Writer:
    """Return who writes."""
    return _finders[0]()
