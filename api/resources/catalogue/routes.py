"""What can be asked for: solvers with the JSON Schema of their options, engines, examples, texts on problems."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.responses import Response

from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.problems import CATALOGUE
from api.resources.catalogue.answers import (
    EngineList,
    EngineResource,
    Example,
    ExampleList,
    SolverList,
    SolverResource,
)
from api.resources.responses import json_response
from placement.engines import ENGINES
from solvers import names, solver_class

__all__ = ["router", "texts"]

router = APIRouter(tags=["catalogue"], route_class=StrictRoute)
texts = APIRouter(tags=["catalogue"], route_class=StrictRoute)  # for everybody: who is refused looks up why

EXAMPLES = [
    Example(
        title="A plan for one node of 8 GPUs, none of them above 1.05 times the mean",
        method="POST",
        path="/v1/plans",
        body={"trace": "TRACE", "topology": "1x8", "constraints": {"load_cap": 1.05}, "limits": {"time_s": 10}},
    ),
    Example(
        title="Four H100 machines, tokens sent to each node once, one redundant expert slot per GPU and more",
        method="POST",
        path="/v1/plans",
        body={
            "trace": "TRACE",
            "topology": "hgx_h100:4",
            "objective": {"execution": "dispatch", "dedup": "node"},
            "slots_per_gpu": 10,
            "limits": {"time_s": 60},
        },
    ),
    Example(
        title="The same plan on any machine: a work limit in place of a time limit",
        method="POST",
        path="/v1/plans",
        body={"trace": "TRACE", "topology": "2x4", "seed": 7, "limits": {"work": 50_000_000}},
    ),
    Example(
        title="What less traffic costs in balance: many plans at once",
        method="POST",
        path="/v1/fronts",
        body={"trace": "TRACE", "topology": "2x4", "against": "imbalance", "limits": {"time_s": 60}},
    ),
    Example(
        title="What the tokens of another trace do under a plan",
        method="POST",
        path="/v1/evaluations",
        body={"plan": "PLAN", "trace": "TRACE"},
    ),
]


@router.get("/v1/solvers", response_model=SolverList, summary="List solvers", responses=problems())
def list_solvers() -> Response:
    """List the solvers; `auto` is the one to begin with."""
    return json_response(_solvers())


@router.get("/v1/engines", response_model=EngineList, summary="List engines", responses=problems())
def list_engines() -> Response:
    """List the serving engines: how tokens travel in each, and which placement file it loads."""
    return json_response(EngineList(items=[EngineResource.of(engine) for engine in ENGINES.values()]))


@router.get("/v1/examples", response_model=ExampleList, summary="List examples", responses=problems())
def list_examples() -> Response:
    """List requests that can be sent as they are, with the id of a trace put in."""
    return json_response(ExampleList(items=EXAMPLES))


@texts.get(
    "/problems/{slug}",
    response_class=Response,
    summary="Explain a type of problem",
    responses={200: {"description": "A short text.", "content": {"text/plain": {}}}, **problems("not-found")},
)
def explain_problem(slug: str) -> Response:
    """Explain the `type` of a problem document."""
    kind = CATALOGUE.get(slug)
    if kind is None:
        raise ProblemError("not-found", f"There is no type of problem {slug[:100]!r}.")
    return Response(f"{kind.title} ({kind.status})\n\n{kind.text}\n", media_type="text/plain; charset=utf-8")


@cache
def _solvers() -> SolverList:
    found = []
    for name in names():
        kind = solver_class(name)
        schema: dict[str, Any] = TypeAdapter(kind).json_schema()
        schema["additionalProperties"] = False
        found.append(SolverResource(name=name, summary=kind.summary, options=schema))
    return SolverList(items=found)
