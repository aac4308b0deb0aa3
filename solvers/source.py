"""What a plan is made from: a trace, a load matrix or a saved profile, and the part of it that is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from traces import InputError, LoadCounts, Profile, Trace, load
from traces.profile.sample import TokenSample
from traces.profile.saved import is_profile

__all__ = ["Part", "Source", "open_source", "part_of", "split", "with_counted"]

DEFAULT_HOLD_OUT = 0.5
Source = Trace | LoadCounts | Profile
Part = Literal["all", "fit", "held_out"]


def open_source(path: str | Path, **load_options: Any) -> Source:
    """Open a trace, a load matrix, or a profile that `Profile.save` wrote.

    Parameters
    ----------
    path : path
    **load_options
        See `traces.load`: format, num_experts, layer_ids and others. A profile knows what they say, so it takes none
        but `unpack`, which it has no use for.

    Raises
    ------
    InputError
    """
    if not is_profile(Path(path)):
        return load(path, **load_options)
    if given := sorted(name for name, value in load_options.items() if value is not None and name != "unpack"):
        raise InputError.of(
            "profile_options", f"/{given[0]}", f"A saved profile takes no {', '.join(given)}.", "Leave that out."
        )
    return Profile.load_file(path)


def split(source: Source, hold_out: float | None) -> tuple[Trace | None, Trace | None, tuple[str, ...]]:
    """Return the part to fit, the part to hold out, and the notes on them.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
        The tokens of a profile are its sample; counts have none.
    hold_out : float or None
        Share of the sequences. None: 0.5 of a trace that can be split, else 0.

    Raises
    ------
    InputError
        If the share is out of range or leaves a part without tokens, or the source is none or can't be split.
    """
    if not isinstance(source, Source):
        detail = f"{type(source).__name__} is no trace."
        raise InputError.of("wrong_type", "/source", detail, "Give a Trace, LoadCounts, a Profile or a path.")
    if isinstance(source, Trace):
        notes = source.provenance.notes
        if hold_out == 0:
            return source, None, notes
        fit, held_out = source.split(DEFAULT_HOLD_OUT if hold_out is None else hold_out)
        empty = [name for name, part in (("fit", fit), ("held-out", held_out)) if _is_empty(part)]
        if not empty or _is_empty(source):
            return fit, held_out, (*notes, *held_out.provenance.notes[len(notes) :])
        if hold_out is None:
            return source, None, (*notes, "Nothing is held out: the trace has too few sequences to split.")
        detail = f"With a held-out share of {hold_out:g}, the {empty[0]} part has no tokens."
        raise InputError.of("hold_out_empty", "/hold_out", detail, "Choose another share, or 0 to fit on everything.")
    if hold_out:
        detail = "Only a trace with tokens can be split; this source holds statistics."
        raise InputError.of("hold_out_counts", "/hold_out", detail, "Leave the held-out share out, or give 0.")
    if isinstance(source, LoadCounts):
        return None, None, (*source.provenance.notes, "Counts only: the figures are expected loads.")
    notes = tuple(note for item in source.sources for note in item.notes)
    if source.sample is None or not len(source.sample):
        return None, None, (*notes, "The profile holds no sample of tokens: the figures are expected loads.")
    tokens = len(source.sample)
    sample = f"Figures are of the profile's sample of {tokens} of {source.tokens} tokens; nothing is held out."
    return _trace_of(source, source.sample), None, (*notes, sample)


def part_of(source: Source, part: str, hold_out: float | None, place: str) -> tuple[Trace, tuple[str, ...]]:
    """Return the tokens to replay, and the notes on them.

    Parameters
    ----------
    source : Trace, LoadCounts or Profile
    part : {"all", "fit", "held_out"}
        As `split` makes them.
    hold_out : float or None
        Share of the sequences that is held out; of all tokens, none is.
    place : str
        Where the source comes from, for errors.

    Raises
    ------
    InputError
        If there are no such tokens, or a share would not be used.
    """
    if part not in get_args(Part):
        raise InputError.of("unknown_choice", "/part", f"{part!r} is not one of {list(get_args(Part))}.", "Choose one.")
    if part == "all" and hold_out:
        detail = "All tokens are replayed, so nothing is held out."
        raise InputError.of("hold_out_unused", "/hold_out", detail, "Choose the part fit or held_out, or leave it out.")
    fit, held_out, notes = split(source, 0 if part == "all" else hold_out)
    chosen = held_out if part == "held_out" else fit
    if fit is None:
        detail = "There are no tokens to replay: it holds counts."
        raise InputError.of("counts_only", place, detail, "Give a trace with token identity (topk_ids).")
    if chosen is None:
        detail = "Nothing is held out of this source."
        raise InputError.of("hold_out_empty", "/hold_out", detail, "Choose another part.")
    return chosen, notes


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
