"""An advice as text: the verdict first, before and after, why, and what else could be done."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from api.report.tables import table
from solvers.advising.advice import percent, sentence

if TYPE_CHECKING:
    from solvers import Advice, TwoPhases

__all__ = ["advice_text", "both_text"]

WIDTH = 100


def advice_text(advice: Advice) -> str:
    """Return the advice on one phase."""
    lines = [sentence(advice), ""]
    rows = []
    for name, (before, after) in advice.parts().items():
        change = "" if not before else percent(after / before - 1)
        rows.append([name, f"{before:.4g}", f"{after:.4g}", change])
    lines += [table([f"{advice.phase} step\non {advice.machine}", "before\nms", "after\nms", "change"], rows), ""]
    lines += _bullets(advice.reasons)
    if advice.alternatives:
        header = ["alternative", "step\nms", "gain", "experts\nGB per GPU"]
        rows = [
            [
                each.name,
                "-" if each.step_ms is None else f"{each.step_ms:.4g}",
                "-" if each.gain_fraction is None else percent(each.gain_fraction),
                "-" if each.memory_gb is None else f"{each.memory_gb:.1f}",
            ]
            for each in advice.alternatives
        ]
        lines += ["", table(header, rows), ""]
        lines += _bullets([f"{each.name}: {each.detail}" for each in advice.alternatives])
    return "\n".join(lines)


def both_text(both: TwoPhases) -> str:
    """Return the advice on both phases."""
    first = "\n".join(f"{name}: {sentence(advice)}" for name, advice in both.phases.items())
    parts = [first, "\n".join(_bullets(both.reasons))]
    parts += [f"== {name} ==\n{advice_text(advice)}" for name, advice in both.phases.items()]
    return "\n\n".join(parts)


def _bullets(texts: list[str] | tuple[str, ...]) -> list[str]:
    return [textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ") for text in texts]
