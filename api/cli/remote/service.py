"""A service in place of this process (``--server URL``): its address and key, and what it can't do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from api.cli.reading import read_topology

if TYPE_CHECKING:
    from pydantic import BaseModel

    from api.client import Client
    from api.problems import Problem
    from placement import Topology

__all__ = [
    "KEY_VARIABLE",
    "ServerOption",
    "body_of",
    "check_server",
    "fetch_plan",
    "is_plan",
    "machine_of",
    "named_plan",
    "raise_failure",
    "refuse_options",
    "service_at",
]

KEY_VARIABLE = "MOE_PLACEMENT_API_KEY"
NO_PLAN = "/problems/no-plan"
# What a service does not take, and what to do about it.
REMEDIES = {
    "--workers": "The service deals out its own threads. Leave it out.",
    "--executor": "The service has its own executor (MOE_PLACEMENT_EXECUTOR). Leave it out.",
    "--report": "A service writes no report. Leave it out, or search without --server.",
    "--plan-format": "A plan of the service has no format. Leave it out.",
}

Body = TypeVar("Body", bound="BaseModel")
ServerOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel="Output",
        help="Have a service do it; its key is in MOE_PLACEMENT_API_KEY.",
        show_default=False,
    ),
]


def refuse_options(given: Mapping[str, object]) -> None:
    """Refuse what a service does not take: the first option that has a value is named, with what to do.

    Raises
    ------
    typer.BadParameter
    """
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"It does not go with --server. {REMEDIES[option]}", param_hint=option)


def is_plan(text: str | Path) -> bool:
    """Whether this is the id of a plan, or of a re-plan, of a service, rather than a file."""
    return re.fullmatch(r"(re)?plan_[0-9a-f]{32}", str(text)) is not None


def named_plan(text: str | Path, option: str) -> str:
    """Return the id of a plan of the service.

    Raises
    ------
    typer.BadParameter
        If this is something else, such as a file.
    """
    if not is_plan(text):
        raise typer.BadParameter("With --server, name a plan of the service: plan_...", param_hint=option)
    return str(text)


def machine_of(text: str, server: str | None) -> Topology:
    """Return a topology as `read_topology` does; with a service, also one that it keeps, by its id (``topo_...``).

    Raises
    ------
    InputError
        If it can't be read, the service does not have it, or can't be reached.
    """
    if server is None or re.fullmatch(r"topo_[0-9a-f]{32}", text) is None:
        return read_topology(text)
    from placement import Topology
    from placement.topology.file import topology_from_dict

    with service_at(server) as service:
        content = service.topology(text).topology
    return Topology.parse(content) if isinstance(content, str) else topology_from_dict(content, "/topology")


@contextmanager
def service_at(server: str) -> Iterator[Client]:
    """Connect to a service, and tell what it refuses as bad input here.

    Parameters
    ----------
    server : str
        URL. The environment variable MOE_PLACEMENT_API_KEY has the key, where it asks for one.

    Raises
    ------
    InputError
        If the service refuses something, or can't be reached.
    """
    from traces import InputError, Violation

    check_server(server)
    try:
        from api.client import Client, ServiceError

        connected = Client(server, os.environ.get(KEY_VARIABLE) or None)
    except ImportError as error:
        detail = f"The client needs {error.name}, which is not installed."
        remedy = 'Run: pip install "moe-placement[client]", or leave --server out.'
        raise InputError.of("no_client", "--server", detail, remedy) from None
    try:
        with connected as service:
            yield service
    except ServiceError as error:
        told = () if error.problem is None else error.problem.errors
        found = [Violation(code=i.code, pointer=i.pointer, detail=i.detail, remedy=i.remedy) for i in told]
        remedy = f"See {server}{error.problem.type}." if error.problem else "Check the address, and that it runs."
        whole = Violation(code="service", pointer=server, detail=str(error), remedy=remedy)
        raise InputError(tuple(found) or (whole,)) from None


def check_server(server: str) -> None:
    """Refuse what is no address of a service, and a key that no header can carry.

    Raises
    ------
    InputError
    """
    from urllib.parse import urlsplit

    from traces import Violations

    found = Violations()
    try:
        parts = urlsplit(server)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or not server.isascii() or " " in server:
        found.add("server", "--server", f"{server[:100]!r} is no address.", "Give one such as http://127.0.0.1:8000.")
    if not (key := os.environ.get(KEY_VARIABLE, "")).isascii() or not key.isprintable():
        found.add("api_key", KEY_VARIABLE, "The key has characters that no key has.", "Copy the key again.")
    found.raise_if_any()


def fetch_plan(service: Client, plan_id: str, folder: Path) -> Path:
    """Write the best plan so far of a plan of the service as a plan file named by its id, and return the file."""
    path = folder / f"{plan_id}.json"
    path.write_text(json.dumps(service.plan_file(plan_id)))
    return path


def body_of(kind: type[Body], content: dict[str, Any]) -> Body:
    """Return the body of a request.

    Raises
    ------
    InputError
        With a violation for each field that the service would refuse unseen.
    """
    from pydantic import ValidationError

    from traces import InputError, Violation

    try:
        return kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise InputError(
            tuple(
                Violation(
                    code=item["type"],
                    pointer="".join(f"/{step}" for step in item["loc"] if not str(step).startswith("<")),
                    detail=f"{item['msg'].rstrip('.')}; {item['input']!r:.40} was given.",
                    remedy="Correct it, or leave it out.",
                )
                for item in error.errors()
            )
        ) from None


def raise_failure(what: str, server: str, problem: Problem) -> NoReturn:
    """Tell why a plan or a front has failed, as the command tells it without a service.

    Parameters
    ----------
    what : str
        Its id.
    server : str
    problem : Problem

    Raises
    ------
    NoPlanError
        If the search has ended without a plan.
    InputError
        Otherwise.
    """
    from placement import Termination
    from solvers import NoPlanError
    from traces import InputError, Violation

    if problem.type == NO_PLAN:
        raise NoPlanError(Termination(reason="no_plan", detail=problem.detail, deterministic=False))
    found = tuple(
        Violation(code=item.code, pointer=item.pointer, detail=item.detail, remedy=item.remedy)
        for item in problem.errors
    )
    whole = Violation(code="plan_failed", pointer=what, detail=problem.detail, remedy=f"See {server}{problem.type}.")
    raise InputError(found or (whole,))
