"""Solvers, engines and examples as answers show them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from placement.engines import Engine
from placement.engines.engine import Layout
from placement.problem.objective import Dedup, Execution, ReplicaPolicy

__all__ = ["Algorithm", "EngineList", "EngineResource", "Example", "ExampleList", "SolverList", "SolverResource"]


class SolverResource(BaseModel):
    """A solver."""

    name: str
    summary: str
    options: dict[str, Any] = Field(description="JSON Schema of the options.")


class SolverList(BaseModel):
    """All solvers."""

    items: list[SolverResource]


class Algorithm(BaseModel):
    """A way in which an engine chooses between the replicas of an expert."""

    name: str = Field(description="As in `ENGINE:NAME`, for the field `engine` of a request.")
    replica_policy: ReplicaPolicy = Field(description="The replica policy that comes closest.")


class EngineResource(BaseModel):
    """A serving engine, as its code of one version has it."""

    name: str = Field(description="For the field `engine` of a request.")
    title: str = Field(description="As the engine writes it.")
    version: str = Field(description="Whose code was read.")
    execution: Execution = Field(description="How tokens travel.")
    dedup: Dedup | None = Field(description="Messages of a dispatch; null where tokens don't go home.")
    algorithms: list[Algorithm] = Field(
        description="The first is the engine's default; empty: it has no redundant experts."
    )
    default_layout: Layout = Field(description="Where experts are when nobody plans.")
    export: str | None = Field(description="Placement format that it loads, as in `/v1/plans/{plan_id}/exports`.")
    page: str = Field(description="Its page in the documentation, `engines/PAGE`.")
    notes: list[str] = Field(description="What the fields can't say.")

    @classmethod
    def of(cls, engine: Engine) -> EngineResource:
        """Show a declaration."""
        same = ("name", "title", "version", "execution", "dedup", "default_layout", "export", "page")
        algorithms = [Algorithm(name=name, replica_policy=policy) for name, policy in engine.algorithms.items()]
        shown: dict[str, Any] = {name: getattr(engine, name) for name in same}
        return cls(**shown, algorithms=algorithms, notes=list(engine.notes))


class EngineList(BaseModel):
    """All engines."""

    items: list[EngineResource]


class Example(BaseModel):
    """A request that can be sent as it is."""

    title: str
    method: str
    path: str
    body: dict[str, Any]


class ExampleList(BaseModel):
    """Examples, from simple to special. ``TRACE`` stands for the id of a trace, ``PLAN`` for that of a plan."""

    items: list[Example]
