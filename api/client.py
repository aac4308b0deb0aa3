"""A Python client of the service: uploads that resume, plans that are awaited or watched, typed answers.

with Client("http://127.0.0.1:8000") as service:
    trace = service.upload("examples/tiny_moe/tiny_moe.npz")
    plan = service.plan(PlanBody(trace=trace.id, topology="1x4", load_cap=1.05))
    for news in service.watch(plan.id):
        print(news.score, news.gap)
    plan = service.wait(plan.id)
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from pydantic import BaseModel

from api.resources.answers import (
    Evaluation,
    FrontResource,
    PlanNews,
    PlanResource,
    PlanSummary,
    Problem,
    SolverResource,
    TopologyResource,
    TraceResource,
    UploadResource,
)
from api.resources.schemas import EvaluationBody, FrontBody, ImportBody, PlanBody, TopologyBody, UploadBody
from api.resources.score.schemas import ScoreAnalysis

__all__ = ["Client", "ServiceError"]

Resource = TypeVar("Resource", bound=BaseModel)
PART_BYTES = 8 << 20
ATTEMPTS = 8
AGAIN = (429, 502, 503, 504)
WAIT_S = 30


class ServiceError(Exception):
    """The service refused a request, or could not be reached.

    Attributes
    ----------
    status : int or None
        None if there was no answer.
    problem : Problem or None
        What the service says is wrong, all of it.
    """

    def __init__(self, message: str, status: int | None = None, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem


class Client:
    """A connection to a service. Reading, and whatever has the same effect twice, is tried again when it fails.

    Parameters
    ----------
    url : str
        Of the service, without ``/v1``.
    key : str, optional
        API key or token.
    timeout_s : float
        For each answer.

    Raises
    ------
    ImportError
        Without httpx2: ``pip install "moe-placement[client]"``.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = 60.0, transport: Any = None) -> None:
        try:
            import httpx2
        except ModuleNotFoundError as error:
            told = 'The client needs httpx2: pip install "moe-placement[client]".'
            raise ImportError(told, name="httpx2") from error
        self._failed: type[Exception] = httpx2.TransportError
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def upload(self, path: str | Path, *, name: str | None = None, **reading: Any) -> TraceResource:
        """Upload a trace in parts, which go on where they were when a connection is lost.

        Parameters
        ----------
        path : path
        name : str, optional
            Name to show; the file's by default.
        **reading
            See `traces.load`: format, num_experts, layer_ids, and so on; and tags.
        """
        file = Path(path)
        size = file.stat().st_size
        begin = UploadBody(name=name or file.name, bytes=size, **reading)
        upload = self._send(UploadResource, "POST", "/v1/uploads", begin)
        place = f"/v1/uploads/{upload.id}"
        with file.open("rb") as stream:
            self._send_parts(place, stream, size)
        return self._send(TraceResource, "POST", f"{place}/finish")

    def import_trace(self, source: str, **fields: Any) -> TraceResource:
        """Have the service fetch a trace from where its operator allows."""
        return self._send(TraceResource, "POST", "/v1/imports", ImportBody(source=source, **fields))

    def trace(self, trace_id: str) -> TraceResource:
        """Return what is known of a trace."""
        return self._send(TraceResource, "GET", f"/v1/traces/{trace_id}")

    def traces(self, tags: tuple[str, ...] = ()) -> Iterator[TraceResource]:
        """Iterate over the traces, the newest first."""
        return self._pages(TraceResource, "/v1/traces", tags)

    def keep_topology(self, topology: TopologyBody) -> TopologyResource:
        """Keep a topology under an id."""
        return self._send(TopologyResource, "POST", "/v1/topologies", topology)

    def topology(self, topology_id: str) -> TopologyResource:
        """Return a topology that is kept."""
        return self._send(TopologyResource, "GET", f"/v1/topologies/{topology_id}")

    def solvers(self) -> list[SolverResource]:
        """Return the solvers with the JSON Schema of their options."""
        return [SolverResource.model_validate(item) for item in self._ask("GET", "/v1/solvers").json()["items"]]

    def plan(self, body: PlanBody) -> PlanResource:
        """Ask for a plan, once: a request that is sent again after a failure makes no second one."""
        return self._send(PlanResource, "POST", "/v1/plans", body, {"Idempotency-Key": secrets.token_hex(16)})

    def plans(self, tags: tuple[str, ...] = ()) -> Iterator[PlanSummary]:
        """Iterate over the plans without their maps, the newest first."""
        return self._pages(PlanSummary, "/v1/plans", tags)

    def look(self, plan_id: str) -> PlanResource:
        """Return the state of a plan, with the best that was found so far."""
        return self._send(PlanResource, "GET", f"/v1/plans/{plan_id}")

    def wait(self, plan_id: str) -> PlanResource:
        """Return a plan when it is finished."""
        while True:
            header = {"Prefer": f"wait={WAIT_S}"}
            plan = self._send(PlanResource, "GET", f"/v1/plans/{plan_id}", headers=header)
            if plan.status not in ("queued", "running"):
                return plan

    def watch(self, plan_id: str) -> Iterator[PlanNews]:
        """Iterate over the changes of a plan, from its first to its last; lost connections are taken up again."""
        last, failures = "", 0
        while True:
            header = {"Last-Event-ID": last} if last else {}
            try:
                with self._http.stream("GET", f"/v1/plans/{plan_id}/events", headers=header, timeout=None) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        self._refuse(answer)
                    kind, data = "", ""
                    for line in answer.iter_lines():
                        field, _, value = line.partition(":")
                        value = value.removeprefix(" ")
                        if field == "event":
                            kind = value
                        elif field == "id":
                            last = value
                        elif field == "data":
                            data = value
                        elif not line and data:
                            if kind in ("status", "incumbent", "done"):
                                failures = 0
                                yield PlanNews.model_validate_json(data)
                            if kind == "done":
                                return
                            kind, data = "", ""
            except self._failed as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise ServiceError(f"The service can't be reached: {error}") from error
            # The stream ended without the end of the plan, or was lost.
            if self.look(plan_id).status not in ("queued", "running") and not failures:
                return
            time.sleep(min(5.0, 0.2 * 2**failures))

    def cancel(self, plan_id: str) -> PlanResource:
        """Stop a search and keep the best plan so far."""
        return self._send(PlanResource, "POST", f"/v1/plans/{plan_id}/cancel")

    def plan_file(self, plan_id: str) -> dict[str, Any]:
        """Return the plan file of the best plan so far."""
        found: dict[str, Any] = self._ask("GET", f"/v1/plans/{plan_id}/plan").json()
        return found

    def export(self, plan_id: str, engine: str, **writing: Any) -> bytes:
        """Return the file that an engine loads.

        Parameters
        ----------
        plan_id : str
        engine : str
            Format: ``sglang``, ``trtllm``, ...
        **writing
            The model's layers and what the file is keyed by: model_layers, first_moe_layer, mtp_layers, fill_missing,
            without_mtp, layer, model_class, mtp_model_class, model_name.
        """
        query = {name: value for name, value in writing.items() if value is not None}
        content: bytes = self._ask("GET", f"/v1/plans/{plan_id}/exports/{engine}", params=query).content
        return content

    def score(self, plan_id: str, *, layer: int | None = None, top: int = 20) -> ScoreAnalysis:
        """Return where the score of the best plan so far comes from.

        Parameters
        ----------
        plan_id : str
        layer : int, optional
            Model layer whose traffic between GPUs is shown; the one with most by default.
        top : int
            Most experts, pairs and replicas to name.
        """
        query = {"top": top} | ({} if layer is None else {"layer": layer})
        return ScoreAnalysis.model_validate_json(self._ask("GET", f"/v1/plans/{plan_id}/score", params=query).content)

    def front(self, body: FrontBody) -> FrontResource:
        """Ask for a front; see `front_state`."""
        return self._send(FrontResource, "POST", "/v1/fronts", body, {"Idempotency-Key": secrets.token_hex(16)})

    def front_state(self, front_id: str) -> FrontResource:
        """Return the state of a front, and its points at the end."""
        return self._send(FrontResource, "GET", f"/v1/fronts/{front_id}")

    def wait_front(self, front_id: str, poll_s: float = 0.5) -> FrontResource:
        """Return a front when it is finished; looks again after so many seconds."""
        while True:
            front = self.front_state(front_id)
            if front.status not in ("queued", "running"):
                return front
            time.sleep(poll_s)

    def cancel_front(self, front_id: str) -> FrontResource:
        """Stop the searches of a front and keep its points."""
        return self._send(FrontResource, "POST", f"/v1/fronts/{front_id}/cancel")

    def point_file(self, front_id: str, number: int) -> dict[str, Any]:
        """Return the plan file of a point of a front, counted from 0."""
        found: dict[str, Any] = self._ask("GET", f"/v1/fronts/{front_id}/points/{number}/plan").json()
        return found

    def evaluate(self, body: EvaluationBody) -> Evaluation:
        """Replay a trace through a plan."""
        return self._send(Evaluation, "POST", "/v1/evaluations", body)

    def _send_parts(self, place: str, stream: IO[bytes], size: int) -> None:
        offset, failures = 0, 0
        while offset < size:
            stream.seek(offset)
            header = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
            try:
                answer = self._http.patch(place, content=stream.read(PART_BYTES), headers=header)
            except self._failed as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise ServiceError(f"The service can't be reached: {error}") from error
                time.sleep(min(5.0, 0.1 * 2**failures))
                offset = self._send(UploadResource, "GET", place).offset
                continue
            if answer.status_code not in (204, 409, *AGAIN):
                self._refuse(answer)
            if answer.status_code in AGAIN:
                failures += 1
                if failures >= ATTEMPTS:
                    self._refuse(answer)
                time.sleep(min(5.0, 0.1 * 2**failures))
            here = answer.headers.get("upload-offset")
            offset = int(here) if here is not None else self._send(UploadResource, "GET", place).offset

    def _pages(self, kind: type[Resource], path: str, tags: tuple[str, ...]) -> Iterator[Resource]:
        query: list[tuple[str, str]] = [("limit", "200"), *(("tag", tag) for tag in tags)]
        cursor: str | None = ""
        while cursor is not None:
            page = self._ask("GET", path, params=[*query, ("cursor", cursor)] if cursor else query).json()
            yield from map(kind.model_validate, page["items"])
            cursor = page["next_cursor"]

    def _send(
        self,
        kind: type[Resource],
        method: str,
        path: str,
        body: BaseModel | None = None,
        headers: dict[str, str] | None = None,
    ) -> Resource:
        options: dict[str, Any] = {"headers": dict(headers or {})}
        if body is not None:
            options["content"] = body.model_dump_json(exclude_unset=True)
            options["headers"]["Content-Type"] = "application/json"
        return kind.model_validate_json(self._ask(method, path, **options).content)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        again = method == "GET" or "Idempotency-Key" in options.get("headers", {})
        for attempt in range(ATTEMPTS):
            try:
                answer = self._http.request(method, path, **options)
            except self._failed as error:
                if not again or attempt == ATTEMPTS - 1:
                    raise ServiceError(f"The service can't be reached: {error}") from error
                time.sleep(min(5.0, 0.1 * 2**attempt))
                continue
            if answer.status_code in AGAIN and attempt < ATTEMPTS - 1 and (again or answer.status_code == 429):
                pause = answer.headers.get("retry-after", "")
                time.sleep(min(30.0, float(pause)) if pause.isdecimal() else min(5.0, 0.1 * 2**attempt))
                continue
            if answer.status_code >= 400:
                self._refuse(answer)
            return answer
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def _refuse(answer: Any) -> None:
        try:
            problem = Problem.model_validate(json.loads(answer.content))
        except ValueError:
            raise ServiceError(f"The service answered {answer.status_code}.", answer.status_code) from None
        told = "; ".join(f"{item.pointer}: {item.detail} {item.remedy}" for item in problem.errors) or problem.detail
        raise ServiceError(f"{problem.title}: {told}", answer.status_code, problem)
