"""API keys of one's own tenant: make, list, revoke. For those with the scope ``admin``."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.http.access import PrincipalOf
from api.http.problems import ProblemError, problems
from api.http.strict import StrictRoute
from api.resources.context import ServicesOf
from api.resources.keys.answers import KeyList, KeyResource, NewKey
from api.resources.responses import json_response
from api.resources.schemas import KeyBody

__all__ = ["router"]

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=NewKey, summary="Make a key", responses=problems("malformed-json"))
def create_key(body: KeyBody, services: ServicesOf, principal: PrincipalOf) -> Response:
    """Make a key of your own tenant. The answer is the only place where it can be seen."""
    key, row = services.keys.create(principal.tenant, body.scopes, body.name, body.days)
    content = NewKey(key=key, **NewKey.fields_of(row))
    return json_response(content, status=201, headers={"Cache-Control": "no-store"})


@router.get("", response_model=KeyList, summary="List keys", responses=problems())
def list_keys(services: ServicesOf, principal: PrincipalOf) -> Response:
    """List the keys of your own tenant, revoked ones included."""
    return json_response(KeyList(items=[KeyResource.of(row) for row in services.keys.list(principal.tenant)]))


@router.delete("/{key_id}", response_model=KeyResource, summary="Revoke a key", responses=problems("not-found"))
def revoke_key(key_id: str, services: ServicesOf, principal: PrincipalOf) -> Response:
    """End a key's validity. Requests that are under way are still answered."""
    row = services.keys.revoke(key_id, principal.tenant)
    if row is None:
        raise ProblemError("not-found", f"There is no key {key_id[:100]!r}.")
    return json_response(KeyResource.of(row))
