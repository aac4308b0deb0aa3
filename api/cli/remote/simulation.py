"""``simulate --server``: the windows are sent, as one trace or as a series, and the service simulates."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from api.cli.remote.jobs import check_end
from api.cli.remote.service import body_of, service_at
from api.cli.remote.trace import is_trace, send_trace

if TYPE_CHECKING:
    from api.cli.progress import Progress
    from api.client import Client
    from placement import Plan

__all__ = ["is_series", "simulate_remotely"]


def is_series(text: str | Path) -> bool:
    """Whether this is the id of a series of a service, rather than a file."""
    return re.fullmatch(r"series_[0-9a-f]{32}", str(text)) is not None


def simulate_remotely(
    server: str, traces: Sequence[Path], reading: dict[str, Any], body: dict[str, Any], *, shown: Progress
) -> tuple[dict[str, Any], Plan]:
    """Upload windows and have a service simulate policies over them.

    Parameters
    ----------
    server : str
        URL of the service.
    traces : sequence of Path
        Files; ids of traces of the service, or that of a series.
    reading : dict
        Keyword arguments of `traces.load`.
    body : dict
        What was asked, as a request for a simulation says it, but the windows.
    shown : Progress

    Returns
    -------
    document, plan
        See `solvers.Simulation.as_dict`, with the simulation's ``id`` and that of its ``trace`` or ``series``; and the
        plan that the gate would run next.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    """
    from placement import Plan

    with service_at(server) as service:
        from api.resources.simulations.body import SimulationBody

        shown.phase("uploading")
        asked = _sent(service, traces, reading, body) | body
        shown.phase("waiting for the service")
        done = service.simulate(body_of(SimulationBody, asked))
    check_end(done, server)
    assert done.simulation is not None
    assert done.plan is not None
    document = done.simulation.model_dump(mode="json")
    return document | {"id": done.id, "trace": done.trace, "series": done.series}, Plan.from_dict(done.plan)


def _sent(service: Client, paths: Sequence[Path], reading: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Upload what is simulated on, and return it as a request names it.

    As `traces.Series.of` takes several files: one window of each of tokens, where nothing else is asked; else they are
    one recording, which a service takes packed.
    """
    from traces import Trace, load

    if len(paths) == 1:
        if not is_series(paths[0]):
            return {"trace": send_trace(service, paths[0], reading)}
        _refuse_known(reading)
        return {"series": str(paths[0])}
    if all(map(is_trace, paths)):
        _refuse_known(reading)
        return {"series": _series(service, paths, reading)}
    opened = load(list(paths), **reading)  # the whole is checked as it is without a service
    if isinstance(opened, Trace) and body.get("by") is None and body.get("windows") in (None, len(paths)):
        return {"series": _series(service, paths, reading)}
    with TemporaryDirectory() as folder:
        packed = Path(folder) / "windows.tar"
        with tarfile.open(packed, "w") as archive:
            for name, path in zip(_members([path.name for path in paths]), paths, strict=True):
                archive.add(path, name)
        return {"trace": send_trace(service, packed, reading)}


def _members(names: list[str]) -> list[str]:
    """Return names under which an archive, whose members are read by name, keeps the order that was given."""
    if names == sorted(set(names)):
        return names
    digits = len(str(len(names)))
    return [f"{number:0{digits}}-{name}" for number, name in enumerate(names)]


def _series(service: Client, paths: Sequence[Path], reading: dict[str, Any]) -> str:
    from api.resources.series.bodies import SeriesBody, WindowBody
    from traces.formats.shared.dumps import time_in_name

    made = service.begin_series(SeriesBody()).id
    times = [time_in_name(path.name) for path in paths]
    known = None not in times and not any(map(is_trace, paths))
    for path, time in zip(paths, times, strict=True):
        trace = send_trace(service, path, reading)
        service.add_window(made, WindowBody(trace=trace, time=time if known else None))
    return made


def _refuse_known(reading: dict[str, Any]) -> None:
    """Refuse what says how to read windows that a service has."""
    from traces import InputError

    for name, value in reading.items():
        if value is not None:
            detail = "A series of the service was read when its traces were uploaded."
            raise InputError.of("trace_known", f"/{name}", detail, "Leave it out, or give files.")
