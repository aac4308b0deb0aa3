"""Schedules of failures and joins: what a plan goes through, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from placement import Plan, Topology
from placement.survival.domains import domain_name, failure_domains
from placement.survival.survive import FailureUnit
from solvers.failures.degraded import degraded
from traces import Violations

__all__ = ["FailureEvent", "FailureState", "events_of", "simulate_failures"]

Floats = npt.NDArray[np.float64]
What = Literal["fail", "join"]


@dataclass(frozen=True, kw_only=True)
class FailureEvent:
    """A unit that fails, or comes back.

    Attributes
    ----------
    at : float
        Time, in any unit.
    what : {"fail", "join"}
    number : int
        GPU, host or node.
    """

    at: float
    what: What
    number: int


@dataclass(frozen=True, kw_only=True)
class FailureState:
    """After an event.

    Attributes
    ----------
    event : FailureEvent
    gpus : int
        That are left.
    lost : int
        Experts of all layers whose last copy the event took: they are loaded from a host or a disk.
    loaded : int
        Slots that get another expert at the event, these included; after a join, the slots of the GPUs that came back
        as well.
    serving : bool
        Whether all experts are there again.
    largest_load : float or None
        See `Degraded`; None where not.
    """

    event: FailureEvent
    gpus: int
    lost: int
    loaded: int
    serving: bool
    largest_load: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        own = {name: getattr(self, name) for name in ("gpus", "lost", "loaded", "serving", "largest_load")}
        return {"at": self.event.at, self.event.what: self.event.number} | own


def events_of(content: Any) -> tuple[FailureEvent, ...]:
    """Return the events of a schedule as JSON has it: ``[{"at": 10, "fail": 3}, {"at": 50, "join": 3}]``.

    Raises
    ------
    InputError
        With every violation.
    """
    found = Violations()
    events = []
    if not isinstance(content, list) or not content:
        found.add("schedule_form", "/schedule", "A schedule is a list of events.", 'Give [{"at": 10, "fail": 3}], say.')
        found.raise_if_any()
    for place, item in enumerate(content):
        what = [name for name in ("fail", "join") if isinstance(item, Mapping) and name in item]
        if len(what) != 1 or set(item) != {"at", what[0]}:
            remedy = 'Give {"at": 10, "fail": 3} or {"at": 50, "join": 3}.'
            detail = "An event has a time and one unit that fails or joins."
            found.add("schedule_form", f"/schedule/{place}", detail, remedy)
            continue
        at, number = item["at"], item[what[0]]
        right = isinstance(at, (int, float)) and not isinstance(at, bool) and np.isfinite(at)
        if not right or not isinstance(number, int) or isinstance(number, bool) or number < 0:
            detail = "Times are numbers, units whole ones from 0."
            found.add("schedule_form", f"/schedule/{place}", detail, "Correct the event.")
            continue
        events.append(FailureEvent(at=float(at), what="fail" if what[0] == "fail" else "join", number=number))
    found.raise_if_any()
    return tuple(events)


def simulate_failures(
    plan: Plan, topology: Topology, unit: FailureUnit, events: Iterable[FailureEvent], load: Floats | None = None
) -> tuple[FailureState, ...]:
    """Take a plan through failures and joins, in order of time.

    When a unit fails, lost experts are loaded into slots that can be spared (see `degraded`). When one comes back, the
    plan returns to its map as far as its GPUs are there: slots that were given to others are loaded again.

    Parameters
    ----------
    plan : Plan
    topology : Topology
    unit : {"gpus", "hosts", "nodes", "links"}
        What the events number.
    events : iterable of FailureEvent
    load : (L, E) float64, optional

    Raises
    ------
    InputError
        If a unit is not there, fails or joins twice, or no GPU is left.
    """
    domain, name = failure_domains(topology, unit), domain_name(topology, unit)
    ordered = sorted(events, key=lambda event: event.at)
    _check(ordered, int(domain.max()) + 1, name)
    target = plan.physical_to_logical_map.reshape(plan.num_layers, plan.num_gpus, -1)
    running = target.copy()
    down: set[int] = set()
    states = []
    for event in ordered:
        if event.what == "fail":
            down.add(event.number)
        else:
            down.discard(event.number)
        failed = np.flatnonzero(np.isin(domain, list(down)))
        up = np.setdiff1d(np.arange(plan.num_gpus), failed)
        before = running.copy()
        if event.what == "join":
            running[:, up] = target[:, up]
            before[:, domain == event.number] = -1  # what they held is gone
        now = degraded(_with(plan, running), topology, failed.tolist(), load)
        if now.plan is not None:
            running[:, up] = now.plan.physical_to_logical_map.reshape(plan.num_layers, len(up), -1)
        changed = (running != before)[:, up] & (running[:, up] >= 0)
        states.append(
            FailureState(
                event=event,
                gpus=len(up),
                lost=_lost(before[:, up], plan.num_experts),
                loaded=int(changed.sum()),
                serving=now.possible,
                largest_load=now.largest_load,
            )
        )
    return tuple(states)


def _with(plan: Plan, table: npt.NDArray[np.int32]) -> Plan:
    return plan.replacing(physical_to_logical_map=table.reshape(plan.num_layers, -1))


def _lost(table: npt.NDArray[np.int32], experts: int) -> int:
    """Return how many experts of all layers are nowhere in a map, (L, G, C)."""
    there = np.zeros((len(table), experts + 1), bool)  # the last column is that of empty slots
    np.put_along_axis(there, table.reshape(len(table), -1).astype(np.int64), values=True, axis=1)
    return int((~there[:, :-1]).sum())


def _check(events: list[FailureEvent], units: int, name: str) -> None:
    found = Violations()
    down: set[int] = set()
    for place, event in enumerate(events):
        if event.number >= units:
            detail = f"{name} {event.number} is not in 0..{units - 1}."
            found.add("unit_range", f"/schedule/{place}", detail, f"Correct the {name}.")
        elif (event.number in down) == (event.what == "fail"):
            state = "down already" if event.what == "fail" else "up"
            detail = f"{name} {event.number} {event.what}s at {event.at:g}, but it is {state}."
            found.add("schedule_order", f"/schedule/{place}", detail, "Correct the schedule.")
        (down.add if event.what == "fail" else down.discard)(event.number)
        if len(down) >= units:
            found.add("survive_none_left", f"/schedule/{place}", f"No {name} is left.", "Let fewer fail at once.")
    found.raise_if_any()
