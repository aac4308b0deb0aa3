"""What can be asked for: solvers with the JSON Schema of their options, and known machines."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.responses import Response

from api.problems import CATALOGUE, ProblemError
from api.resources import SolverList, SolverResource, TopologyList, TopologyPreset, json_response
from api.routes.common import problems
from api.strict import StrictRoute
from placement import PRESETS
from solvers import names, solver_class

__all__ = ["router"]

router = APIRouter(tags=["catalogue"], route_class=StrictRoute)

SHORTHANDS = {
    "4x8": "4 nodes of 8 GPUs each",
    "8+8+4": "nodes of 8, 8 and 4 GPUs",
    "hgx_h100:4": "4 nodes of a preset",
}


@router.get("/v1/solvers", response_model=SolverList, summary="List solvers", responses=problems())
def list_solvers() -> Response:
    """List the solvers; `auto` is the one to begin with."""
    return json_response(_solvers())


@router.get("/v1/topologies", response_model=TopologyList, summary="List topologies", responses=problems())
def list_topologies() -> Response:
    """List the machines that have a name, and the ways to write any other."""
    items = [
        TopologyPreset(
            name=name,
            text=preset.text,
            gpus_per_node=preset.gpus_per_node,
            intra_node=asdict(preset.intra),
            inter_node=asdict(preset.inter),
            memory_gb=preset.memory_gb,
            gpus_per_host=preset.gpus_per_host,
        )
        for name, preset in PRESETS.items()
    ]
    return json_response(TopologyList(items=items, shorthands=SHORTHANDS))


@router.get(
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
