"""Counts as a long table: a CSV with one line ``layer,expert,count`` per layer and expert, whatever its titles.

SGLang wrote ``layer_id,expert_id,count``; notebooks write what they like. The columns are found by their titles: one
that speaks of layers, one of experts, and one of counts. A column of ranks keeps the counts by source rank; columns of
steps or times are summed over. Without titles, three numbers are taken for these if every layer, in order, has a line
for each expert, once; else it can't be told from loads of three experts per layer.

References
----------
SGLang 0.4, ``expert_distribution_*.csv`` of its expert distribution recorder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.counts import LoadCounts
from traces.decoding.files import TraceFile
from traces.formats.axes import Axes
from traces.formats.hints import Hints
from traces.formats.reader import Reader
from traces.formats.shared.counts import checked_counts, grown
from traces.formats.shared.csv_lines import BOM, WIDEST, chunks_of, grids_of, is_grid, parsed, rows_of, width_of
from traces.formats.shared.csv_titles import by_titles, says_nothing, titles_of
from traces.formats.shared.matrices import MATRIX_BYTES, MAX_IDS, MAX_LAYERS
from traces.support.errors import InputError

__all__ = ["READER", "is_long"]

NUMBERED = "The first column has no title; it was left out, as it numbers the lines."
LINE = re.compile(rb"[-+.\deE,; \t]+\r?(?:\n|$)")
FIRST_TWO = (0, 1)
THREE = 3  # columns: layer, expert, count


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The columns that are read, and where layer, expert and count stand among them, and the rank if there is one."""

    width: int
    used: tuple[int, ...] | None = None  # all
    layer: int
    expert: int
    count: int
    rank: int | None
    titled: bool
    alone: bool = True
    notes: tuple[str, ...]


def is_long(file: TraceFile) -> bool:
    """Tell whether a CSV is a long table: by its titles, or by a line for every layer and expert.

    Raises
    ------
    InputError
        If lines without titles may be a long table, or the loads of as many experts per layer.
    """
    if (names := titles_of(file)) is not None:
        return len(names) == THREE or (len(names) > THREE and by_titles(names, file.name) is not None)
    if not LINE.match(file.head.removeprefix(BOM)):
        return False
    if file.size > MATRIX_BYTES and THREE <= (width := width_of(file)) <= WIDEST:
        raise _ambiguous(file, width, in_order=width == THREE)
    rows = rows_of(file)
    if rows is None or rows.shape[1] < THREE:
        return False
    layer, expert = rows[:, 0], rows[:, 1]
    if rows.shape[1] == THREE and is_grid(layer, expert) and layer.max() < MAX_LAYERS and (np.diff(layer) >= 0).all():
        return True
    grids = grids_of(rows)
    if grids or (rows.shape[1] == THREE and _may_be_pairs(rows)):
        in_order = rows.shape[1] == THREE and grids in ([], [FIRST_TWO]) and not (np.diff(expert) >= 0).all()
        raise _ambiguous(file, rows.shape[1], in_order=in_order)
    return False


def _ambiguous(file: TraceFile, width: int, *, in_order: bool) -> InputError:
    """Return the refusal of lines without titles; `in_order` if layer, expert and count may be their order."""
    which = "layer,expert,count" if in_order else "layers, experts and counts in any order"
    detail = f"Lines of {width} numbers may be {which}, or the loads of {width} experts per layer."
    named = "Say which as `format`, counts_csv or eplb, or write the title layer,expert,count."
    remedy = named if in_order else "Write titles that say layer, expert and count, or the loads as .npy or .json."
    return InputError.of("ambiguous_format", file.name, detail, remedy)


def _may_be_pairs(rows: npt.NDArray[np.float64]) -> bool:
    """Whether the first two columns can be layers and experts, and layers repeat."""
    pairs = rows[:, :2]
    whole = (pairs >= 0).all() and (pairs == np.rint(pairs)).all()
    small = pairs[:, 0].max() < MAX_LAYERS and pairs[:, 1].max() < MAX_IDS
    return bool(whole and small) and len(np.unique(pairs[:, 0])) < len(pairs)


