"""Residency as text: what to do, a row per policy, and what was assumed."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from api.report.tables import table

if TYPE_CHECKING:
    from solvers import PolicyFigures, Residency

__all__ = ["residency_text"]

WIDTH = 100
BUDGETS = {"shared": "one cache", "equal": "equal", "by_gain": "by gain"}


def residency_text(found: Residency) -> str:
    """Return what was found about residency."""
    header = [
        "policy",
        "hits",
        "of these\nahead",
        "moved\nper step",
        f"step\n{found.unit}",
        "waits\n" + found.unit,
        "slots",
    ]
    rows = [_row(each, found) for each in found.policies]
    judged = f"{found.steps:,} steps of {found.batch_tokens} {found.phase} token{'s' * (found.batch_tokens > 1)}"
    notes = [f"Judged on {judged}, {found.accesses:,} accesses.", *found.notes]
    notes += [f"{each.name}: {each.summary}." for each in found.policies]
    bullets = [textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ") for text in notes]
    return "\n".join([found.sentence, "", table(header, rows), "", *bullets])


def _row(each: PolicyFigures, found: Residency) -> list[str]:
    mark = " (best)" if each.name == found.best else "" if each.practical else " (reference)"
    return [
        each.name + mark,
        f"{each.hit_rate:.1%}",
        f"{each.prefetch_hit_rate:.1%}",
        f"{each.transfers_per_step:.4g}",
        f"{each.step:.4g}",
        f"{each.waited:.4g}",
        BUDGETS[each.budget],
    ]
