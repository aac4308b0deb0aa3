"""The parts of a source: what a problem is made from, and what plans are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from placement import Objective
from placement.engines import engine_of, travel_of
from placement.problem.settling import counts_defaults
from solvers.sources.source import Source, open_source, split, split_dumps, told_while_read, with_counted
from traces import LoadCounts, Profile, Trace
from traces.support.words import HoldOutBy

__all__ = ["Named", "Parts", "sends_home", "travel_notes"]

BY_LOAD = (
    "Counts don't tell which experts follow each other, or share a message: planned as a dispatch with a message per "
    "expert, by load."
)

Named = Source | str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """A source, split and profiled.

    Attributes
    ----------
    profile : Profile
        Of the part to fit.
    fit, held_out : Trace or None
        Tokens, where there are any.
    counts : mapping of str to LoadCounts
        By part, ``fit`` and ``held_out``, of counts with several dumps over time.
    notes : tuple of str
    """

    profile: Profile
    fit: Trace | None
    held_out: Trace | None
    counts: Mapping[str, LoadCounts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        source: Source | str | Path | Sequence[str | Path],
        hold_out: float | None,
        workers: int | None,
        by: HoldOutBy | None = None,
        *,
        pairs_later: bool = False,
    ) -> Parts:
        """Split a source and profile the part to fit.

        Parameters
        ----------
        source : Trace, LoadCounts, Profile, path or paths
        hold_out : float or None
            See `solvers.Request`.
        workers : int or None
            Threads.
        by : {"sequence", "time", "source"}, optional
            See `solvers.Request`.
        pairs_later : bool
            See `Profile.of`.

        Raises
        ------
        InputError
            If the source breaks a rule, or can't be split.
        """
        opened: Any = source
        if isinstance(source, (str, Path)) or _paths(source):
            opened = open_source(source)  # type: ignore[arg-type]  # paths, as was looked at
        if isinstance(opened, LoadCounts):
            fitted, later, notes = split_dumps(opened, hold_out, by)
            counts = {} if not opened.dumps else {"fit": fitted} | ({} if later is None else {"held_out": later})
            told = replace(fitted, provenance=replace(opened.provenance, notes=notes))
            _, diagnosis = told_while_read(told)
            _, _, notes = split(told, None)
            return cls(profile=Profile.of(told), fit=None, held_out=None, counts=counts, notes=(*notes, *diagnosis()))
        fit, held_out, notes = split(opened, hold_out, by)
        looked, diagnosis = told_while_read(opened)
        counted = looked if isinstance(looked, Profile) else split(looked, hold_out, by)[0] or looked
        profile = (
            counted if isinstance(counted, Profile) else Profile.of(counted, workers=workers, pairs_later=pairs_later)
        )
        if fit is not None and not isinstance(opened, Profile):
            notes = with_counted(notes, fit, profile)
        return cls(profile=profile, fit=fit, held_out=held_out, notes=(*notes, *diagnosis()))


def sends_home(engine: str | None, objective: Objective) -> bool:
    """Whether it is said that tokens travel by dispatch: few methods look at pairs of experts then."""
    if objective.execution is not None or engine is None:
        return objective.execution == "dispatch"
    return engine_of(engine).engine.execution == "dispatch"


def travel_notes(engine: str | None, objective: Objective, profile: Profile) -> tuple[str, ...]:
    """Return notes on how tokens are taken to travel, where the source can't carry what an engine does."""
    if engine is not None:
        _, notes = travel_of(engine_of(engine), profile)
        return notes if objective.dedup is None else ()
    usual = counts_defaults(profile)
    return () if usual is None or "execution" not in usual or objective.execution is not None else (BY_LOAD,)


def _paths(source: Any) -> bool:
    return isinstance(source, (list, tuple)) and bool(source) and all(isinstance(item, (str, Path)) for item in source)
