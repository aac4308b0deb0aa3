"""What commands tell of plans: tables before/after and the sentences around them, at most 100 columns wide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from api.report.figures import (
    change_of,
    evaluations_of,
    parts_of,
    replayed_figures,
    shown_figures,
    table_cells,
    tokens_of,
    value_of,
)
from api.report.tables import table
from api.report.verdict import PARTS, engine_note, headline, plan_row, score_words, side_note, time_note, verdict

if TYPE_CHECKING:
    from placement import ExpectedLoads
    from solvers import Solution
    from solvers.judging.comparing import Comparison, Judged
    from solvers.judging.counted import DumpFigures
    from solvers.judging.replays import PartFigures
    from solvers.study import Study

__all__ = [
    "comparison_text",
    "dumps_text",
    "expected_text",
    "replay_text",
    "summary_text",
    "warnings_text",
]

WIDTH = 100
LONGEST_NAME = 40
CAP_MISSED = re.compile(
    r"Load cap (?P<cap>\S+) is missed in layer (?P<layer>-?\d+): (?P<what>.*max/mean) is "
    r"(?P<reached>[\d.]+); (?P<why>.*)"
)
UNREACHABLE = "no plan with these slots"


def summary_text(study: Study, solution: Solution, comparison: Comparison) -> str:
    """Return the summary of a search.

    Parameters
    ----------
    study : Study
    solution : Solution
    comparison : Comparison
        Of the study, with the solution's plan.

    Returns
    -------
    str
        What is assumed of the engine, the search, one table of figures before and after on fitted and on held-out
        tokens, and which plan is better by what; at most 100 columns wide.
    """
    row = plan_row(comparison, solution)
    before = _baseline(comparison)
    note = engine_note(study)
    blocks = [] if note is None else [_wrap(note)]
    blocks += [_wrap(headline(study.problem, solution)), _wrap(side_note(comparison, before))]
    if (taken := time_note(before, row)) is not None:
        blocks[-1] += "\n" + _wrap(taken)
    blocks[-1] += "\n" + _before_after(comparison, before, row)
    if row.dumps:
        blocks.append(dumps_text({plan.name: plan.dumps for plan in (before, row) if plan is not None}))
    if before is not None and before is not row:
        blocks.append(_wrap(verdict(comparison, row)))
    return "\n\n".join(blocks)


def dumps_text(plans: Mapping[str, Sequence[DumpFigures]]) -> str:
    """Return the busiest GPU's expected load at each time of counts that were dumped several times, a row per dump.

    Parameters
    ----------
    plans : mapping of str to sequence of DumpFigures
        By the name of the plan; the same dumps of each.
    """
    dumps = next(iter(plans.values()))
    rows = [
        [
            _end_of(dump.name),
            PARTS.get(dump.part, dump.part),
            *(f"{found[number].loads.imbalance_max_over_mean:.3f}" for found in plans.values()),
        ]
        for number, dump in enumerate(dumps)
    ]
    title = "Busiest GPU's expected load / mean load, by dump in order of time:"
    return f"{title}\n{table(['dump', 'part', *_short(list(plans))], rows, left=2)}"


def _end_of(name: str) -> str:
    """Return a name that fits a column: its end, which tells dumps apart."""
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def comparison_text(comparison: Comparison) -> str:
    """Return plans side by side, the baseline first, with differences to it, and the best one.

    Parameters
    ----------
    comparison : Comparison

    Returns
    -------
    str
        A table per part of the trace, broken where it would be wider than 100 columns, and the winner.
    """
    before = _baseline(comparison)
    rows = sorted(comparison.rows, key=lambda row: row is not before)
    names = _short([row.name for row in rows])
    parts = parts_of(comparison)
    blocks = []
    for part in parts:
        if part is None or part in rows[0].counts:
            of = "" if part is None else f" of {PARTS.get(part, part)} dumps"
            title = f"Expected load{of}, from counts alone (traffic needs a trace with tokens):"
        else:
            title = f"{PARTS.get(part, part).capitalize()} tokens ({tokens_of(comparison, part):,}):"
        blocks.append(f"{title}\n{_side_by_side(comparison, part, rows, names)}")
    if rows[0].dumps:
        blocks.append(dumps_text({row.name: row.dumps for row in rows}))
    blocks.append(_wrap(_winner(comparison, rows, before)))
    return "\n\n".join(blocks)


def replay_text(part: str, plans: Mapping[str, PartFigures]) -> str:
    """Return the figures of plans on one part of a trace, which no problem scores; they may be of several machines."""
    found = [item.evaluation for item in plans.values()]
    title = f"{PARTS.get(part, part).capitalize()} tokens ({found[0].tokens:,}):"
    columns = [
        [["\n".join(_halves(figure.words.strip())), *(figure.show(figure.of(item)) for item in found)]]
        for figure in replayed_figures(found)
    ]
    return f"{title}\n{_blocks(_short(list(plans)), columns)}"


def expected_text(plans: Mapping[str, ExpectedLoads], dumps: Mapping[str, Sequence[DumpFigures]]) -> str:
    """Return what plans make of counts: expected loads in all, and by dump where there are several."""
    found = list(plans.values())
    title = f"Expected load of {found[0].layers} layers, from counts alone (traffic needs a trace with tokens):"
    names = ("imbalance_max_over_mean", "balancedness_whole_trace", "imbalance_trtllm")
    header = ["plan", "busiest GPU /\nmean load", "balancedness\n(vLLM)", "imbalance\n(TensorRT-LLM)"]
    rows = [
        [name, *(f"{getattr(loads, figure):.3f}" for figure in names)]
        for name, loads in zip(_short(list(plans)), found, strict=True)
    ]
    blocks = [f"{title}\n{table(header, rows)}"]
    if dumps and any(dumps.values()):
        blocks.append(dumps_text(dumps))
    return "\n\n".join(blocks)


def warnings_text(warnings: Iterable[str]) -> list[str]:
    """Return warnings for people: those of one kind are one sentence, with their number and the worst case."""
    missed: dict[str, list[re.Match[str]]] = {}
    others: dict[str, list[str]] = {}
    for warning in warnings:
        if (match := CAP_MISSED.fullmatch(warning)) is not None:
            missed.setdefault(match["what"], []).append(match)
        else:
            others.setdefault(re.sub(r"\d+(\.\d+)?", "#", warning), []).append(warning)
    texts = [_caps_missed(found) for found in missed.values()]
    for alike in others.values():
        more = "" if len(alike) == 1 else f" (And {len(alike) - 1} more like this.)"
        texts.append(alike[0] + more)
    return texts


def _baseline(comparison: Comparison) -> Judged | None:
    return next((row for row in comparison.rows if row.name == comparison.baseline), None)


def _wrap(text: str) -> str:
    return "\n".join(fill(line, WIDTH, break_long_words=False, break_on_hyphens=False) for line in text.split("\n"))


def _before_after(comparison: Comparison, before: Judged | None, row: Judged) -> str:
    header = [""]
    for part in parts_of(comparison):
        title = "expected" if part is None else PARTS.get(part, part)
        header += [f"{title}\nplan"] if before is None else [f"{title}\nbefore", "\nafter", "\nchange"]
    cells = table_cells(comparison.problem, before, row)
    return table(header, [[item.words, *(cell for part in item.parts for cell in part)] for item in cells])


def _side_by_side(comparison: Comparison, part: str | None, rows: Sequence[Judged], names: Sequence[str]) -> str:
    """Return a table of plans, in as many blocks as fit the width."""
    problem, before = comparison.problem, _baseline(comparison)
    found = evaluations_of(rows, part)
    columns = []
    for figure in shown_figures(problem, found):
        values = [figure.show(value_of(row, part, figure)) for row in rows]
        changes = []
        for row in rows:
            change = None if before is None or row is before else change_of(before, row, part, figure)
            changes.append("" if change is None else change.cell)
        title = "\n".join(_halves(figure.words.strip()))
        columns.append([[title, *values], *([["\nchange", *changes]] if any(changes) else [])])
    return _blocks(names, columns)


def _blocks(names: Sequence[str], columns: Sequence[list[list[str]]]) -> str:
    """Return columns, those of a figure together, below each other where they would be too wide beside each other."""
    blocks: list[list[list[str]]] = []
    for column in columns:
        if not blocks or _width([["plan", *names], *blocks[-1], *column]) > WIDTH:
            blocks.append([])
        blocks[-1] += column
    return "\n\n".join(
        table(
            ["plan", *(column[0] for column in block)], list(zip(names, *(column[1:] for column in block), strict=True))
        )
        for block in blocks
    )


def _winner(comparison: Comparison, rows: Sequence[Judged], before: Judged | None) -> str:
    best = comparison.best
    others = sorted((row for row in rows if row is not best), key=lambda row: row.score)
    text = f"Lowest score: {best.name}, {score_words(best.score)}"
    if others:
        second = others[0]
        if second.score - best.score <= 1e-9 * second.score:
            text = f"Lowest score: {best.name} and {second.name} alike, {score_words(best.score)}"
        else:
            text += f"; next is {second.name}, {score_words(second.score)}"
    if before is None:
        return f"{text}."
    if best is before:
        return f"{text}. No plan here beats the baseline."
    return f"{text}.\n{verdict(comparison, best)}"


def _caps_missed(found: Sequence[re.Match[str]]) -> str:
    if len(found) == 1:
        return found[0].string
    worst = max(found, key=lambda item: float(item["reached"]) / float(item["cap"]))
    caps = {item["cap"] for item in found}
    cap = f"Load cap {worst['cap']} is" if len(caps) == 1 else "Load caps are"
    text = (
        f"{cap} missed in {len(found)} layers, worst in layer {worst['layer']}: {worst['what']} is {worst['reached']}"
    )
    text += f" for a cap of {worst['cap']}." if len(caps) > 1 else "."
    unreachable = sum(item["why"].startswith(UNREACHABLE) for item in found)
    if unreachable:
        which = "any" if unreachable == len(found) else f"{unreachable}"
        text += f" In {which} of them, no plan with these slots keeps it: replicas of hot experts help."
    if unreachable < len(found):
        text += f" Whether it can be kept in {'the others' if unreachable else 'them'} is not known."
    return text


def _short(names: Sequence[str]) -> list[str]:
    """Return names that fit a column; with numbers where the ends of long ones would look alike."""
    short = [name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}" for name in names]
    if len(set(short)) < len(set(names)):
        return [f"{number}: {name[-LONGEST_NAME + 5 :]}" for number, name in enumerate(short, 1)]
    return short


def _halves(words: str) -> list[str]:
    """Break a figure's words over two lines of about the same length."""
    parts = words.split()
    cut = min(range(1, len(parts) + 1), key=lambda at: max(len(" ".join(parts[:at])), len(" ".join(parts[at:]))))
    return [" ".join(parts[:cut]), " ".join(parts[cut:])]


def _width(columns: Sequence[Sequence[str]]) -> int:
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    return sum(widths) + 2 * (len(widths) - 1)
