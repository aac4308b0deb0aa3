"""Series: begin, add windows, look at drift and loads, list, rename, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.conditional import not_modified
from api.http.paging import begin_of, link_next, next_cursor
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf, StoreOf
from api.resources.helped import look_at
from api.resources.named import plan_content
from api.resources.parameters import Cursor, Limit, TagQuery
from api.resources.responses import json_response
from api.resources.schemas import LabelsBody, PlanId
from api.resources.series.adding import add_window, not_a_layer, series_named
from api.resources.series.answers import (
    SeriesList,
    SeriesLoads,
    SeriesResource,
    SeriesSummary,
    SeriesWindow,
    WindowLoads,
)
from api.resources.series.bodies import SeriesBody, WindowBody
from api.resources.series.counting import LoadsTask, loads_of
from api.resources.storage import refuse_when_full
from api.store.rows import ConflictError
from api.store.tenant import TenantStore
from traces import Violations

__all__ = ["router"]

router = APIRouter(prefix="/v1/series", tags=["series"], route_class=StrictRoute)
LayerOf = Annotated[
    int | None, Query(ge=0, le=1 << 31, description="Model layer whose shares to show; the first if left out.")
]
PlanOf = Annotated[PlanId | None, Query(description="Plan whose imbalance to tell in each window.")]
Last = Annotated[int, Query(ge=1, le=1000, description="Most windows, the latest.")]


@router.post(
    "",
    status_code=201,
    response_model=SeriesResource,
    summary="Begin a series",
    responses=problems("malformed-json", "too-large", "unsupported-media-type", "quota-exceeded", "storage-full"),
)
def create_series(body: SeriesBody, services: ServicesOf, store: StoreOf) -> Response:
    """Begin a series without windows."""
    refuse_when_full(services.settings)
    try:
        row = store.series.add(body.name, body.tags, body.alpha, services.settings.tenant_series)
    except ConflictError as conflict:
        raise ProblemError(conflict.slug, conflict.detail) from None
    headers = {"Location": f"/v1/series/{row.id}"}
    return json_response(SeriesResource.of(row, []), status=201, headers=headers, strong_etag=True)


@router.get("", response_model=SeriesList, summary="List series", responses=problems())
def list_series(
    request: Request, store: StoreOf, limit: Limit = 50, cursor: Cursor = None, tag: TagQuery = ()
) -> Response:
    """List one's own series without their windows, the newest first."""
    rows, more = store.series.page(limit, begin_of(store, cursor), tag)
    following = next_cursor(store, rows, more)
    lengths = store.series.lengths(rows)
    items = [SeriesSummary(**SeriesSummary.fields_of(row, lengths[row.seq])) for row in rows]
    return json_response(SeriesList(items=items, next_cursor=following), headers=link_next(request, following))


@router.get(
    "/{series_id}",
    response_model=SeriesResource,
    summary="Look at a series",
    responses={304: {"description": "Not modified"}, **problems("not-found")},
)
def get_series(series_id: str, request: Request, store: StoreOf) -> Response:
    """Return a series with its windows, and how each has drifted from those before, against sampling noise."""
    return not_modified(request, _shown(store, series_id))


@router.post(
    "/{series_id}/windows",
    status_code=201,
    response_model=SeriesWindow,
    summary="Add a window",
    responses=problems(
        "malformed-json",
        "not-found",
        "too-large",
        "unsupported-media-type",
        "series-changed",
        "took-too-long",
        "storage-full",
    ),
)
async def create_window(series_id: str, body: WindowBody, services: ServicesOf, store: StoreOf) -> Response:
    """Add a stored trace as the last window. It is counted once; its drift is told against the windows before."""
    refuse_when_full(services.settings)
    window = await add_window(services, store, series_id, body)
    return json_response(SeriesWindow.of(window), status=201, headers={"Location": f"/v1/series/{series_id}"})


@router.get(
    "/{series_id}/loads",
    response_model=SeriesLoads,
    summary="Look at the loads of a series",
    responses=problems("not-found", "took-too-long"),
)
async def get_series_loads(
    series_id: str,
    services: ServicesOf,
    store: StoreOf,
    layer: LayerOf = None,
    plan: PlanOf = None,
    last: Last = 100,
) -> Response:
    """Return the shares of a layer's experts in the latest windows, and the imbalance that a plan has in each."""
    task = await run_in_threadpool(_loads, store, series_id, layer, plan, last)
    size = 8 * len(task.layer_ids) * task.num_experts * len(task.loads)
    found = await look_at(services, store.tenant, size, "Counting the loads", loads_of, task)
    windows = [WindowLoads.model_validate(each) for each in found]
    layer_id = task.layer_ids[task.layer]
    return json_response(SeriesLoads(series=series_id, layer_id=layer_id, plan=plan, windows=windows))


@router.patch("/{series_id}", response_model=SeriesResource, summary="Rename a series", responses=problems("not-found"))
def label_series(series_id: str, body: LabelsBody, store: StoreOf) -> Response:
    """Change the name or the tags of a series."""
    store.series.label(series_id, body.model_dump(exclude_unset=True))
    return _shown(store, series_id)


@router.delete(
    "/{series_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a series",
    responses=problems("not-found", "series-in-use"),
)
def delete_series(series_id: str, store: StoreOf) -> Response:
    """Delete a series; its traces stay, and can be deleted from then on."""
    try:
        if not store.series.delete(series_id):
            raise ProblemError("not-found", f"There is no series {series_id[:100]!r}.")
    except ConflictError as conflict:
        raise ProblemError(conflict.slug, conflict.detail) from None
    return Response(status_code=204)


def _shown(store: TenantStore, series_id: str) -> Response:
    row = series_named(store, series_id)
    return json_response(SeriesResource.of(row, store.series.windows(row)), strong_etag=True)


def _loads(store: TenantStore, series_id: str, layer: int | None, plan: str | None, last: int) -> LoadsTask:
    row, found = series_named(store, series_id), Violations()
    content = None if plan is None else plan_content(store, plan, "?plan", found)
    if row.axes is None:
        found.add("no_windows", "/series_id", "The series has no window so far.", "Add one.")
    found.raise_if_any()
    assert row.axes is not None
    layers: list[int] = row.axes["layer_ids"]
    if layer is not None and layer not in layers:
        raise not_a_layer(layer, layers)
    first = max(0, store.series.lengths([row])[row.seq] - last)
    return LoadsTask(
        layer_ids=layers,
        layer=0 if layer is None else layers.index(layer),
        num_experts=row.axes["num_experts"],
        first=first,
        loads=store.series.packed_loads(row, first),
        plan=content,
    )
