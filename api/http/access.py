"""Authentication and permissions: the tenant whose traces and plans a request sees, and what it may do."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError

from api.http.key_set import ProviderError
from api.http.oidc import LOCAL, Oidc
from api.http.problems import ProblemError
from api.http.rates import Rates
from api.store.keys import PREFIX, Keys

__all__ = ["CHALLENGE", "LOCAL", "Access", "Principal", "PrincipalOf", "may", "still_valid"]

THREADS = 4  # for looking up keys and checking signatures: others' work can't use them up
MAX_CREDENTIAL = 8192
MAX_KNOWN = 10_000
AGAIN_S = 1.0
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


@dataclass(kw_only=True)
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
    failures : Rates
        Limits of requests per address whose key or token is not valid.
    """

    required: bool
    keys: Keys
    oidc: Oidc | None
    rates: Rates
    failures: Rates
    _known: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _looked: dict[bytes, tuple[float, Principal | None]] = field(default_factory=dict)

    async def authenticate(self, address: str, authorization: str) -> Principal:
        """Return the party whose key or token a request carries, before anything else is done for the request.

        An address that has sent too many wrong ones is refused before they are looked at, but for those that were
        valid the last time: others may be behind the same address.

        Parameters
        ----------
        address : str
            Of the client.
        authorization : str
            The header field.

        Raises
        ------
        ProblemError
            401 if it carries none, or none that is valid; 429 above a limit; 503 without the provider's keys.
        """
        if not self.required:
            principal = Principal(tenant=LOCAL, actor=LOCAL, scopes=frozenset(("admin",)))
            self.rates.check(principal.actor)
            return principal
        kind, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if kind.lower() != "bearer" or not credential:
            raise ProblemError("unauthorized", "Send Authorization: Bearer, with a key or a token.", headers=CHALLENGE)
        digest = _digest(credential)
        known = digest in self._known
        if not known:  # taken before it is looked at, so that many at once don't get further than one after another
            self.failures.check(block := _block(address))
        found = await self._find(credential)
        if found is None:
            self._known.pop(digest, None)
            raise ProblemError("unauthorized", "The key or token is not valid, or not any more.", headers=CHALLENGE)
        if not known:
            self.failures.give_back(block)
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self.rates.check(found.actor)
        return found

    async def still(self, authorization: str, principal: Principal) -> bool:
        """Whether the key or token of a long answer still opens what it opened; looked up once a second at most."""
        if not self.required:
            return True
        credential = authorization.partition(" ")[2].strip()
        digest = _digest(credential)
        at, found = self._looked.get(digest, (float("-inf"), principal))
        if time.monotonic() - at > AGAIN_S:
            if len(self._looked) > MAX_KNOWN:
                self._looked.clear()
            self._looked[digest] = time.monotonic(), found  # others of this second take what is known
            with suppress(ProblemError, SQLAlchemyError):  # then nothing is known against it
                found = await self._find(credential)
            self._looked[digest] = time.monotonic(), found
        return found == principal

    async def _find(self, credential: str) -> Principal | None:
        if len(credential) > MAX_CREDENTIAL:
            return None
        if credential.startswith(PREFIX):
            key = await anyio.to_thread.run_sync(self.keys.find, credential, limiter=self._threads)
            return None if key is None else Principal(tenant=key.tenant, actor=key.id, scopes=frozenset(key.scopes))
        if self.oidc is None:
            return None
        try:
            token = await self.oidc.check(credential, self._threads)
        except ProviderError:
            detail = "The keys of the identity provider can't be fetched, so tokens can't be checked; API keys can."
            raise ProblemError("unavailable", detail, headers={"Retry-After": "30"}) from None
        return None if token is None else Principal(tenant=token.tenant, actor=token.subject, scopes=token.scopes)

    @cached_property
    def _threads(self) -> CapacityLimiter:  # belongs to an event loop, and is made in it
        return CapacityLimiter(THREADS)


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("latin-1", "replace")).digest()


def _block(address: str) -> str:
    """Return what one party has of addresses: an IPv4 address, or the 64 bits of a network of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


async def _principal(request: Request) -> Principal:
    """Return the party behind a request, whom `api.http.gate.Gate` has found."""
    principal: Principal = request.state.principal
    return principal


PrincipalOf = Annotated[Principal, Depends(_principal)]


async def still_valid(request: Request) -> bool:
    """Whether what a request was let in with is still valid, for answers that take long."""
    access: Access = request.app.state.access
    return await access.still(request.headers.get("authorization", ""), request.state.principal)


def may(scope: str | None = None) -> Callable[..., Awaitable[None]]:
    """Return the dependency of routes that need a scope; without one, ``read`` or ``write`` by method."""

    async def check(request: Request, principal: PrincipalOf) -> None:
        needed = scope or ("read" if request.method in READING else "write")
        if not principal.allows(needed):
            have = ", ".join(sorted(principal.scopes)) or "none"
            raise ProblemError("forbidden", f"This needs the scope {needed!r}; the key or token has: {have}.")

    return check