def open_long_csv(file: TraceFile, hints: Hints) -> LoadCounts:
    """Sum all lines, in constant memory."""
    columns = _columns(file)
    load = np.zeros((0, 0))
    ranks: dict[int, npt.NDArray[np.float64]] = {}
    listed = np.zeros((0, 0))  # lines of each layer and expert
    for lines, start in chunks_of(file, skip=columns.titled):
        part = parsed(lines, columns.width, file, start, columns.used)
        layer, expert = (_ids(part, column, file.name, start) for column in (columns.layer, columns.expert))
        count = part[:, columns.count]
        if not np.isfinite(count).all() or count.min() < 0:
            row = int(np.argmax(~np.isfinite(count) | (count < 0)))
            place = f"{file.name}#line {start + row}"
            raise InputError.of("load_not_finite", place, f"Count {count[row]:g}.", "Correct the counts.")
        if layer.max() >= MAX_LAYERS:
            place = f"{file.name}#line {start + int(layer.argmax())}"
            raise InputError.of(
                "id_out_of_range", place, f"Layer {layer.max()} is beyond any model.", "Check the file."
            )
        load = grown(load, int(layer.max()) + 1, int(expert.max()) + 1, file.name)
        np.add.at(load, (layer, expert), count)
        listed = grown(listed, *load.shape, file.name)
        np.add.at(listed, (layer, expert), 1)
        if columns.rank is not None:
            _by_rank(ranks, _ids(part, columns.rank, file.name, start), layer, expert, count, load.shape, file.name)
    rows = np.flatnonzero(listed.any(axis=1))
    if not rows.size:
        raise InputError.of("zero_tokens", file.name, "There is no line of counts.", "Check the recording.")
    largest = load.shape[1] - 1
    axes = _axes(file, hints, rows, largest)
    notes = list(columns.notes)
    if absent := len(rows) * axes.num_experts - int(np.count_nonzero(listed)):
        notes.append(f"{absent} pairs of layer and expert have no line; they are taken to have no tokens.")
    if columns.alone and (again := int((listed - 1).clip(0).sum())):
        notes.append(f"{again} lines repeat a layer and expert; all were summed.")
    source = None
    if ranks and sorted(ranks) == list(range(len(ranks))):
        whole = np.stack([_wide(ranks[rank], axes.num_experts, len(load))[rows] for rank in sorted(ranks)])
        source = np.rint(whole).astype(np.int64) if (whole == np.rint(whole)).all() and whole.max() < 1 << 53 else None
    load = _wide(load, axes.num_experts)[rows]
    if columns.rank is not None:
        notes.append(
            f"Counts of {len(ranks)} ranks were summed, and kept by source rank."
            if source is not None
            else f"Counts of {len(ranks)} ranks were summed."
        )
    return checked_counts(
        file.name, "counts_csv", axes, load, f"sha256:{file.sha256()}", notes=notes, source_load=source, by_hand=True
    )


def _axes(file: TraceFile, hints: Hints, rows: npt.NDArray[np.int64], largest: int) -> Axes:
    """Return the axes: layers as the file names them, or counted from 0 where the caller has as many others."""
    named = hints.layer_ids if hints.layer_ids is not None else hints.model.moe_layers if hints.model else None
    counted = rows.tolist() == list(range(len(rows))) and named is not None
    own = None if counted and np.size(np.asarray(named)) == len(rows) else rows
    experts, counted = hints.experts, None
    if hints.lenient and type(experts) is int and experts <= largest:
        counted = largest + 1  # whoever looks at the counts tells
    elif experts is not None and (type(experts) is not int or not largest < experts <= checks.MAX_EXPERTS):
        detail = f"Expert {largest} must be below `num_experts` = {experts!r:.40}."
        remedy = "Correct `num_experts`, or check `model`; leave out the lines of experts that are not routed (a fused "
        raise InputError.of("id_out_of_range", file.name, detail, f"{remedy}shared one).")
    return Axes.settle(file, hints, len(rows), lambda: largest, layer_ids=own, num_experts=counted)


