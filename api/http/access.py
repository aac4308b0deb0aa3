"""Authentication and permissions: the tenant whose traces and plans a request sees, and what it may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.http.oidc import Oidc
from api.http.problems import ProblemError
from api.http.rates import Rates
from api.store.keys import Keys

__all__ = ["LOCAL", "Access", "Principal", "PrincipalOf", "may"]

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


@dataclass(frozen=True, kw_only=True)
class Access:
    """What requests are authenticated by; the application holds it as ``state.access``.

    Attributes
    ----------
    required : bool
        False lets everybody in, as the tenant `LOCAL`.
    keys : Keys
    oidc : Oidc or None
        Checks tokens, if an issuer is set.
    rates : Rates
        Limits of requests per client.
    """

    required: bool
    keys: Keys
    oidc: Oidc | None
    rates: Rates

    def authenticate(self, request: Request) -> Principal:
        """Return the party whose key or token a request carries; `ProblemError` if neither is valid."""
        kind, _, credential = request.headers.get("authorization", "").partition(" ")
        credential = credential.strip()
        # Whoever guesses is slowed down like any other client, by address.
        address = f"address {request.client.host if request.client else ''}"
        if kind.lower() != "bearer" or not credential:
            self.rates.check(address)
            raise ProblemError("unauthorized", "Send Authorization: Bearer, with a key or a token.", headers=CHALLENGE)
        if (key := self.keys.find(credential)) is not None:
            return Principal(tenant=key.tenant, actor=key.id, scopes=frozenset(key.scopes))
        if self.oidc is not None and (token := self.oidc.check(credential)) is not None:
            return Principal(tenant=token.tenant, actor=token.subject, scopes=token.scopes)
        self.rates.check(address)
        raise ProblemError("unauthorized", "The key or token is not valid, or not any more.", headers=CHALLENGE)


# Dependencies that do not block are coroutines: others cost a change of threads for every request.
async def _principal(request: Request) -> Principal:
    """Return the party behind a request, for the log and the limits per client as well."""
    access: Access = request.app.state.access
    if access.required:
        principal = await run_in_threadpool(access.authenticate, request)
    else:
        principal = Principal(tenant=LOCAL, actor=LOCAL, scopes=frozenset(("admin",)))
    request.state.principal = principal
    access.rates.check(principal.actor)
    return principal


PrincipalOf = Annotated[Principal, Depends(_principal)]


def may(scope: str | None = None) -> Callable[..., Awaitable[None]]:
    """Return the dependency of routes that need a scope; without one, ``read`` or ``write`` by method."""

    async def check(request: Request, principal: PrincipalOf) -> None:
        needed = scope or ("read" if request.method in READING else "write")
        if not principal.allows(needed):
            have = ", ".join(sorted(principal.scopes)) or "none"
            raise ProblemError("forbidden", f"This needs the scope {needed!r}; the key or token has: {have}.")

    return check
