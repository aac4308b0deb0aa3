"""Bearer tokens of an identity provider (OpenID Connect): JWTs, checked with the keys that it publishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from anyio import CapacityLimiter

from api.http.key_set import KeySet
from api.store.keys import is_tenant
from traces import InputError

if TYPE_CHECKING:
    from jwt import PyJWK

__all__ = ["LOCAL", "Oidc", "Token"]

LOCAL = "local"  # the one tenant of a service without authentication: no provider can give it to anybody
# Signatures by the provider's private key only, by type of key: "none", and secrets that it would share, are not among
# them, and none is tried on a key of another type.
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
LEEWAY_S = 30
MAX_SUBJECT = 200  # as long as the audit log has room for: a shorter form could be another's


@dataclass(frozen=True, kw_only=True)
class Token:
    """Who a valid token speaks for."""

    subject: str
    tenant: str
    scopes: frozenset[str]


class Oidc:
    """Checks tokens.

    Parameters
    ----------
    issuer, audience : str
        What `iss` and `aud` must be.
    jwks_url : str
        Where the provider publishes its keys; see `api.http.key_set.KeySet`.
    tenant_claim : str
        Claim whose value is the tenant.
    scope_prefix : str
        Scopes of the token begin with it: ``moe-placement:read``.

    Raises
    ------
    InputError
        If the library that checks tokens is not installed.
    """

    def __init__(self, *, issuer: str, audience: str, jwks_url: str, tenant_claim: str, scope_prefix: str) -> None:
        try:
            import cryptography  # noqa: F401  # what signatures are checked with
            import jwt
        except ModuleNotFoundError as error:
            detail, remedy = "OIDC needs PyJWT.", 'Install it: pip install "moe-placement[oidc]".'
            raise InputError.of("no_pyjwt", "/oidc_issuer", detail, remedy) from error
        self._jwt = jwt
        self._issuer, self._audience = issuer, audience
        self._tenant_claim, self._prefix = tenant_claim, scope_prefix
        self._keys = KeySet(jwks_url)

    async def check(self, token: str, limiter: CapacityLimiter) -> Token | None:
        """Return whom a token speaks for; None if it is not valid. Signatures are checked on threads of `limiter`.

        Raises
        ------
        api.http.key_set.ProviderError
            If there are no keys to check it with.
        """
        try:
            key_id = self._jwt.get_unverified_header(token).get("kid")
        except (self._jwt.PyJWTError, ValueError):
            return None
        if not isinstance(key_id, str) or (key := await self._keys.find(key_id)) is None:
            return None
        return await anyio.to_thread.run_sync(self._verified, token, key, limiter=limiter)

    def _verified(self, token: str, key: PyJWK) -> Token | None:
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key.key,
                algorithms=list(ALGORITHMS.get(key.key_type or "", ())),
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (self._jwt.PyJWTError, TypeError, ValueError, OverflowError):  # claims of other types than they have
            return None
        tenant, subject, scopes = claims.get(self._tenant_claim), claims["sub"], self._scopes(claims)
        named = isinstance(subject, str) and 1 <= len(subject) <= MAX_SUBJECT and subject.isprintable()
        if not named or scopes is None or not isinstance(tenant, str) or not is_tenant(tenant) or tenant == LOCAL:
            return None
        return Token(subject=subject, tenant=tenant, scopes=scopes)

    def _scopes(self, claims: dict[str, Any]) -> frozenset[str] | None:
        """Return the scopes: of a text with blanks between, as the standard has it, or of a list; None of others."""
        given = claims.get("scope", claims.get("scp", ""))
        names = given.split() if isinstance(given, str) else given
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return frozenset(name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))
