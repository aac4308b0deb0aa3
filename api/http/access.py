"""Who asks: the tenant whose traces and plans a request sees, and what it may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.http.problems import ProblemError
from api.service.services import Services, ServicesOf
from api.store.tenant_store import TenantStore

__all__ = ["LOCAL", "Principal", "PrincipalOf", "StoreOf", "may"]

LOCAL = "local"  # the one tenant of a service without authentication
READING = ("GET", "HEAD")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="moe-placement"'}


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The party behind a request.

    Attributes
    ----------
    tenant : str
        Whose traces and plans there are; no other's are visible.
    actor : str
        Id of the key, or subject of the token, for the audit log.
    scopes : frozenset of str
        ``read``, ``write``, ``admin``. Each includes those before it.
    """

    tenant: str
    actor: str
    scopes: frozenset[str]

    def allows(self, scope: str) -> bool:
        """Whether the principal may do what needs a scope."""
        enough = {"read": {"read", "write", "admin"}, "write": {"write", "admin"}, "admin": {"admin"}}
        return bool(self.scopes & enough[scope])


# Dependencies that do not block are coroutines: others cost a change of threads for every request.
async def _principal(request: Request, services: ServicesOf) -> Principal:
    """Return who asks. Known from here on to the log, and to the limits per client."""
    if services.settings.auth == "off":
        principal = Principal(tenant=LOCAL, actor=LOCAL, scopes=frozenset(("admin",)))
    else:
        principal = await run_in_threadpool(_authenticated, request, services)
    request.state.principal = principal
    services.rates.check(principal.actor)
    return principal


def _authenticated(request: Request, services: Services) -> Principal:
    kind, _, credential = request.headers.get("authorization", "").partition(" ")
    credential = credential.strip()
    # Whoever guesses is slowed down like any other client, by address.
    address = f"address {request.client.host if request.client else ''}"
    if kind.lower() != "bearer" or not credential:
        services.rates.check(address)
        raise ProblemError("unauthorized", "Send Authorization: Bearer, with a key or a token.", headers=CHALLENGE)
    if (key := services.keys.find(credential)) is not None:
        return Principal(tenant=key.tenant, actor=key.id, scopes=frozenset(key.scopes))
    if services.oidc is not None and (token := services.oidc.check(credential)) is not None:
        return Principal(tenant=token.tenant, actor=token.subject, scopes=token.scopes)
    services.rates.check(address)
    raise ProblemError("unauthorized", "The key or token is not valid, or not any more.", headers=CHALLENGE)


PrincipalOf = Annotated[Principal, Depends(_principal)]


def may(scope: str | None = None) -> Callable[..., Awaitable[None]]:
    """Return the dependency of routes that need a scope; without one, ``read`` or ``write`` by method."""

    async def check(request: Request, principal: PrincipalOf) -> None:
        needed = scope or ("read" if request.method in READING else "write")
        if not principal.allows(needed):
            have = ", ".join(sorted(principal.scopes)) or "none"
            raise ProblemError("forbidden", f"This needs the scope {needed!r}; the key or token has: {have}.")

    return check


async def _store(services: ServicesOf, principal: PrincipalOf) -> TenantStore:
    return services.store.of(principal.tenant)


StoreOf = Annotated[TenantStore, Depends(_store)]