def _wide(load: npt.NDArray[np.float64], experts: int, layers: int = 0) -> npt.NDArray[np.float64]:
    return np.pad(load, ((0, max(0, layers - len(load))), (0, experts - load.shape[1])))


def _by_rank(
    ranks: dict[int, npt.NDArray[np.float64]],
    rank: npt.NDArray[np.int64],
    layer: npt.NDArray[np.int64],
    expert: npt.NDArray[np.int64],
    count: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    place: str,
) -> None:
    """Add counts to those of their ranks."""
    for number in np.unique(rank).tolist():
        if number not in ranks and (len(ranks) + 1) * shape[0] * shape[1] * 8 > MATRIX_BYTES:
            raise InputError.of("too_large", place, f"{len(ranks)} ranks and more.", "Sum over the ranks first.")
        mine = rank == number
        ranks[number] = grown(ranks.get(number, np.zeros((0, 0))), shape[0], shape[1], place)
        np.add.at(ranks[number], (layer[mine], expert[mine]), count[mine])


def _columns(file: TraceFile) -> _Columns:
    names = titles_of(file)
    if names is None:
        rows = rows_of(file)
        if rows is not None and (rows.shape[1] != THREE or ((grids := grids_of(rows)) and FIRST_TWO not in grids)):
            raise _ambiguous(file, rows.shape[1], in_order=False)
        note = "There are no titles; the columns are taken for layer, expert and count."
        return _Columns(width=3, layer=0, expert=1, count=2, rank=None, titled=False, notes=(note,))
    found = by_titles(names, file.name)
    by_order = found is None and len(names) == THREE and says_nothing(names)
    rows = rows_of(file, skip=True) if by_order else None
    if rows is not None and rows.shape[1] == THREE and is_grid(rows[:, 0], rows[:, 1]):
        note = f"The titles {', '.join(names)[:80]} are taken for layer, expert and count."
        return _Columns(width=3, layer=0, expert=1, count=2, rank=None, titled=True, notes=(note,))
    if found is None:
        detail = f"The titles {', '.join(names)[:80]} don't say layer, expert and count."
        raise InputError.of("csv_titles", f"{file.name}#line 1", detail, "Name the columns layer, expert and count.")
    other = [name for index, name in enumerate(names) if index not in found.values()]
    notes = [f"Column {name[:40]!r} was left out." if name else NUMBERED for name in other[:8]]
    if "time" in found:
        notes.append(f"Counts were summed over column {names[found['time']][:40]!r}.")
    used = [found[meaning] for meaning in ("layer", "expert", "count", "rank") if meaning in found]
    few = len(names) == THREE
    at = {meaning: index if few else used.index(index) for meaning, index in found.items() if index in used}
    return _Columns(
        width=len(names),
        used=None if few else tuple(used),
        layer=at["layer"],
        expert=at["expert"],
        count=at["count"],
        rank=at.get("rank"),
        titled=True,
        alone="rank" not in found and "time" not in found,
        notes=tuple(notes),
    )


def _ids(part: npt.NDArray[np.float64], column: int, name: str, start: int) -> npt.NDArray[np.int64]:
    """Return a column of whole numbers."""
    values = part[:, column]
    bad = ~np.isfinite(values) | (values < 0) | (values != np.rint(values)) | (values > checks.MAX_EXPERTS)
    if bad.any():
        row = int(np.argmax(bad))
        detail = f"{values[row]:g} is no number of a layer, an expert or a rank."
        raise InputError.of("csv_line", f"{name}#line {start + row}", detail, "Copy or record it again.")
    return values.astype(np.int64)


READER = Reader(
    name="counts_csv",
    content="long table of counts, one line layer,expert,count each, with any titles; loads only",
    sniff=is_long,
    open=open_long_csv,
    also_named=("sglang_csv",),
)
