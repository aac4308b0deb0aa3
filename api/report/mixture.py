"""A plan for several domains as text: the held-out matrix, and whether the plan is better than simpler ones."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from api.report.tables import table

__all__ = ["mixture_text"]

WIDTH = 100
WHAT = {"worst": "worst domain", "weighted": "weighted mean", "quantile": "quantile"}


def mixture_text(found: Mapping[str, Any]) -> str:
    """Return a line per plan: its cost on held-out tokens of each domain, and what is minimised over them.

    Parameters
    ----------
    found : mapping
        A document of `solvers.Mixture.as_dict`: made here or by a service.
    """
    what, domains, plans = WHAT[found["over"]], found["domains"], found["plans"]
    header = ["plan", *(f"{name}\nheld out" for name in domains), f"{what}\nheld out", "95 %\ninterval"]
    header += ["above the mixture's\n95 % interval"]
    timed = plans["mixture"]["step_ms"] is not None
    header += [*(f"{name}\nstep ms" for name in domains), f"{what}\nstep ms"] if timed else []
    rows = [
        [
            name,
            *(f"{row['domains'][domain]['cost']:.4f}" for domain in domains),
            f"{row['target']:.4f}",
            _interval(row["interval"], ".4f"),
            "" if name == "mixture" else _interval(row["above_mixture"], "+.4f"),
            *(f"{row['domains'][domain]['step_ms']:.4g}" for domain in domains if timed),
            *([f"{row['step_ms']:.4g}"] if timed else []),
        ]
        for name, row in plans.items()
    ]
    lines = [_sentence(plans, what), "", table(header, rows), ""]
    lines.append(f"Cost: {found['unit']}.")
    known = found["bound"]
    lines.append(
        f"On the tokens to fit its {what} costs {known['cost']:.4f}, and no plan less than {known['bound']:.4f} "
        f"(gap {known['gap']:.1%})."
    )
    if found["pools"] is not None:
        lines += _pools(found["pools"])
    if found["found_by"] == "round":  # where another plan was taken, a note says which
        best = min(found["rounds"], key=lambda each: each["target"])
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(domains, best["weights"], strict=True))
        number = found["rounds"].index(best) + 1
        lines.append(f"Found with the weights {weights}, in round {number} of {len(found['rounds'])}.")
    lines += [textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in found["notes"]]
    return "\n".join(lines)


def _interval(ends: list[float], form: str) -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def _pools(pools: Mapping[str, Any]) -> list[str]:
    """Return whether pools pay, and which ones."""
    if pools["together_ms"] is None:
        return [pools["reason"]]
    which = "; ".join(f"{', '.join(pool['domains'])} on {len(pool['gpus'])} GPUs" for pool in pools["pools"])
    return [
        f"{pools['reason']} A pass of all takes {pools['together_ms']:.4g} ms under one plan, as many tokens in pools "
        f"{pools['apart_ms']:.4g} ms (saved {pools['saved']:+.1%}, 95 %: {_interval(pools['interval'], '+.1%')}): "
        f"{which}."
    ]


def _sentence(plans: Mapping[str, Any], what: str) -> str:
    name = min((each for each in plans if each != "mixture"), key=lambda each: plans[each]["target"])
    other = plans[name]
    if plans["mixture"]["target"] >= other["target"]:
        return f"The plan {name!r} is no worse by its {what} on held-out tokens: use that one."
    if other["above_mixture"][0] <= 0:
        return f"By its {what}, the plan is ahead of {name!r} by less than the noise of the held-out tokens."
    return f"By its {what} on held-out tokens, the plan is ahead of all others, {name!r} being next."
