"""Kinds of errors, and the problem document (RFC 9457) that tells of one: in answers, and stored with failed plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from traces import Violation

__all__ = ["CATALOGUE", "Kind", "Problem", "ProblemItem", "document"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A type of problem: its status, its title and what the reader can do."""

    status: int
    title: str
    text: str


def _kinds(*rows: tuple[str, int, str, str]) -> dict[str, Kind]:
    return {slug: Kind(status=status, title=title, text=text) for slug, status, title, text in rows}


CATALOGUE = _kinds(
    ("bad-request", 400, "Bad request", "The service can't read the request; the detail says why."),
    ("malformed-json", 400, "Malformed JSON", "The body is not JSON in UTF-8. Check it with a JSON parser."),
    (
        "digest-mismatch",
        400,
        "Digest mismatch",
        "The bytes that arrived do not have the digest that Content-Digest states (RFC 9530), or the field can't be "
        "read. Send the file again.",
    ),
    ("unauthorized", 401, "Unauthorized", "Send a valid key or token: Authorization: Bearer KEY."),
    ("forbidden", 403, "Forbidden", "The key or token may not do this. Ask for one with the scope that detail names."),
    ("forbidden-origin", 403, "Forbidden origin", "A web page of another site sent the request. Use your own client."),
    ("not-found", 404, "Not found", "There is no such resource. It may have been deleted."),
    ("no-plan-yet", 404, "No plan yet", "The search has found no plan so far. Ask again later, or look at its status."),
    ("method-not-allowed", 405, "Method not allowed", "The resource has no such method; Allow lists those it has."),
    ("request-timeout", 408, "Request timeout", "The body came too slowly. Send it again, all at once."),
    ("not-finished", 409, "Not finished", "The plan is running. Cancel it first, or wait."),
    (
        "trace-in-use",
        409,
        "Trace in use",
        "Plans that are queued or running need the trace: cancel them, or wait. Or it is a window of a series: delete "
        "the series first.",
    ),
    (
        "series-in-use",
        409,
        "Series in use",
        "Simulations that are queued or running need the series. Cancel them, or wait.",
    ),
    ("series-changed", 409, "Series changed", "Other windows came at the same time. Send yours again."),
    (
        "offset-differs",
        409,
        "Offset differs",
        "The part does not begin where the last one ended. Go on from Upload-Offset of this answer.",
    ),
    ("not-complete", 409, "Not complete", "Parts of the upload are missing. Send the rest first."),
    (
        "trace-differs",
        409,
        "Trace differs",
        "The same bytes were uploaded before and were read with other parameters (format, num_experts, layer_ids). "
        "Leave the parameters out, or delete the trace and upload it again.",
    ),
    (
        "too-large",
        413,
        "Content too large",
        "The body is larger than the service accepts. Upload less: a profile, say.",
    ),
    (
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "Send JSON as application/json, and a trace as the raw body: not as a form, and without Content-Encoding.",
    ),
    ("misdirected", 421, "Misdirected request", "The Host field names another machine than this service listens as."),
    ("invalid-request", 422, "Invalid request", "Fields of the request break rules; errors lists every one of them."),
    ("invalid-trace", 422, "Invalid trace", "The file is no valid trace; errors lists the rules that it breaks."),
    (
        "idempotency-key-reused",
        422,
        "Idempotency key reused",
        "The Idempotency-Key was sent before with another body. Use a new key for a new request.",
    ),
    (
        "took-too-long",
        422,
        "Took too long",
        "The service ended the work at its time limit. Use a smaller trace, or fewer GPUs.",
    ),
    ("too-many-requests", 429, "Too many requests", "You ask too often. Wait as long as Retry-After says."),
    ("quota-exceeded", 429, "Quota exceeded", "Your tenant has as much as it may. Delete something, or wait."),
    ("queue-full", 429, "Queue full", "Too many plans are waiting. Retry later."),
    ("internal-error", 500, "Internal error", "A fault of the service, not of the request. The log has the details."),
    ("unavailable", 503, "Unavailable", "The service is starting, stopping, or can't use its store. Retry later."),
    ("storage-full", 507, "Storage full", "The service can't write the file to its disk. Free some space."),
    # Why a plan has failed; the status is the one that the same fault has in a request.
    ("no-plan", 422, "No plan found", "The search ended without a plan. Relax the constraints, or search longer."),
    ("worker-died", 500, "Worker died", "The process that searched died again and again: out of memory, most likely."),
    ("out-of-memory", 500, "Out of memory", "The job needs more memory than there is. Use fewer experts or GPUs."),
)


class ProblemItem(BaseModel):
    """One broken rule."""

    code: str = Field(description="Stable name of the rule.")
    pointer: str = Field(description="JSON pointer into the body; `?name` for a query parameter; a place in a trace.")
    detail: str
    remedy: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Address of a text on this type of problem.")
    title: str
    status: int
    detail: str
    errors: list[ProblemItem] = Field(description="Every violation that was found.")


def document(slug: str, detail: str, errors: Sequence[Violation] = ()) -> dict[str, Any]:
    """Return a problem document."""
    kind = CATALOGUE[slug]
    return {
        "type": f"/problems/{slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "errors": [violation.as_dict() for violation in errors],
    }
