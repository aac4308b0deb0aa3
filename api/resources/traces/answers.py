"""Traces and uploads in parts as answers show them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.resources.answers import time_of
from api.store.rows import TraceRow, UploadRow
from placement.engines import engine_of_format

__all__ = ["TraceList", "TraceResource", "UploadResource", "engine_of_facts"]


class TraceResource(BaseModel):
    """An uploaded trace."""

    id: str = Field(description="SHA-256 of the uploaded bytes.")
    name: str | None
    tags: list[str]
    created_at: datetime
    bytes: int
    kind: Literal["trace", "counts", "profile"] = Field(description="Tokens, counts per expert, or a saved profile.")
    format: str
    engine: str | None = Field(
        description="Serving engine that alone writes the format: plans are for it if the request names none; or null."
    )
    num_tokens: int | None = Field(description="null for counts.")
    layer_ids: list[int]
    num_experts: int
    top_k: int | None = Field(description="null for counts.")
    dumps: int = Field(description="Dumps over time that counts were read from, where there are several; else 0.")
    columns: list[str] = Field(description="Optional columns that are present.")
    notes: list[str] = Field(description="What was inferred or left out on reading.")

    @classmethod
    def of(cls, row: TraceRow) -> TraceResource:
        """Show a row of the store."""
        names = ("kind", "format", "num_tokens", "layer_ids", "num_experts", "top_k", "columns", "notes")
        return cls(
            id=row.id,
            name=row.name,
            tags=row.tags,
            created_at=time_of(row.created_at),
            bytes=row.bytes,
            engine=engine_of_facts(row.facts),
            dumps=row.facts.get("dumps", 0),
            **{name: row.facts[name] for name in names},
        )


def engine_of_facts(facts: Mapping[str, Any]) -> str | None:
    """Return the engine that a trace brings along.

    Parameters
    ----------
    facts : mapping
        See `api.resources.traces.inspection.inspect`. Those of earlier versions do not say it, but the format does.
    """
    if "engine" in facts:
        named: str | None = facts["engine"]
        return named
    engine = engine_of_format(facts["format"])
    return None if engine is None else engine.name


class TraceList(BaseModel):
    """A page of traces, the newest first."""

    items: list[TraceResource]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one.")


class UploadResource(BaseModel):
    """An upload in parts."""

    id: str
    name: str | None
    offset: int = Field(description="Bytes that have arrived and are safe; the next part begins there.")
    bytes: int | None = Field(description="Size of the whole file, if it was told.")
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: UploadRow, offset: int) -> UploadResource:
        """Show a row of the store."""
        return cls(
            id=row.id,
            name=row.name,
            offset=offset,
            bytes=row.bytes,
            created_at=time_of(row.created_at),
            expires_at=time_of(row.expires_at),
        )
