"""What a search and a comparison come to, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.cli.view import Row, balance_table, figure_tables, headline, rows_of

if TYPE_CHECKING:
    from solvers import Comparison, Solution, Study
    from solvers.comparing import PartFigures

__all__ = ["comparison_text", "replay_text", "summary_text"]


def summary_text(study: Study, solution: Solution, comparison: Comparison) -> str:
    """Return what was found, and the figures of the plan beside those of the baseline."""
    return f"{headline(study.problem, solution)}\n\n{comparison_text(comparison)}"


def comparison_text(comparison: Comparison) -> str:
    """Return the figures of plans side by side."""
    rows = rows_of(comparison.rows)
    return figure_tables(rows) if rows else balance_table(comparison.as_dict())


def replay_text(part: str, plans: dict[str, PartFigures]) -> str:
    """Return the figures of plans on one part of a trace, which no problem scores."""
    return figure_tables([Row(part, name, found) for name, found in plans.items()])
