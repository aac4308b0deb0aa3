"""Bearer tokens of an identity provider (OpenID Connect): JWTs, checked with the keys that it publishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traces import InputError

__all__ = ["Oidc", "Token"]

# Signatures by the provider's private key only: "none", and secrets that it would share, are not among them.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S = 30


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
        Where the provider publishes its keys; fetched when an unknown key is named, at most every 30 seconds.
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
            import jwt
            from jwt import PyJWKClient
        except ModuleNotFoundError as error:
            detail, remedy = "OIDC needs PyJWT.", 'Install it: pip install "moe-placement[oidc]".'
            raise InputError.of("no_pyjwt", "/oidc_issuer", detail, remedy) from error
        self._jwt = jwt
        self._issuer, self._audience = issuer, audience
        self._tenant_claim, self._prefix = tenant_claim, scope_prefix
        self._keys = PyJWKClient(jwks_url, cache_keys=True, lifespan=300, timeout=5)

    def check(self, token: str) -> Token | None:
        """Return whom a token speaks for; None if it is not valid."""
        try:
            key = self._keys.get_signing_key_from_jwt(token)
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key.key,
                algorithms=list(ALGORITHMS),
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except self._jwt.PyJWTError:
            return None
        tenant = claims.get(self._tenant_claim)
        if not isinstance(tenant, str) or not 1 <= len(tenant) <= 80:
            return None
        return Token(subject=str(claims["sub"])[:200], tenant=tenant, scopes=self._scopes(claims))

    def _scopes(self, claims: dict[str, Any]) -> frozenset[str]:
        given = claims.get("scope", claims.get("scp", ""))
        names = given.split() if isinstance(given, str) else [name for name in given if isinstance(name, str)]
        return frozenset(name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))
