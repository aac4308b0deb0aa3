"""Times and stored documents in answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

__all__ = ["loads", "time_of", "time_or_none"]


def loads(text: str | None) -> dict[str, Any] | None:
    """Read a stored JSON document."""
    content: dict[str, Any] | None = None if text is None else json.loads(text)
    return content


def time_of(seconds: float) -> datetime:
    """Return a time of the store, which counts seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def time_or_none(seconds: float | None) -> datetime | None:
    """Return a time of the store; None where there is none."""
    return None if seconds is None else time_of(seconds)
