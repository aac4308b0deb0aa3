"""Tokens of an identity provider: which open what, and what happens while it hangs, errs, or withdraws a key."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.http.key_set import AGAIN_S, LIFETIME_S, KeySet, ProviderError
from api.settings.settings import Settings
from tests.builders.service import key_of, local_client, services_of

jwt = pytest.importorskip("jwt", reason="PyJWT is not installed (extra: oidc).")
asymmetric = pytest.importorskip("cryptography.hazmat.primitives.asymmetric", reason="PyJWT[crypto] is missing.")
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402


class Provider:
    """An identity provider on this machine that publishes one key."""

    def __init__(self) -> None:
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        self.body = json.dumps({"keys": [public | {"kid": "1", "use": "sig"}, {"kty": "new", "kid": "2"}]}).encode()
        self.fetches, self.answering = 0, Event()
        self.answering.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                provider.answering.wait(30)
                self.send_response(200)
                self.send_header("Content-Length", str(len(provider.body)))
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return what a good token says, with changes."""
        now = int(time.time())
        good = {"iss": self.address, "aud": "moe-placement", "sub": "ann", "iat": now, "exp": now + 60, "team": "red"}
        return good | {"scope": "openid moe-placement:read"} | changes

    def header(self, key: Any = None, algorithm: str = "RS256", kid: str = "1", **changes: Any) -> dict[str, str]:
        """Return the header field with a token that somebody signed, the provider by default."""
        signer = self.private if key is None else key
        return {"Authorization": "Bearer " + jwt.encode(self.claims(**changes), signer, algorithm, {"kid": kid})}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Run an identity provider."""
    made = Provider()
    yield made
    made.answering.set()
    made.server.shutdown()
    made.server.server_close()


@contextmanager
def service(provider: Provider, folder: Path) -> Iterator[TestClient]:
    """Run a service that takes the provider's tokens; its faults are answers."""
    settings = Settings(
        data_dir=folder,
        auth="required",
        failures_burst=1000,
        oidc_issuer=provider.address,
        oidc_jwks_url=f"{provider.address}/keys",
        oidc_tenant_claim="team",
        shutdown_s=0,
    )
    with local_client(settings, raising=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Run one such service for the tests that leave it as it was."""
    with service(provider, tmp_path_factory.mktemp("tokens")) as client:
        yield client


def test_tokens_of_an_identity_provider(provider: Provider, client: TestClient) -> None:
    """A token opens the tenant that it names, with its scopes; expired, foreign and forged ones open nothing."""
    assert client.get("/v1/traces", headers=provider.header()).status_code == 200
    assert client.post("/v1/plans", json={}, headers=provider.header()).status_code == 403
    now = int(time.time())
    faults: list[dict[str, Any]] = [
        {"exp": now - 3600}, {"aud": "other"}, {"iss": "http://other"}, {"team": None}, {"team": 7}, {"team": ""},
        {"exp": None}, {"kid": "2"}, {"kid": "3"}, {"key": "", "algorithm": "none"},
        {"key": "secret" * 8, "algorithm": "HS256"},
    ]  # fmt: skip
    for fault in faults:
        assert client.get("/v1/traces", headers=provider.header(**fault)).status_code == 401, fault


@pytest.mark.parametrize(
    "fault",
    [
        {"scope": 7},
        {"scope": {"moe-placement:read": 1}},
        {"scope": ["moe-placement:read", None]},
        {"scope": None},
        {"sub": "\ud800"},
        {"sub": "a\nb"},
        {"sub": 7},
        {"sub": "x" * 201},
        {"team": "local"},
        {"team": "red\n"},
        {"team": "a\x00"},
        {"team": "\udfff"},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"iat": []},
        {"algorithm": "ES256"},
    ],
    ids=str,
)
def test_odd_tokens_are_refused(provider: Provider, client: TestClient, fault: dict[str, Any]) -> None:
    """Claims of other types than they have, names that are none, another algorithm than the key's: 401, never 500."""
    if "algorithm" in fault:
        fault = fault | {"key": ec.generate_private_key(ec.SECP256R1())}
    audit = services_of(client).audit
    before = audit.left_out + len(audit.list(100))
    answer = client.get("/v1/traces", headers=provider.header(**fault))
    assert answer.status_code == 401, answer.text
    assert audit.left_out + len(audit.list(100)) > before, "it is in the audit log, or counted for it"


def test_token_of_a_withdrawn_key_ends(provider: Provider, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was valid a moment ago, and one that is signed anew, open nothing after the lifetime of the key set."""
    known = provider.header()
    assert client.get("/v1/traces", headers=known).status_code == 200
    keys = client.app.state.access.oidc._keys  # type: ignore[attr-defined]  # it is ours
    for name in ("_keys", "_as_of", "_tried_at"):
        monkeypatch.setattr(keys, name, getattr(keys, name))  # the other tests have them back
    monkeypatch.setattr(keys, "_clock", lambda: time.monotonic() + LIFETIME_S)
    monkeypatch.setattr(provider, "body", provider.body.replace(b'"kid": "1"', b'"kid": "next"'))
    for token in (known, provider.header(sub="bob")):
        assert client.get("/v1/traces", headers=token).status_code == 401
    assert client.get("/v1/traces", headers=provider.header(kid="next")).status_code == 200


@pytest.mark.timeout(60)
def test_hanging_provider_holds_up_nobody(provider: Provider, client: TestClient) -> None:
    """Strangers with unknown key ids make one fetch and take no thread; keys, and tokens that are known, go on."""
    assert client.get("/v1/traces", headers=provider.header()).status_code == 200
    key, fetches = key_of(client, "us", "read"), provider.fetches
    access = client.app.state.access  # type: ignore[attr-defined]  # it is ours
    access.oidc._keys._tried_at = float("-inf")  # as if half a minute had passed
    provider.answering.clear()
    with ThreadPoolExecutor(60) as pool:
        strangers = [
            pool.submit(client.get, "/v1/traces", headers=provider.header(kid=f"x{number}")) for number in range(60)
        ]
        deadline = time.monotonic() + 10
        while provider.fetches == fetches and time.monotonic() < deadline:
            time.sleep(0.01)
        begin = time.monotonic()
        for path, header in (("/v1/traces", key), ("/v1/traces", provider.header()), ("/readyz", {})):
            assert client.get(path, headers=header).status_code == 200
        assert time.monotonic() - begin < 3
        assert not any(stranger.done() and stranger.result().status_code == 200 for stranger in strangers)
        provider.answering.set()
        assert {stranger.result().status_code for stranger in strangers} == {401}
    for number in range(50):
        client.get("/v1/traces", headers=provider.header(kid=f"y{number}"))
    assert provider.fetches == fetches + 1


def test_without_the_providers_keys_tokens_wait(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that publishes nonsense is no fault of the client's: 503 and Retry-After; API keys still open."""
    monkeypatch.setattr(provider, "body", b"[" * 100_000)
    with service(provider, tmp_path) as client:
        answer = client.get("/v1/traces", headers=provider.header())
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert client.get("/v1/traces", headers=key_of(client, "us", "read")).status_code == 200


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def key_set(published: Callable[[], dict[str, Any]]) -> tuple[KeySet, Clock]:
    """Return a key set and its clock."""
    clock = Clock()
    return KeySet("", published, clock), clock


def test_withdrawn_keys_end_within_the_lifetime() -> None:
    """A key that is no longer published ends with the stated lifetime of the set, whether it is asked for or not."""
    published: dict[str, Any] = {"a": object(), "b": object()}

    async def check() -> None:
        keys, clock = key_set(lambda: dict(published))
        assert await keys.find("a") is published["a"]
        del published["b"]
        clock.now = LIFETIME_S - 1
        assert await keys.find("a") is not None, "it is fetched again without anybody waiting"
        await asyncio.sleep(0.05)
        assert await keys.find("b") is None
        clock.now = 3 * LIFETIME_S
        assert await keys.find("b") is None

    asyncio.run(check())


def test_provider_that_fails_is_not_asked_again_at_once() -> None:
    """Keys stay until the set is too old; then there is an error, and one fetch in half a minute."""
    calls = 0

    def published() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError
        return {"a": object()}

    async def check() -> None:
        keys, clock = key_set(published)
        assert await keys.find("a") is not None
        clock.now = AGAIN_S
        assert await asyncio.gather(*(keys.find(f"x{number}") for number in range(20))) == [None] * 20
        assert calls == 2
        clock.now = LIFETIME_S - 1
        assert await keys.find("a") is not None
        await asyncio.sleep(0.05)
        clock.now = LIFETIME_S
        for _ in range(3):
            with pytest.raises(ProviderError):
                await keys.find("a")
        assert calls == 3

    asyncio.run(check())
