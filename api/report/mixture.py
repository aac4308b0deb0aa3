"""A plan for several domains as text: the held-out matrix, and whether the plan is better than simpler ones."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from api.report.tables import table

if TYPE_CHECKING:
    from solvers import Mixture

__all__ = ["mixture_text"]

WIDTH = 100
WHAT = {"worst": "worst domain", "weighted": "weighted mean", "quantile": "quantile"}


def mixture_text(found: Mixture) -> str:
    """Return a line per plan: its cost on held-out tokens of each domain, and what is minimised over them."""
    what = WHAT[found.request.over]
    header = ["plan", *(f"{name}\nheld out" for name in found.domains), f"{what}\nheld out", "95 %\ninterval"]
    header += ["above the mixture's\n95 % interval"]
    timed = found.rows[0].step_ms is not None
    header += [*(f"{name}\nstep ms" for name in found.domains), f"{what}\nstep ms"] if timed else []
    rows = [
        [
            row.name,
            *(f"{row.cells[name].cost:.4f}" for name in found.domains),
            f"{row.target:.4f}",
            f"{row.low:.4f} to {row.high:.4f}",
            "" if row is found.rows[0] else f"{row.above_low:+.4f} to {row.above_high:+.4f}",
            *(f"{cell.step_ms:.4g}" for cell in row.cells.values() if cell.step_ms is not None),
            *([] if row.step_ms is None else [f"{row.step_ms:.4g}"]),
        ]
        for row in found.rows
    ]
    lines = [_sentence(found, what), "", table(header, rows), ""]
    lines.append(f"Cost: {found.as_dict()['unit']}.")
    known = found.bound
    lines.append(
        f"On the tokens to fit its {what} costs {known.cost:.4f}, and no plan less than {known.bound:.4f} "
        f"(gap {known.gap:.1%})."
    )
    if found.pools is not None:
        lines += _pools(found)
    best = min(found.rounds, key=lambda each: each.target)
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(found.domains, best.weights, strict=True))
    lines.append(f"Found with the weights {weights}, in round {found.rounds.index(best) + 1} of {len(found.rounds)}.")
    lines += [textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in found.notes]
    return "\n".join(lines)


def _pools(found: Mixture) -> list[str]:
    """Return whether pools pay, and which ones."""
    pools = found.pools
    assert pools is not None
    if pools.together_ms is None:
        return [pools.reason]
    which = "; ".join(
        f"{', '.join(found.domains[number] for number in pool.domains)} on {len(pool.gpus)} GPUs"
        for pool in pools.pools
    )
    return [
        f"{pools.reason} A pass of all takes {pools.together_ms:.4g} ms under one plan, as many tokens in pools "
        f"{pools.apart_ms:.4g} ms (saved {pools.saved:+.1%}, 95 %: {pools.low:+.1%} to {pools.high:+.1%}): {which}."
    ]


def _sentence(found: Mixture, what: str) -> str:
    ours, rest = found.rows[0], found.rows[1:]
    other = min(rest, key=lambda row: row.target)
    if ours.target >= other.target:
        return f"The plan {other.name!r} is no worse by its {what} on held-out tokens: use that one."
    if other.above_low <= 0:
        return f"By its {what}, the plan is ahead of {other.name!r} by less than the noise of the held-out tokens."
    return f"By its {what} on held-out tokens, the plan is ahead of all others, {other.name!r} being next."
