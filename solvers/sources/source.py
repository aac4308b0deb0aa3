"""What a plan is made from: a trace, a load matrix or a saved profile, and the part of it that is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from traces import Diagnosis, InputError, LoadCounts, Profile, Trace, check, load
from traces.doctor.checking import watched
from traces.profile.sample import TokenSample
from traces.profile.saved import is_profile
from traces.support.words import HoldOutBy

__all__ = [
    "Part",
    "Source",
    "dumps_held_out",
    "open_source",
    "part_of",
    "refuse_unused",
    "split",
    "split_dumps",
    "told_while_read",
    "with_counted",
]

DEFAULT_HOLD_OUT = 0.5
COUNTS_ONLY = "Counts only: the figures are expected loads."
Source = Trace | LoadCounts | Profile
Part = Literal["all", "fit", "held_out"]


def open_source(path: str | Path | Sequence[str | Path], **load_options: Any) -> Source:
    """Open a trace, a load matrix, or a profile that `Profile.save` wrote.

    Parameters
    ----------
    path : path or sequence of paths
        Several files are dumps over time, or those of several ranks.
    **load_options
        See `traces.load`: format, num_experts, layer_ids and others. A profile knows what they say, so it takes none
        but `unpack`, which it has no use for.

    Raises
    ------
    InputError
    """
    if not isinstance(path, str | Path) or not is_profile(Path(path)):
        return load(path, **load_options)
    if given := sorted(name for name, value in load_options.items() if value is not None and name != "unpack"):
        raise InputError.of(
            "profile_options", f"/{given[0]}", f"A saved profile takes no {', '.join(given)}.", "Leave that out."
        )
    return Profile.load_file(path)


def split(
    source: Source, hold_out: float | None, by: HoldOutBy | None = None
) -> tuple[Trace | None, Trace | None, tuple[str, ...]]:
    """Return the part to fit, the part to hold out, and the notes on them.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
        The tokens of a profile are its sample; counts have none.
    hold_out : float or None
        Share of the sequences. None: 0.5 of a trace that can be split, else 0.
    by : {"sequence", "time", "source"}, optional
        What the share is of, where it is not of sequences.

    Raises
    ------
    InputError
        If the share is out of range or leaves a part without tokens, or the source is none or can't be split.
    """
    if not isinstance(source, Source):
        detail = f"{type(source).__name__} is no trace."
        raise InputError.of("wrong_type", "/source", detail, "Give a Trace, LoadCounts, a Profile or a path.")
    refuse_unused(hold_out, by)
    if isinstance(source, Trace):
        notes = source.provenance.notes
        if hold_out == 0:
            return source, None, notes
        fit, held_out = source.split(DEFAULT_HOLD_OUT if hold_out is None else hold_out, by or "sequence")
        empty = [name for name, part in (("fit", fit), ("held-out", held_out)) if _is_empty(part)]
        if not empty or _is_empty(source):
            return fit, held_out, (*notes, *held_out.provenance.notes[len(notes) :])
        if hold_out is None and by is None:
            return source, None, (*notes, "Nothing is held out: the trace has too few sequences to split.")
        share = DEFAULT_HOLD_OUT if hold_out is None else hold_out
        detail = f"With a held-out share of {share:g}, the {empty[0]} part has no tokens."
        raise InputError.of("hold_out_empty", "/hold_out", detail, "Choose another share, or 0 to fit on everything.")
    if hold_out or by is not None:
        detail = "Only a trace with tokens can be split; this source holds statistics."
        place = "/hold_out" if hold_out else "/hold_out_by"
        raise InputError.of("hold_out_counts", place, detail, "Leave the held-out share out, or give 0.")
    if isinstance(source, LoadCounts):
        return None, None, (*source.provenance.notes, COUNTS_ONLY)
    notes = tuple(note for item in source.sources for note in item.notes)
    if source.sample is None or not len(source.sample):
        return None, None, (*notes, "The profile holds no sample of tokens: the figures are expected loads.")
    tokens = len(source.sample)
    sample = f"Figures are of the profile's sample of {tokens} of {source.tokens} tokens; nothing is held out."
    return _trace_of(source, source.sample), None, (*notes, sample)


def split_dumps(
    counts: LoadCounts, hold_out: float | None, by: HoldOutBy | None = None
) -> tuple[LoadCounts, LoadCounts | None, tuple[str, ...]]:
    """Return the counts to fit, those of the last dumps, which are held out, and notes.

    Parameters
    ----------
    counts : LoadCounts
    hold_out : float or None
        Share of the dumps, rounded, at least one of each part. None: 0.5 of counts with several dumps, else 0.
    by : {"time"}, optional
        Counts can be split by nothing else.

    Raises
    ------
    InputError
        If the share is out of range, or there are not several dumps.
    """
    total = len(counts.dumps)
    later = dumps_held_out(total, hold_out, by)
    if not later:
        return counts, None, counts.provenance.notes
    first, last = counts.dumps[: total - later], counts.dumps[total - later :]
    fit = counts.of_dumps(first, f"fit part: the first {len(first)} of {total} dumps, up to {first[-1].name}")
    held = counts.of_dumps(last, f"held-out part: the last {later} of {total} dumps, from {last[0].name}")
    notes = (*counts.provenance.notes, fit.provenance.notes[-1], held.provenance.notes[-1])
    return fit, held, notes


def dumps_held_out(total: int, hold_out: float | None, by: HoldOutBy | None = None) -> int:
    """Return how many of the dumps of counts are held out, the last ones.

    Parameters
    ----------
    total : int
        Dumps that there are; 0 for counts of one time.
    hold_out, by
        See `split_dumps`.

    Raises
    ------
    InputError
        As `split_dumps`.
    """
    refuse_unused(hold_out, by)
    if by not in (None, "time"):
        detail = f"Counts have no {by}s to hold out."
        raise InputError.of("hold_out_by_counts", "/hold_out_by", detail, "Use 'time', or leave it out.")
    share = (DEFAULT_HOLD_OUT if total or by is not None else 0.0) if hold_out is None else hold_out
    if not 0 <= share < 1:
        detail = f"The held-out share is {share}."
        raise InputError.of("hold_out_range", "/hold_out", detail, "Give a share between 0 and 1.")
    if not share:
        return 0
    if total < 2:
        detail = "Counts of one time can't be split: they hold no tokens."
        remedy = (
            "Leave the held-out share out, or give several dumps over time: a folder, or a pattern such as dumps/*.pt."
        )
        raise InputError.of("hold_out_counts", "/hold_out", detail, remedy)
    return min(total - 1, max(1, round(share * total)))


def refuse_unused(hold_out: float | None, by: HoldOutBy | None) -> None:
    """Refuse to say what a share is of that is 0.

    Raises
    ------
    InputError
    """
    if hold_out == 0 and by is not None:
        detail = "Nothing is held out, so it does not matter by what."
        raise InputError.of("hold_out_unused", "/hold_out_by", detail, "Leave it out, or give a share to hold out.")


def told_while_read(source: Source) -> tuple[Source, Callable[[], tuple[str, ...]]]:
    """Return a source that is diagnosed while it is read to its end, and what tells that in one line, or nothing."""
    if isinstance(source, Trace):
        looked, diagnosis = watched(source)
        return looked, lambda: _line(diagnosis())
    return source, lambda: _line(check(source))


def _line(diagnosis: Diagnosis | None) -> tuple[str, ...]:
    line = None if diagnosis is None else diagnosis.line
    return () if line is None else (line,)


def part_of(
    source: Source, part: str, hold_out: float | None, place: str, by: HoldOutBy | None = None
) -> tuple[Trace | LoadCounts, tuple[str, ...]]:
    """Return the tokens to replay, or the counts to expect loads from, and the notes on them.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
    part : {"all", "fit", "held_out"}
        As `split` makes them.
    hold_out : float or None
        Share of the sequences that is held out; of all tokens, none is.
    place : str
        Where the source comes from, for errors.
    by : {"sequence", "time", "source"}, optional
        What the share is of; see `split`.

    Raises
    ------
    InputError
        If there are no such tokens or counts, or a share would not be used.
    """
    if part not in get_args(Part):
        raise InputError.of("unknown_choice", "/part", f"{part!r} is not one of {list(get_args(Part))}.", "Choose one.")
    if part == "all" and (hold_out or by is not None):
        detail = "Everything is replayed, so nothing is held out."
        given = "/hold_out" if hold_out else "/hold_out_by"
        raise InputError.of("hold_out_unused", given, detail, "Choose the part fit or held_out, or leave it out.")
    if isinstance(source, LoadCounts):
        counts, later, notes = split_dumps(source, 0 if part == "all" else hold_out, by)
        if part != "all" and later is None:
            detail = "Nothing is held out of this source."
            raise InputError.of("hold_out_empty", "/hold_out", detail, "Choose another part.")
        chosen_counts = counts if part != "held_out" or later is None else later
        return chosen_counts, (*notes, *_line(check(source)), COUNTS_ONLY)
    fit, held_out, notes = split(source, 0 if part == "all" else hold_out, by)
    chosen = held_out if part == "held_out" else fit
    if fit is None:
        detail = "There are no tokens to replay: it holds counts."
        raise InputError.of("counts_only", place, detail, "Give a trace with token identity (topk_ids).")
    if chosen is None:
        detail = "Nothing is held out of this source."
        raise InputError.of("hold_out_empty", "/hold_out", detail, "Choose another part.")
    return chosen, (*notes, *_line(check(source)))


def with_counted(notes: tuple[str, ...], fit: Trace, profile: Profile) -> tuple[str, ...]:
    """Return the notes with those of a profile: counting has read to the end what opening only looked at."""
    before, counted = fit.provenance.notes, profile.sources[0].notes
    kept = (note for note in notes if note in counted or note not in before)
    return (*kept, *(note for note in counted if note not in before))


def _is_empty(trace: Trace) -> bool:
    return not any(len(batch) for batch in trace.read(1024))


def _trace_of(profile: Profile, sample: TokenSample) -> Trace:
    known = {name: column for name in ("seq_id", "source_rank") if (column := getattr(sample, name)).min() >= 0}
    return Trace.of(sample.topk_ids, num_experts=profile.num_experts, layer_ids=profile.layer_ids, **known)
