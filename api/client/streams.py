"""What takes several requests: a file sent in parts, and the events of a plan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import IO, Any

from api.client.connection import AGAIN, ATTEMPTS, Connection, ServiceError
from api.resources.plans.answers import PlanSummary
from api.resources.searches.answers import News
from api.resources.traces.answers import UploadResource

__all__ = ["events_of", "send_parts"]

PART_BYTES = 8 << 20


def send_parts(connection: Connection, place: str, stream: IO[bytes], size: int) -> None:
    """Send a file to an upload in parts, each again from where the service has it after a failure."""
    offset, failures = 0, 0
    while offset < size:
        stream.seek(offset)
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
        try:
            answer = connection.once("PATCH", place, content=stream.read(PART_BYTES), headers=headers)
        except connection.failed as error:
            failures += 1
            if failures >= ATTEMPTS:
                raise ServiceError(f"The service can't be reached: {error}") from error
            time.sleep(min(5.0, 0.1 * 2**failures))
            offset = connection.send(UploadResource, "GET", place).offset
            continue
        if answer.status_code not in (204, 409, *AGAIN):
            connection.refuse(answer)
        if answer.status_code in AGAIN:
            failures += 1
            if failures >= ATTEMPTS:
                connection.refuse(answer)
            time.sleep(min(5.0, 0.1 * 2**failures))
        here = answer.headers.get("upload-offset")
        offset = int(here) if here is not None else connection.send(UploadResource, "GET", place).offset


def events_of(connection: Connection, plan_id: str) -> Iterator[News]:
    """Iterate over the changes of a plan, from its first to its last; lost connections are opened again."""
    place, last, failures = f"/v1/plans/{plan_id}", "", 0
    while True:
        try:
            with connection.stream(f"{place}/events", {"Last-Event-ID": last} if last else {}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    connection.refuse(answer)
                for kind, number, data in _events(answer):
                    last = number or last
                    if kind in ("status", "incumbent", "done"):
                        failures = 0
                        yield News.model_validate_json(data)
                    if kind == "done":
                        return
        except connection.failed as error:
            failures += 1
            if failures >= ATTEMPTS:
                raise ServiceError(f"The service can't be reached: {error}") from error
        # The stream ended without the end of the plan, or was lost.
        if connection.send(PlanSummary, "GET", place).status not in ("queued", "running") and not failures:
            return
        time.sleep(min(5.0, 0.2 * 2**failures))


def _events(answer: Any) -> Iterator[tuple[str, str, str]]:
    """Iterate over the server-sent events of an answer: kind, id and data."""
    found: dict[str, str] = {}
    for line in answer.iter_lines():
        field, _, value = line.partition(":")
        if line:
            found[field] = value.removeprefix(" ")
        elif "data" in found:
            yield found.get("event", ""), found.get("id", ""), found["data"]
            found = {}
