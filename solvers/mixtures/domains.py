"""The domains of a mixture: several traces, or the sources that one trace tells apart; each split and profiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvers.mixtures.request import MAX_DOMAINS
from solvers.sources.source import open_source, split
from traces import InputError, Profile, Trace, Violations
from traces.splitting import LEAST, OfSources

__all__ = ["Domain", "Domains", "domain_names", "domains_of", "not_apart"]

Domains = Mapping[str, Trace] | Trace | str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True, eq=False)
class Domain:
    """Tokens of one kind of traffic.

    Attributes
    ----------
    name : str
    fit, held_out : Trace
    profile : Profile
        Of the part to fit.
    """

    name: str
    fit: Trace
    held_out: Trace
    profile: Profile


def domains_of(source: Domains, hold_out: float | None, workers: int | None) -> tuple[Domain, ...]:
    """Split a source into domains, and each of them into a part to fit and one to hold out.

    Parameters
    ----------
    source : mapping of str to Trace, Trace, path or paths
        A mapping names the domains; several files are a domain each, called by their names; a single trace is split by
        its column `data_source`.
    hold_out : float or None
        Share of each domain's sequences.
    workers : int or None

    Raises
    ------
    InputError
        If there are fewer than two domains, or a trace of more than `MAX_DOMAINS` sources, a source has no tokens, two
        hold the same tokens, or they are of different models.
    """
    named = _named(source)
    found = Violations()
    first = next(iter(named.values()))
    for name, trace in named.items():
        same = trace.num_experts == first.num_experts and trace.top_k == first.top_k
        if not same or trace.layer_ids.tolist() != first.layer_ids.tolist():
            detail = f"{name} is of other layers, experts or top-k than {next(iter(named))}."
            found.add("domains_differ", f"/domains/{name}", detail, "Give traces of one model.")
    found.raise_if_any()
    domains = []
    for name, trace in named.items():
        fit, held_out, _ = split(trace, hold_out)
        if held_out is None or fit is None:
            detail = f"{name} has too few sequences to hold some out."
            raise InputError.of("hold_out_empty", f"/domains/{name}", detail, "Give a longer trace of this domain.")
        domains.append(Domain(name=name, fit=fit, held_out=held_out, profile=Profile.of(fit, workers=workers)))
    _check_different(domains)
    return tuple(domains)


def _check_different(domains: Sequence[Domain]) -> None:
    """Refuse a trace that is given twice: its tokens would count twice, in the weights, the pooled plan and the time.

    By what was counted of the part to fit, which is the same whatever file it stands in.
    """
    found, known = Violations(), dict[tuple[bytes, ...], str]()
    for domain in domains:
        first = known.setdefault(_content(domain.profile), domain.name)
        if first != domain.name:
            detail = f"{domain.name} holds the same tokens as {first}: it is a domain already."
            found.add("trace_twice", f"/domains/{domain.name}", detail, "Leave one of them out.")
    found.raise_if_any()


def _content(profile: Profile) -> tuple[bytes, ...]:
    """Return what tells tokens apart: loads, those of parts of the sequences, and all tokens where they are few."""
    found = [profile.load.tobytes()]
    if profile.sequence_load is not None:
        found.append(profile.sequence_load.tobytes())
    if (sample := profile.sample) is not None and len(sample.rows) == profile.tokens:
        found.append(sample.topk_ids[np.argsort(sample.rows)].tobytes())
    return tuple(found)


def _named(source: Domains) -> dict[str, Trace]:
    """Return the traces of the domains by name."""
    if isinstance(source, (str, Path)) or (isinstance(source, (list, tuple)) and len(source) == 1):
        path = source if isinstance(source, (str, Path)) else source[0]
        opened = open_source(path)
        return _by_source(_tokens(opened, str(path)))
    if isinstance(source, Trace):
        return _by_source(source)
    if isinstance(source, Mapping):
        named = {name: _tokens(trace, name) for name, trace in source.items()}
    elif isinstance(source, (list, tuple)):
        names = domain_names(source)
        named = {name: _tokens(open_source(path), name) for name, path in zip(names, source, strict=True)}
    else:
        detail = f"{type(source).__name__} is no trace."
        raise InputError.of("wrong_type", "/domains", detail, "Give a Trace, a mapping of names to traces, or paths.")
    if len(named) < LEAST:
        detail = f"{len(named)} domains."
        raise InputError.of("one_domain", "/domains", detail, "Give two or more; for a single one, use `solve`.")
    return named


def domain_names(paths: Sequence[str | Path]) -> list[str]:
    """Return what the domains of several files are called: their names without folder and ending, if these differ."""
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def not_apart(name: str, sources: int) -> InputError:
    """Return the error on a single trace that does not tell domains apart."""
    what = "has tokens of one source only" if sources else "does not say which source its tokens come from"
    remedy = "Give a trace for each domain, or one with the column `data_source`."
    return InputError.of("no_sources", "/traces", f"{name} {what}.", remedy)


def _tokens(opened: object, name: str) -> Trace:
    if isinstance(opened, Trace):
        return opened
    detail = f"{name} holds no tokens: a mixture is judged by replaying them."
    raise InputError.of("counts_only", "/domains", detail, "Record a trace with token identity (topk_ids).")


def _by_source(trace: Trace) -> dict[str, Trace]:
    place = trace.provenance.source
    if "data_source" not in trace.columns:
        raise not_apart(place, 0)
    seen = set[int]()
    for batch in trace.batches():
        seen.update(np.unique(np.asarray(batch.data_source)).tolist())
        if len(seen) > MAX_DOMAINS:
            detail = f"{place} has tokens of more than {MAX_DOMAINS} sources: each would be a domain."
            remedy = f"Tell at most {MAX_DOMAINS} apart in the column `data_source`, or give a trace for each domain."
            raise InputError.of("too_many_sources", "/traces", detail, remedy)
    if len(seen) < LEAST:
        raise not_apart(place, len(seen))
    return {
        f"source {number}": trace.where(OfSources(sources=(number,), held_out=True), f"source {number}")
        for number in sorted(seen)
    }
