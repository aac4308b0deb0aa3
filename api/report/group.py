"""Groups of requests as text: the held-out ways side by side, and the bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api.report.tables import table

if TYPE_CHECKING:
    from solvers import RequestGroups

__all__ = ["group_text"]


def group_text(found: RequestGroups) -> str:
    """Return a line per way: cost on held-out requests, interval, hops of an assignment, balance."""
    timed = found.rows[0].step_ms is not None
    header = ["way", "cost\nheld out", "95 %\ninterval", "above joint\n95 % interval", "hops", "max/mean\nload"]
    header += ["step\nms"] if timed else []
    rows = [
        [
            row.name,
            f"{row.cost:.4f}",
            f"{row.low:.4f} to {row.high:.4f}",
            "" if row is found.rows[0] else f"{row.above_low:+.4f} to {row.above_high:+.4f}",
            f"{row.hops:.4f}",
            f"{row.imbalance:.3f}",
            *([] if row.step_ms is None else [f"{row.step_ms:.4g}"]),
        ]
        for row in found.rows
    ]
    fitted = (
        f"On {found.fitted} requests to fit: a cost of {found.cost:.4f}, and no grouping and plan less than "
        f"{found.bound:.4f} (gap {found.gap:.1%}). {found.held_out} requests are held out."
    )
    unit = f"Cost: {found.unit}."
    return "\n".join([found.sentence, "", table(header, rows), "", unit, fitted])
