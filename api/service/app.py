"""The service as an ASGI application."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.http.access import may
from api.http.audit import Audited
from api.http.drain import DrainBody
from api.http.gate import STORE_ERRORS, Gate
from api.http.head_requests import HeadRequests
from api.http.links import add_links
from api.http.problems import from_http, problem_response
from api.http.request_checks import RequestChecks
from api.http.request_log import RequestLog
from api.http.validation import from_validation
from api.problems import Problem
from api.resources.advice import routes as advice
from api.resources.affinity import routes as affinity
from api.resources.catalogue import routes as catalogue
from api.resources.context import Services
from api.resources.evaluations import routes as evaluations
from api.resources.findings import routes as findings
from api.resources.fronts import routes as fronts
from api.resources.keys import routes as keys
from api.resources.mixtures import routes as mixtures
from api.resources.operations import routes as operations
from api.resources.page import routes as page
from api.resources.plans import routes as plans
from api.resources.replans import routes as replans
from api.resources.residency import routes as residency
from api.resources.score import routes as score
from api.resources.series import routes as series
from api.resources.simulations import routes as simulations
from api.resources.survival import routes as survival
from api.resources.topologies import routes as topologies
from api.resources.traces import routes as traces
from api.resources.traces import uploads
from api.service.lifecycle import Service
from api.settings.settings import Settings
from api.store.disk import disk_problem
from moe_placement.distribution import version
from traces import InputError

__all__ = ["create_app"]

OPEN = ("/healthz", "/readyz", "/problems/{slug}")  # nobody is asked who they are
log = structlog.get_logger(__name__)

DESCRIPTION = (
    "Plans where the experts of Mixture-of-Experts models go: upload a routing trace, ask for a plan, watch it get "
    "better, take it. Errors are problem documents (RFC 9457) that list every violation."
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    settings : Settings, optional
        From the environment by default.
    """
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        try:
            yield
        finally:
            await run_in_threadpool(service.stop)

    # The documentation pages of the framework load scripts from a CDN; /openapi.json has all that they show.
    app = FastAPI(
        title="moe-placement",
        description=DESCRIPTION,
        version=version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    services = service.services
    app.state.service, app.state.services, app.state.access = service, services, service.access
    looks = (affinity, findings, score)
    queued = (plans, fronts, replans, simulations, mixtures)
    studies = (evaluations, advice, residency, survival)
    # Routes are tried in this order; those of what is queued are asked most, again and again until it is there.
    for resource in (*queued, traces, uploads, series, topologies, *looks, *studies, catalogue):
        app.include_router(resource.router, dependencies=[Depends(may())])
    app.include_router(keys.router, dependencies=[Depends(may("admin"))])
    app.include_router(catalogue.texts)
    app.include_router(operations.router)
    app.include_router(page.router)  # open to all: it holds nothing, and asks for a key itself
    app.add_middleware(Gate, access=service.access, on_store=_on_store)
    app.add_middleware(Audited, audit=services.audit)
    app.add_middleware(RequestChecks, settings=services.settings)
    app.add_middleware(RequestLog, metrics=services.metrics)  # around the checks: it sees what they refuse
    app.add_middleware(DrainBody)
    app.add_middleware(HeadRequests)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(InputError, _on_input)
    for kind in STORE_ERRORS:
        app.add_exception_handler(kind, _on_store)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's way to extend it
    return app


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        given = dict(error.headers or {})
        error.headers = {**given, "Allow": _allowed(request, given.get("Allow", ""))}
    return from_http(error)


def _allowed(request: Request, given: str) -> str:
    """Return the methods of a path: the framework names those of the first route only."""
    found = {named for named in given.split(", ") if named}
    paths = request.app.openapi()["paths"]
    if (path := request.url.path) in paths:  # spelt out: it comes before one with parameters that matches as well
        paths = {path: paths[path]}
    for template, methods in paths.items():
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), request.url.path):
            found.update(method.upper() for method in methods)
    if "GET" in found:
        found.add("HEAD")
    return ", ".join(sorted(found))


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_validation(error)


async def _on_input(request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    return problem_response("invalid-request", error.violations[0].detail, error.violations)


async def _on_store(request: Request, error: Exception) -> Response:
    services: Services = request.app.state.services
    services.metrics.store_errors.labels("request").inc()
    log.error("store.failed", path=request.url.path, error=str(getattr(error, "orig", error))[:500])
    reason = disk_problem(services.settings.data_dir, services.settings.min_free_bytes)
    detail = "The store is busy or can't be written." if reason is None else reason
    return problem_response("unavailable", detail, headers={"Retry-After": "5"})


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return problem_response("bad-request", "The client went away.")


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document: the framework's, with our problem documents in place of its own errors."""
    if app.openapi_schema is None:
        content = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = content["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        content["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        services: Services = app.state.services
        asked: list[dict[str, list[str]]] = [{"bearer": []}]
        for path, methods in content["paths"].items():
            for operation in methods.values():
                # Without authentication a key is not wrong, only of no use.
                operation["security"] = (
                    [] if path in OPEN else asked if services.settings.auth == "required" else [*asked, {}]
                )
        add_links(content)
        app.openapi_schema = content
    return app.openapi_schema
