"""Counts that were dumped several times, such as every ten minutes: one recording that keeps those of each time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import CountsDump, LoadCounts
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.formats.shared.counts import missing_note
from traces.provenance import Provenance
from traces.support.errors import InputError, Violations

__all__ = ["merged_dumps", "read_again", "time_in_name"]

Load = npt.NDArray[np.float64]
EPOCH = re.compile(r"(?<!\d)([1-4]\d{9}(?:\.\d{1,9})?)(?!\d)")  # seconds since 1970 in a file's name
DIGITS = re.compile(r"(\d+)")
INFERRED = ("counts_csv", "llama_csv")  # formats whose experts are the largest id and one
RISING = 3  # dumps from which on counts that never fall are running sums; two may just be of different lengths
SHOWN = 8


def merged_dumps(bundle: Bundle, open_one: Callable[[TraceFile], LoadCounts]) -> LoadCounts:
    """Return the sum of the dumps of one engine, with the counts of each; one is held at a time.

    They are ordered by the time that the files say, by the time in their names, or else by name, numbers by value.
    Dumps with the very counts of the one before are left out. Where no count ever falls from dump to dump, they are
    running sums, of which the differences are taken.

    Parameters
    ----------
    bundle : Bundle
    open_one : callable
        Opens a file of the bundle.

    Raises
    ------
    InputError
        If a file is damaged, or they don't go together.
    """
    looked, notes = _looked_at(bundle, open_one)
    layers = np.unique(np.concatenate([counts.layer_ids for counts in looked.values()]))
    experts = max(counts.num_experts for counts in looked.values())
    opened = next(iter(looked.values()))
    files = dict(zip(bundle.members, bundle.files, strict=True))

    def read(name: str) -> Load:
        return _on_axes(open_one(files[name]), layers, experts)

    total, kept, rising = _added((name, read(name)) for name in looked)
    if left := len(looked) - len(kept):
        notes.append(f"{left} dumps have the very counts of the one before and were left out.")
    reads: list[Callable[[], Load]] = [partial(read, name) for name in kept]
    if rising and len(kept) >= RISING:
        total = read(kept[-1])
        reads = [reads[0], *(partial(_difference, *pair) for pair in zip(reads[1:], reads, strict=False))]
        notes.append(
            "No count falls from dump to dump: they are running sums, so that the differences are taken as the counts "
            "of each time."
        )
    elif rising and len(kept) > 1:
        notes.append(
            "No count falls from the first dump to the second: if they are running sums, give the second one only."
        )
    times = {name: looked[name].recorded_at for name in kept}
    order = "by the time that they say" if None not in times.values() else "by name"
    if len(kept) > 1:
        notes.insert(0, f"{len(kept)} dumps over time, in order {order}: {_listed(kept)}.")
    unrecorded = set().union(*(counts.unrecorded for counts in looked.values())) - set(layers.tolist())
    total.flags.writeable = False
    own = [note for note in opened.provenance.notes if "missing in the recording" not in note]
    return replace(
        opened,
        load=total,
        layer_ids=layers,
        provenance=Provenance(
            source=bundle.name,
            format=opened.provenance.format,
            notes=(*own, *notes, *missing_note(np.array(sorted(unrecorded), dtype=np.int64))),
            full_buffer=max((counts.provenance.full_buffer or 0 for counts in looked.values()), default=0) or None,
            ranks=tuple(sorted({rank for counts in looked.values() for rank in counts.provenance.ranks})),
            held=next(iter(held)) if len(held := {counts.provenance.held for counts in looked.values()}) == 1 else None,
        ),
        digest=f"sha256:{bundle.sha256()}",
        affinity=None,
        source_load=None,
        unrecorded=tuple(sorted(unrecorded)),
        dumps=tuple(CountsDump(name=name, time=times[name], read=call) for name, call in zip(kept, reads, strict=True)),
        recorded_at=None,
    )


def read_again(dumps: tuple[CountsDump, ...], again: Callable[[], Any]) -> tuple[CountsDump, ...]:
    """Return dumps that pickle: elsewhere, the recording is opened again.

    Parameters
    ----------
    dumps : tuple of CountsDump
    again : callable
        Opens the recording; pickles.
    """
    return tuple(
        replace(dump, read=_Again(again=again, number=number, read=dump.read)) for number, dump in enumerate(dumps)
    )


@dataclass
class _Again:
    """Reads a dump, whose way to read it is left behind where it is pickled."""

    again: Callable[[], Any]
    number: int
    read: Callable[[], Load] | None = None

    def __call__(self) -> Load:
        if self.read is None:
            self.read = self.again().dumps[self.number].read
        return self.read()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Again, (self.again, self.number)


def _looked_at(bundle: Bundle, open_one: Callable[[TraceFile], LoadCounts]) -> tuple[dict[str, LoadCounts], list[str]]:
    """Open every dump once; return them in the order of time, without their counts, and notes."""
    found = Violations()
    looked: dict[str, LoadCounts] = {}
    for name, file in zip(bundle.members, bundle.files, strict=True):
        try:
            counts = open_one(file)
        except InputError as error:
            found.extend(error)
            continue
        time = counts.recorded_at if counts.recorded_at is not None else time_in_name(name)
        # Of the counts, their shape is all that is kept.
        few = np.broadcast_to(np.ones(1), counts.load.shape)
        looked[name] = replace(counts, load=few, source_load=None, affinity=None, recorded_at=time)
    found.raise_if_any()
    sizes = {counts.num_experts for counts in looked.values()}
    first = next(iter(looked))
    if len(sizes) > 1 and looked[first].provenance.format not in INFERRED:
        for name, counts in looked.items():
            if counts.num_experts != looked[first].num_experts:
                detail = f"{counts.num_experts} experts per layer, where {first} has {looked[first].num_experts}."
                found.add("dumps_differ", f"{bundle.name}/{name}", detail, "Give the dumps of one model.")
        found.raise_if_any()
    notes = []
    if any(counts.affinity is not None for counts in looked.values()):
        notes.append("Pairs of layers were left out: dumps over time are merged by load only.")
    timed = all(counts.recorded_at is not None for counts in looked.values())
    if not timed:
        looked = {name: replace(counts, recorded_at=None) for name, counts in looked.items()}
    order = sorted(looked, key=lambda name: (looked[name].recorded_at or 0.0, _natural(name)))
    return {name: looked[name] for name in order}, notes


def _added(dumps: Iterator[tuple[str, Load]]) -> tuple[Load, list[str], bool]:
    """Return the sum, the dumps that differ from the one before, and whether no count ever falls."""
    total: Load | None = None
    before: Load | None = None
    kept: list[str] = []
    rising = True
    for name, load in dumps:
        if before is not None and np.array_equal(before, load):
            continue
        rising = rising and (before is None or bool((load >= before).all()))
        total = load.copy() if total is None else total + load
        before = load
        kept.append(name)
    assert total is not None
    return total, kept, rising


def _difference(later: Callable[[], Load], earlier: Callable[[], Load]) -> Load:
    return later() - earlier()


def _on_axes(counts: LoadCounts, layers: npt.NDArray[np.int64], experts: int) -> Load:
    """Return the counts on the layers and experts of the whole recording; 0 where a dump has none."""
    load = np.zeros((len(layers), experts))
    load[np.searchsorted(layers, counts.layer_ids), : counts.num_experts] = counts.load
    return load


def time_in_name(name: str) -> float | None:
    """Return the seconds since 1970 in a file's name, as SGLang's recorder writes them."""
    found = EPOCH.findall(name)
    return float(found[-1]) if found else None


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key: text as text, numbers by value."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in DIGITS.split(name))


def _listed(names: list[str]) -> str:
    if len(names) > SHOWN:
        return f"{', '.join(names[:2])}, ..., {names[-1]}"
    return ", ".join(names)
