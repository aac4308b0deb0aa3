"""Requests to the service: sent again when that has no other effect, refusals as errors, pages one after another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from pydantic import BaseModel

from api.problems import Problem

__all__ = ["AGAIN", "ATTEMPTS", "Connection", "ServiceError"]

Resource = TypeVar("Resource", bound=BaseModel)
ATTEMPTS = 8
AGAIN = (429, 502, 503, 504)


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


class Connection:
    """A connection to a service. Reading, and whatever has the same effect twice, is tried again when it fails.

    Parameters
    ----------
    url : str
        Of the service, without ``/v1``.
    key : str or None
        API key or token.
    timeout_s : float
        For each answer.
    transport : httpx2.BaseTransport, optional

    Attributes
    ----------
    failed : type of Exception
        What is raised when there is no answer.

    Raises
    ------
    ImportError
        Without httpx2: ``pip install "moe-placement[client]"``.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, transport: Any = None) -> None:
        try:
            import httpx2
        except ModuleNotFoundError as error:
            told = 'The client needs httpx2: pip install "moe-placement[client]".'
            raise ImportError(told, name="httpx2") from error
        self.failed: type[Exception] = httpx2.TransportError
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, transport=transport)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(
        self,
        kind: type[Resource],
        method: str,
        path: str,
        body: BaseModel | None = None,
        headers: dict[str, str] | None = None,
    ) -> Resource:
        """Send a body, and return the answer as a model."""
        options: dict[str, Any] = {"headers": dict(headers or {})}
        if body is not None:
            options["content"] = body.model_dump_json(exclude_unset=True)
            options["headers"]["Content-Type"] = "application/json"
        return kind.model_validate_json(self.ask(method, path, **options).content)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer to a request; `ServiceError` if it is refused or there is none."""
        again = method == "GET" or "Idempotency-Key" in options.get("headers", {})
        for attempt in range(ATTEMPTS):
            try:
                answer = self._http.request(method, path, **options)
            except self.failed as error:
                if not again or attempt == ATTEMPTS - 1:
                    raise ServiceError(f"The service can't be reached: {error}") from error
                time.sleep(min(5.0, 0.1 * 2**attempt))
                continue
            if answer.status_code in AGAIN and attempt < ATTEMPTS - 1 and (again or answer.status_code == 429):
                pause = answer.headers.get("retry-after", "")
                time.sleep(min(30.0, float(pause)) if pause.isdecimal() else min(5.0, 0.1 * 2**attempt))
                continue
            if answer.status_code >= 400:
                self.refuse(answer)
            return answer
        raise AssertionError("the last attempt returns or raises")

    def once(self, method: str, path: str, **options: Any) -> Any:
        """Send a request once; `failed` is raised if there is no answer, and refusals are returned."""
        return self._http.request(method, path, **options)

    def stream(self, path: str, headers: dict[str, str]) -> AbstractContextManager[Any]:
        """Open an answer that is read as it arrives."""
        return self._http.stream("GET", path, headers=headers, timeout=None)

    def pages(self, kind: type[Resource], path: str, tags: tuple[str, ...]) -> Iterator[Resource]:
        """Iterate over the items of all pages of a list."""
        query: list[tuple[str, str]] = [("limit", "200"), *(("tag", tag) for tag in tags)]
        cursor: str | None = ""
        while cursor is not None:
            page = self.ask("GET", path, params=[*query, ("cursor", cursor)] if cursor else query).json()
            yield from map(kind.model_validate, page["items"])
            cursor = page["next_cursor"]

    @staticmethod
    def refuse(answer: Any) -> None:
        """Raise `ServiceError` for an answer that is a refusal."""
        try:
            problem = Problem.model_validate(json.loads(answer.content))
        except ValueError:
            raise ServiceError(f"The service answered {answer.status_code}.", answer.status_code) from None
        told = "; ".join(f"{item.pointer}: {item.detail} {item.remedy}" for item in problem.errors) or problem.detail
        raise ServiceError(f"{problem.title}: {told}", answer.status_code, problem)
