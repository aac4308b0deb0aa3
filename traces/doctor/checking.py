"""The doctor: one pass over a recording, then every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from traces.batch import Batch
from traces.counts import LoadCounts
from traces.doctor import amounts, layers, ranks
from traces.doctor.counted import settle_counts
from traces.doctor.diagnosis import Diagnosis, Finding
from traces.doctor.evidence import Evidence
from traces.doctor.ids import settle_ids, told_beyond
from traces.doctor.observing import Observation
from traces.doctor.phases import mixed_phases
from traces.doctor.rows import row_findings
from traces.formats import load_leniently
from traces.model.layout import ModelLayout
from traces.model.presets import layout_of
from traces.profile.profile import Profile
from traces.profile.saved import is_profile
from traces.provenance import Provenance
from traces.support.errors import InputError
from traces.trace import BATCH_TOKENS, Trace

__all__ = ["check", "watched"]


def check(
    source: str | Path | Trace | LoadCounts | Profile,
    *,
    num_experts: int | None = None,
    model: ModelLayout | str | Path | None = None,
    **load_options: Any,
) -> Diagnosis:
    """Say what is wrong with a recording, what that does to a plan, and what to do.

    It reads in one pass, in memory that does not grow with the tokens, and takes what `load` refuses where it can tell
    what that is: ids beyond the experts, fillers, rows and layers of nothing but zeros.

    Parameters
    ----------
    source : path, Trace, LoadCounts or Profile
        Of a profile, the loads are looked at: its rows and ids were checked when it was counted.
    num_experts : int, optional
        Routed experts per layer, whatever the file says.
    model : ModelLayout or path, optional
        The model: its experts, and which layers should be there.
    **load_options
        See `load`; with a path only.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InputError
        If the source is damaged in another way than those, or holds nothing.
    """
    if isinstance(model, str | Path):
        model = layout_of(model)
    if isinstance(source, str | Path):
        if is_profile(Path(source)):
            source = Profile.load_file(source)
        else:
            source = load_leniently(source, num_experts=num_experts, model=model, **load_options)
    elif load_options:
        name = next(iter(load_options))
        detail = f"`{name}` says how to read a file, and this is none."
        raise InputError.of("without_effect", f"/{name}", detail, "Leave it out, or give a path.")
    stated = num_experts
    if stated is None and model is not None:
        stated = model.num_experts
    if isinstance(source, Trace):
        seen = Observation(source)
        for batch in source.read(BATCH_TOKENS):
            seen.add(batch)
        return diagnose(seen, stated, model)
    return _of_counts(source, stated, model)


def watched(trace: Trace) -> tuple[Trace, Callable[[], Diagnosis | None]]:
    """Return a trace that is looked at while somebody else reads it, and what tells the diagnosis.

    The first pass that reaches the end is the one that counts; before there was one, the diagnosis is None.
    """
    inner, done = trace.read, list[Observation]()

    def read(max_tokens: int) -> Iterator[Batch]:
        if done:
            yield from inner(max_tokens)
            return
        seen = Observation(trace)
        for batch in inner(max_tokens):
            yield batch  # first, so that a fault is told as readers tell it
            seen.add(batch)
        done.append(seen)

    return replace(trace, read=read), lambda: diagnose(done[0], None, None) if done else None


def diagnose(seen: Observation, stated: int | None, model: ModelLayout | None) -> Diagnosis:
    """Return what a pass over tokens tells."""
    trace = seen.trace
    if not seen.rows:
        remedy = "Check the recording and any selection of it."
        raise InputError.of("zero_tokens", trace.provenance.source, "The trace holds no tokens.", remedy)
    if stated is None and not trace.provenance.experts_inferred:
        stated = trace.num_experts
    seen.settle_zeros()
    experts, found = settle_ids(seen, stated)
    found += row_findings(seen)
    evidence = seen.evidence(experts)
    if evidence.recorded.any():
        found += _of_loads(evidence, trace.provenance, model, seen)
        found += mixed_phases(seen, experts)
        found += amounts.duplicate_prompts(seen)
    return Diagnosis.of(trace.provenance.source, found)


def _of_counts(counts: LoadCounts | Profile, stated: int | None, model: ModelLayout | None) -> Diagnosis:
    provenance = counts.provenance if isinstance(counts, LoadCounts) else _provenance_of(counts)
    evidence, found = settle_counts(Evidence.of_counts(counts), stated)
    return Diagnosis.of(provenance.source, [*found, *_of_loads(evidence, provenance, model, None)])


def _provenance_of(profile: Profile) -> Provenance:
    """Return what is known of all sources of a profile together: each may be the file of another rank."""
    held = {part.held for part in profile.sources}
    return Provenance(
        source=next((part.source for part in profile.sources), "profile"),
        ranks=tuple(sorted({rank for part in profile.sources for rank in part.ranks})),
        held=held.pop() if len(held) == 1 else None,
        full_buffer=max((part.full_buffer or 0 for part in profile.sources), default=0) or None,
        beyond=next((part.beyond for part in profile.sources if part.beyond), ""),
    )


def _of_loads(
    evidence: Evidence, provenance: Provenance, model: ModelLayout | None, seen: Observation | None
) -> list[Finding]:
    """Return what the loads tell, of tokens or of counts."""
    of_rank = list(ranks.rank_findings(evidence, model))
    return [
        *told_beyond(provenance),
        *of_rank,
        *ranks.missing_ranks(provenance, bool(of_rank)),
        *layers.unrecorded(evidence, seen, model),
        *(() if of_rank else layers.layer_specific(evidence)),
        *layers.degenerate_layers(evidence),
        *amounts.too_few_tokens(evidence),
        *amounts.wrapped_buffer(provenance),
    ]
