"""Who asks: the tenant whose traces and plans a request sees, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends

from api.services import ServicesOf
from api.store import TenantStore

__all__ = ["LOCAL", "Principal", "PrincipalOf", "Scope", "StoreOf"]

Scope = Literal["read", "write", "admin"]
LOCAL = "local"  # the one tenant of a service without keys


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
        ``read``, ``write``, ``admin``.
    """

    tenant: str
    actor: str
    scopes: frozenset[Scope]


def _principal() -> Principal:
    return Principal(tenant=LOCAL, actor=LOCAL, scopes=frozenset(("read", "write", "admin")))


PrincipalOf = Annotated[Principal, Depends(_principal)]


def _store(services: ServicesOf, principal: PrincipalOf) -> TenantStore:
    return services.store.of(principal.tenant)


StoreOf = Annotated[TenantStore, Depends(_store)]
