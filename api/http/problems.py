"""Errors as answers: the exception that routes raise, and problem documents as responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.problems import CATALOGUE, document
from traces import Violation

__all__ = ["ProblemError", "from_http", "problem_response", "problems"]

MEDIA_TYPE = "application/problem+json"
# What any route can answer.
ALWAYS = (
    "bad-request",
    "unauthorized",
    "forbidden",
    "forbidden-origin",
    "misdirected",
    "invalid-request",
    "too-many-requests",
    "unavailable",
)
_BY_STATUS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large", 503: "unavailable"}


class ProblemError(HTTPException):
    """A request that can't be met.

    Parameters
    ----------
    slug : str
        Key of `CATALOGUE`.
    detail : str
        What is wrong this time, as a sentence.
    errors : sequence of Violation
    headers : mapping, optional
    """

    def __init__(
        self, slug: str, detail: str, errors: Sequence[Violation] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(CATALOGUE[slug].status, detail, dict(headers or {}))
        self.slug = slug
        self.errors = tuple(errors)


def problem_response(
    slug: str, detail: str, errors: Sequence[Violation] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """Return a problem document as a response."""
    # ASCII only: what a client sent may hold lone surrogates, which UTF-8 can't carry.
    body = json.dumps(document(slug, detail, errors), ensure_ascii=True)
    return Response(body, CATALOGUE[slug].status, dict(headers or {}), MEDIA_TYPE)


def from_http(error: HTTPException) -> Response:
    """Return the response for an exception of ours or of the framework."""
    if isinstance(error, ProblemError):
        return problem_response(error.slug, str(error.detail), error.errors, error.headers)
    slug = _BY_STATUS.get(error.status_code, "bad-request" if error.status_code < 500 else "internal-error")
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:
        detail = CATALOGUE[slug].text
    return problem_response(slug, detail, headers=error.headers)


def problems(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that can fail like this; what any route can is included."""
    found: dict[int | str, dict[str, Any]] = {}
    more = ("request-timeout",) if {"malformed-json", "storage-full"} & {*slugs} else ()
    for slug in dict.fromkeys((*slugs, *more, *ALWAYS)):
        kind = CATALOGUE[slug]
        text = found[kind.status]["description"] + " / " if kind.status in found else ""
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[kind.status] = {"description": text + kind.title, "content": content}
    return found
