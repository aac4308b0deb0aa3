"""A re-plan as text: the verdict first, then why, the plans between, and the steps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from api.report.tables import table
from solvers.replanning.result import replan_sentence

__all__ = ["replan_text"]

WIDTH = 100
SHOWN = 20  # steps


def replan_text(found: Mapping[str, Any]) -> str:
    """Return a re-plan as text, of a document of `solvers.Replan.as_dict`: made here or by a service."""
    lines = [replan_sentence(found), ""]
    lines += [
        textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for text in found["reasons"]
    ]
    header = ["experts\nmoved", "between\nnodes", "GB", found["unit"], "gain", "transfers\ns", ""]
    rows = [
        [
            f"{point['moved_experts']:,}",
            f"{point['between_nodes']:,}",
            "-" if point["moved_bytes"] is None else f"{point['moved_bytes'] / 1e9:.3g}",
            f"{point['value']:.5g}",
            "-" if point["gain_fraction"] is None else f"{100 * point['gain_fraction']:+.1f} %",
            "-" if point["transfer_s"] is None else f"{point['transfer_s']:.3g}",
            "chosen" if point["chosen"] else "",
        ]
        for point in found["front"]
    ]
    lines += ["", "Plans between, on the part that they were fitted on:", table(header, rows)]
    best = found["best_plan"]
    names = f"{best['moved_with_relabelling']:,} experts; under the names of the search it would be"
    lines += ["", f"The best plan that was found moves {names} {best['moved_without_relabelling']:,}."]
    steps = found["steps"]
    if steps:
        header = ["step", "layers", "experts\nmoved", "staged\nper GPU", "transfers\ns", "way back\ns"]
        rows = [
            [
                str(step["step"]),
                str(len(step["layers"])),
                f"{step['moved_experts']:,}",
                str(step["staging_experts"]),
                "-" if step["transfer_s"] is None else f"{step['transfer_s']:.3g}",
                "-" if step["back_transfer_s"] is None else f"{step['back_transfer_s']:.3g}",
            ]
            for step in steps[:SHOWN]
        ]
        lines += ["", table(header, rows)]
        if len(steps) > SHOWN:
            lines.append(f"... and {len(steps) - SHOWN} more steps.")
    return "\n".join(lines)
