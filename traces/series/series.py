"""Traces and counts in time, as one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.formats import load
from traces.formats.shared.dumps import time_in_name
from traces.provenance import Provenance
from traces.series.cutting import Slices, cut, each_whole, source_missing
from traces.series.window import Window
from traces.support.declared import check_word
from traces.support.errors import InputError, Violations
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, number, runs
from traces.support.words import CutBy
from traces.trace import Trace

__all__ = ["Series"]

Floats = npt.NDArray[np.float64]
WINDOWS = 10  # of a trace that nothing else cuts
MOST = 1000


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Series(Shown):
    """Ordered windows in time, each of tokens or of counts, all of the same layers and experts.

    Attributes
    ----------
    windows : tuple of Window
        In order of time, at least two.
    layer_ids : (L,) int64
    num_experts : int
    provenance : Provenance
        Of the source, with notes on how it was cut.
    """

    MADE_BY = "Use traces.Series.of(trace, windows=10), or give it dumps over time."

    windows: tuple[Window, ...]
    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    provenance: Provenance

    @classmethod
    @checked
    def of(
        cls,
        source: Trace | LoadCounts | str | Path | Sequence[str | Path],
        *,
        windows: int | None = None,
        by: CutBy | None = None,
        **options: Any,
    ) -> Series:
        """Cut a source into windows in time.

        Parameters
        ----------
        source : Trace, LoadCounts, path or paths
            Paths are loaded by `traces.load`: several files of counts are dumps over time, several of tokens are one
            trace with a source each.
        windows : int, optional
            How many, 2 to 1,000. By default, one per dump, or one per source where tokens come from several, or 10.
            Fewer than there are dumps: neighbours are joined, as evenly as can be.
        by : {"tokens", "source"}, optional
            How tokens are cut: into equal runs of consecutive tokens, or into windows of one source each, which take
            turns. Sequences are not cut where their tokens are consecutive. By default, by source where there are
            several, else by tokens.
        **options
            Of `traces.load`, where paths are given: model, format and others.

        Raises
        ------
        InputError
            If the source breaks a rule, holds one point in time only, or can't be cut in this way.
        """
        check_word("by", by, CutBy)
        if windows is not None and not 2 <= windows <= MOST:
            raise InputError.of("windows_range", "/windows", f"{windows} windows.", f"Give 2 to {MOST:,}.")
        if isinstance(source, Trace | LoadCounts) and options:
            detail = "They say how to read files, and the source is read already."
            raise InputError.of("without_effect", f"/{next(iter(options))}", detail, "Leave them out.")
        opened = source if isinstance(source, Trace | LoadCounts) else load(source, **options)
        if isinstance(opened, LoadCounts):
            return cls._of_dumps(opened, windows, by)
        if not isinstance(source, Trace | LoadCounts | str | Path):
            files = list(source)
            if len(files) > 1 and by is None and windows in (None, len(files)):
                return cls._of_files(opened, files, options)
        return cls._of_tokens(opened, windows, by)

    @classmethod
    def _of_tokens(cls, trace: Trace, windows: int | None, by: CutBy | None) -> Series:
        if by == "source" and "data_source" not in trace.columns:
            raise source_missing(trace)
        slices = None
        if by != "tokens" and "data_source" in trace.columns:
            slices = Slices.of(trace, windows, by_source=True) if by or windows is None else _if_several(trace, windows)
            if slices is not None and slices.count < 2:
                slices = None
        if slices is None and by != "source":
            slices = Slices.of(trace, WINDOWS if windows is None else windows, by_source=False)
        if slices is None:
            detail = "All tokens come from one source, and one window is no series."
            raise InputError.of("no_sources", "/by", detail, "Say how many windows, or cut by tokens.")
        how = "one source each, in turn" if slices.by_source else "equal runs of consecutive tokens"
        note = f"{slices.count} windows over time, of {how}."
        return cls(
            windows=cut(trace, slices),
            layer_ids=trace.layer_ids,
            num_experts=trace.num_experts,
            provenance=trace.provenance.noting(note),
        )

    @classmethod
    def _of_files(cls, joined: Trace, paths: Sequence[str | Path], options: dict[str, Any]) -> Series:
        """Return a window per file; `joined` is all of them, and has told whether they go together."""
        names = [Path(path).name for path in paths]
        opened: list[Trace] = []
        axes = {name: value for name, value in options.items() if name not in ("model", "layers")}
        for path in paths:
            trace = load(path, **(axes | {"num_experts": joined.num_experts, "layer_ids": joined.layer_ids}))
            assert isinstance(trace, Trace)
            opened.append(trace)
        found = each_whole(opened, names)
        times = [time_in_name(name) for name in names]
        if None not in times:
            found = tuple(replace(window, time=time) for window, time in zip(found, times, strict=True))
        return cls(
            windows=found,
            layer_ids=joined.layer_ids,
            num_experts=joined.num_experts,
            provenance=joined.provenance.noting(f"{len(found)} windows over time, of one file each, in this order."),
        )

    @classmethod
    def _of_dumps(cls, counts: LoadCounts, windows: int | None, by: CutBy | None) -> Series:
        if by is not None:
            detail = "Counts have no tokens to cut: their windows are the dumps."
            raise InputError.of("without_effect", "/by", detail, "Leave it out.")
        total = len(counts.dumps)
        if total < 2:
            detail = f"{counts.provenance.source} holds counts of one point in time."
            remedy = "Give several dumps over time: a folder, or a pattern such as dumps/*.pt."
            raise InputError.of("one_dump", "/windows", detail, remedy)
        wanted = min(total, MOST) if windows is None else windows
        if wanted > total:
            detail = f"{total} dumps make no {wanted} windows."
            raise InputError.of("windows_range", "/windows", detail, f"Give at most {total}.")
        found, made = Violations(), []
        for group in np.array_split(np.arange(total), wanted):
            dumps = [counts.dumps[index] for index in group]
            parts = np.stack([dump.read() for dump in dumps])
            name = dumps[0].name if len(dumps) == 1 else f"{dumps[0].name} to {dumps[-1].name}"
            whole = parts.sum(axis=0)
            if empty := counts.layer_ids[~whole.any(axis=1)].tolist():
                detail = f"It has no counts in layers {runs(empty)}."
                found.add("zero_tokens", name, detail, "Give fewer windows, or leave these layers out.")
            made.append(Window(name=name, time=dumps[0].time, load=whole, parts=parts))
        found.raise_if_any()
        each = "one dump each" if wanted == total else f"{total} dumps"
        return cls(
            windows=tuple(made),
            layer_ids=counts.layer_ids,
            num_experts=counts.num_experts,
            provenance=counts.provenance.noting(f"{wanted} windows over time, of {each}."),
        )

    def __len__(self) -> int:
        return len(self.windows)

    def _shown(self) -> tuple[str, Facts]:
        what = "tokens" if self.has_tokens else "counts"
        facts = {
            "layers": f"{len(self.layer_ids)} ({runs(self.layer_ids.tolist())}), {self.num_experts} experts each",
            "assignments": f"{number(float(sum(window.load.sum() for window in self.windows)))} in all",
            "first, last": f"{self.windows[0].name}, {self.windows[-1].name}",
            "times": "known" if self.times is not None else "only the order is known",
            "source": str(self.provenance),
        }
        return f"Series of {len(self)} windows of {what}", facts

    @property
    def has_tokens(self) -> bool:
        """Whether windows have tokens, and not counts alone."""
        return self.windows[0].tokens is not None

    @property
    def shares(self) -> Floats:
        """Share of each layer's assignments by window and expert, (W, L, E)."""
        return np.stack([window.shares for window in self.windows])

    @property
    def times(self) -> Floats | None:
        """When the windows were recorded, (W,); None where one does not say it."""
        said = [window.time for window in self.windows if window.time is not None]
        return np.array(said) if len(said) == len(self) else None

    def counts(self, load: npt.ArrayLike, note: str) -> LoadCounts:
        """Return loads on the layers of the series as counts, to plan for.

        Parameters
        ----------
        load : (L, E) numbers
        note : str
            What they are.
        """
        return LoadCounts.of(load, layer_ids=self.layer_ids, provenance=self.provenance.noting(note))


def _if_several(trace: Trace, windows: int) -> Slices | None:
    """Return slices by source, None where there is one source only, or more than windows."""
    try:
        slices = Slices.of(trace, windows, by_source=True)
    except InputError:
        return None
    return slices if len(slices.tokens) > 1 else None
