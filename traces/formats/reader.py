"""What a reader is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from traces.counts import LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.formats.hints import Hints
from traces.trace import Trace

__all__ = ["Reader"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One trace format.

    Attributes
    ----------
    name : str
        As in ``load(..., format=name)``.
    content : str
        One line about the format, for lists.
    sniff : callable
        ``sniff(file)``: is this the format of the file? Looks at content, and may raise `InputError` where it is one of
        several formats that can't be told apart.
    open : callable
        ``open(file, hints)``: the trace, or its counts.
    sniff_bundle, open_bundle : callable, optional
        The same for several files that belong together (`Bundle`), such as one per rank.
    engine : str or None
        Name of the serving engine that alone writes it; None where anything may, or models outside of an engine.
    also_named : tuple of str
        Other names that people give it.
    two_bases : bool
        Whether its layers are counted from 0 in some files and from 1 in others, so that `layer_base` says which.
    """

    name: str
    content: str
    sniff: Callable[[TraceFile], bool]
    open: Callable[[TraceFile, Hints], Trace | LoadCounts]
    sniff_bundle: Callable[[Bundle], bool] | None = None
    open_bundle: Callable[[Bundle, Hints], Trace | LoadCounts] | None = None
    engine: str | None = None
    also_named: tuple[str, ...] = ()
    two_bases: bool = False

    def is_named(self, name: str) -> bool:
        """Whether it goes by this name; case does not matter, and hyphens are as good as underscores."""
        return name.strip().lower().replace("-", "_") in (self.name, *self.also_named)
