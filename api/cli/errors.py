"""Errors of the library as the command line tells them: the options by their flags, what to do on a line of its own."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING

from api.cli.knobs import knobs_of
from api.cli.reading import TraceReading
from solvers.advising.request import AdviceRequest
from solvers.failures.request import FailureRequest
from solvers.grouping.request import GroupRequest
from solvers.mixtures.request import MixtureRequest
from solvers.policies.request import PolicyRequest
from solvers.replanning.request import ReplanRequest
from solvers.requests.request import FrontRequest, Request
from solvers.residency.request import ResidencyRequest

if TYPE_CHECKING:
    from traces import Violation

__all__ = ["flag_of", "told", "words"]

# Options that are declared by the command that has them.
OWN = {
    "dead_gpus": "--dead-gpus",
    "executor": "--executor",
    "fill_missing": "--fill-missing",
    "force": "--force",
    "layer": "--layer",
    "model_class": "--model-class",
    "model_name": "--model-name",
    "mtp_model_class": "--mtp-model-class",
    "part": "--part",
    "pipeline_stages": "--pipeline-stages",
    "plan_format": "--plan-format",
    "prove": "--prove",
    "schedule": "--schedule",
    "server": "--server",
    "to": "--to",
    "without_mtp": "--without-mtp",
    "workers": "--workers",
}
STEP = re.compile(r"\d+|[a-z_]+")  # of what an option nests
QUOTED = re.compile(r"`(\w+)=?`")
ASSIGNED = re.compile(r"\b(\w+)=(?![\w'\"\[{])")
# A choice in quotes: those whose words are declared, and an engine to name. What somebody typed is told as it is.
CHOSEN = re.compile(
    r"(?<!no )\b(execution|dedup|ownership|replica_policy|load_groups|against|over|engine)[ =]['\"]([\w:-]+)['\"]"
)
BARE = re.compile(r"(?<![\w/.`-])[a-z]+(?:_[a-z]+)+\b(?!\.?[\w/(])")


@cache
def _flags() -> tuple[dict[str, str], dict[str, str]]:
    """Return the flags by JSON pointer, and by the name of the parameter."""
    later = (FailureRequest, GroupRequest, MixtureRequest, PolicyRequest, ReplanRequest, ResidencyRequest)
    kinds = (*later, AdviceRequest, FrontRequest, Request, TraceReading)
    knobs = tuple(knob for kind in kinds for knob in knobs_of(kind))
    pointers = {f"/{'/'.join(knob.path)}": knob.flag for knob in knobs}
    names = OWN | {knob.path[-1]: knob.flag for knob in knobs}
    return {f"/{name}": flag for name, flag in names.items()} | pointers, names


def flag_of(pointer: str) -> str | None:
    """Return the option that a pointer into a request names, with the place inside it; None if it names none.

    Violations in files point at their paths, which may begin like an option: ``/seeds/trace.npz``.
    """
    pointers, _ = _flags()
    if os.path.exists(pointer.partition("#")[0]):  # noqa: PTH110  a pointer, most often
        return None
    steps = pointer.split("/")
    for length in range(len(steps), 1, -1):
        flag = pointers.get("/".join(steps[:length]))
        if flag is not None and all(map(STEP.fullmatch, steps[length:])):
            inside = [f"no. {int(step) + 1}" if step.isdigit() else step for step in steps[length:]]
            return f"{flag} ({', '.join(inside)})" if inside else flag
    return None


def told(violation: Violation) -> str:
    """Return a violation on two lines: where and what, then what to do."""
    flag = flag_of(violation.pointer)
    detail, remedy = words(violation.detail), words(violation.remedy, bare=flag is not None)
    place = violation.pointer if flag is None else flag
    line = f"{place}: {detail} [{violation.code}]" if place else f"{detail} [{violation.code}]"
    return f"{line}\n       {remedy}" if remedy else line


def words(text: str, *, bare: bool = False) -> str:
    """Return a sentence with the flags of the parameters that it names; `bare` ones if it is about an option."""
    _, names = _flags()

    def flag(match: re.Match[str]) -> str:
        return names.get(match[1], match[0])

    def chosen(match: re.Match[str]) -> str:
        found = names.get(match[1])
        return match[0] if found is None else f"{found} {match[2].replace('_', '-')}"

    text = CHOSEN.sub(chosen, ASSIGNED.sub(flag, QUOTED.sub(flag, text)))
    return BARE.sub(lambda match: names.get(match[0], match[0]), text) if bare else text
