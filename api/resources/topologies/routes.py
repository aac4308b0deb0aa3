"""Topologies: known machines, and one's own kept under ids."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.bodies import in_helper
from api.http.conditional import not_modified
from api.http.paging import begin_of, link_next, next_cursor
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.bodies import work_with
from api.resources.context import ServicesOf, StoreOf
from api.resources.parameters import Cursor, Limit, TagQuery
from api.resources.requests import topology_of
from api.resources.responses import json_response
from api.resources.schemas import LabelsBody, TopologyFile
from api.resources.storage import refuse_when_full
from api.resources.topologies.answers import TopologyList, TopologyPreset, TopologyResource
from api.resources.topologies.bodies import TopologyBody
from api.settings.settings import Settings
from api.store.rows import ConflictError, TopologyRow
from api.store.tenant import TenantStore
from placement import PRESETS
from placement.topology.file import topology_to_dict
from placement.topology.machines import read_machine
from traces import InputError

__all__ = ["router"]

router = APIRouter(prefix="/v1/topologies", tags=["topologies"], route_class=StrictRoute)

SHORTHANDS = {
    "4x8": "4 nodes of 8 GPUs each",
    "8+8+4": "nodes of 8, 8 and 4 GPUs",
    "hgx_h100:4": "4 nodes of a preset",
}


@router.post(
    "",
    status_code=201,
    response_model=TopologyResource,
    summary="Keep a topology",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "quota-exceeded", "storage-full"),
)
@in_helper
async def create_topology(body: TopologyBody, request: Request, services: ServicesOf, store: StoreOf) -> Response:
    """Keep a topology under an id, to name it in plans. Plans keep what it is now.

    In place of a topology, a machine's own description can be sent; `notes` of the answer tell what is assumed.
    """
    made = await work_with(request, services, store, body, _kept)
    return json_response(made, status=201, headers={"Location": f"/v1/topologies/{made.id}"}, strong_etag=True)


@router.get("", response_model=TopologyList, summary="List topologies", responses=problems())
def list_topologies(
    request: Request, store: StoreOf, limit: Limit = 50, cursor: Cursor = None, tag: TagQuery = ()
) -> Response:
    """List one's own topologies, the newest first; the machines that have a name; and the ways to write any other."""
    rows, more = store.topologies.page(limit, begin_of(store, cursor), tag)
    following = next_cursor(store, rows, more)
    presets = [
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
    items = [_shown(row) for row in rows]
    page = TopologyList(items=items, next_cursor=following, presets=presets, shorthands=SHORTHANDS)
    return json_response(page, headers=link_next(request, following))


@router.get(
    "/{topology_id}",
    response_model=TopologyResource,
    summary="Look at a topology",
    responses={304: {"description": "Not modified"}, **problems("not-found")},
)
def get_topology(topology_id: str, request: Request, store: StoreOf) -> Response:
    """Return a stored topology."""
    row = store.topologies.get(topology_id)
    if row is None:
        raise _missing(topology_id)
    return not_modified(request, json_response(_shown(row), strong_etag=True))


@router.patch(
    "/{topology_id}", response_model=TopologyResource, summary="Rename a topology", responses=problems("not-found")
)
def label_topology(topology_id: str, body: LabelsBody, store: StoreOf) -> Response:
    """Change the name or the tags of a topology."""
    if not store.topologies.label(topology_id, body.model_dump(exclude_unset=True)):
        raise _missing(topology_id)
    row = store.topologies.get(topology_id)
    if row is None:
        raise _missing(topology_id)
    return json_response(_shown(row), strong_etag=True)


@router.delete(
    "/{topology_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a topology",
    responses=problems("not-found"),
)
def delete_topology(topology_id: str, store: StoreOf) -> Response:
    """Delete a topology. Plans that were made for it stay, and keep what it was."""
    if not store.topologies.delete(topology_id):
        raise _missing(topology_id)
    return Response(status_code=204)


def _kept(body: TopologyBody, settings: Settings, store: TenantStore) -> TopologyResource:
    content = _content(body)
    refuse_when_full(settings)
    try:
        return _shown(store.topologies.add(content, body.name, body.tags, settings.tenant_topologies))
    except ConflictError as conflict:
        raise ProblemError(conflict.slug, conflict.detail) from None


def _content(body: TopologyBody) -> Any:
    """Return what is kept: the text or the file that was sent, or a file of what is understood of a description.

    Raises
    ------
    InputError
    """
    if (body.topology is None) == (body.description is None):
        detail = "A topology is said as topology or as description."
        raise InputError.of("topology_forms", "/topology", detail, "Give one of them.")
    if body.description is not None:
        described = read_machine(body.description.encode("utf-8", "replace"), "description", body.options or "")
        return topology_to_dict(described)
    if body.options is not None:
        detail = "Options belong to a description, and there is none."
        raise InputError.of("topology_options", "/options", detail, "Write them into the topology.")
    assert body.topology is not None
    topology_of(body.topology)
    if isinstance(body.topology, TopologyFile):
        return body.topology.model_dump(mode="json", exclude_unset=True)
    return body.topology


def _shown(row: TopologyRow) -> TopologyResource:
    content = row.content if isinstance(row.content, str) else TopologyFile.model_validate(row.content)
    return TopologyResource.of(row, topology_of(content))


def _missing(topology_id: str) -> ProblemError:
    return ProblemError("not-found", f"There is no topology {topology_id[:100]!r}.")
