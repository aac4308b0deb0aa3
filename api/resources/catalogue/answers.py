"""Solvers and examples as answers show them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["Example", "ExampleList", "SolverList", "SolverResource"]


class SolverResource(BaseModel):
    """A solver."""

    name: str
    summary: str
    options: dict[str, Any] = Field(description="JSON Schema of the options.")


class SolverList(BaseModel):
    """All solvers."""

    items: list[SolverResource]


class Example(BaseModel):
    """A request that can be sent as it is."""

    title: str
    method: str
    path: str
    body: dict[str, Any]


class ExampleList(BaseModel):
    """Examples, from simple to special. ``TRACE`` stands for the id of a trace, ``PLAN`` for that of a plan."""

    items: list[Example]
