"""Web pages in a user's browser: only the service's own may do anything, whatever the port that others come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.settings.settings import Settings
from tests.builders.service import key_of, local_client

OTHERS = [
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://localhost:5173"},
    {"Origin": "http://[::1]:8000"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_other_pages_do_nothing(client: TestClient, trace_bytes: bytes, headers: dict[str, str]) -> None:
    """Without authentication, a page of another site or port reads nothing, posts nothing, cancels nothing."""
    for method, path in (
        ("POST", "/v1/traces"),
        ("POST", "/v1/plans/plan_0/cancel"),
        ("DELETE", "/v1/plans/plan_0"),
        ("GET", "/v1/plans"),
        ("GET", "/metrics"),
    ):
        content = trace_bytes if path == "/v1/traces" else None
        answer = client.request(method, path, content=content, headers=headers)
        assert answer.status_code == 403, (method, path)
        assert answer.json()["type"] == "/problems/forbidden-origin"


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}]
)
def test_ones_own_page_works(client: TestClient, headers: dict[str, str]) -> None:
    """The service's own page, an address that the user types, programs, and links to the page are let through."""
    assert client.get("/v1/plans", headers=headers).status_code == 200
    assert client.post("/v1/plans/plan_0/cancel", headers=headers).status_code == 404
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_pages_that_are_allowed(tmp_path: Path) -> None:
    """An origin that the operator allows may send changes; others' pages may not, though reading takes a key anyway."""
    allowed = "https://tools.example"
    settings = Settings(data_dir=tmp_path, auth="required", allowed_origins=(allowed,), shutdown_s=0)
    with local_client(settings) as client:
        key = key_of(client, "us", "write")
        for origin, status in ((allowed, 404), ("https://evil.example", 403)):
            sent = key | {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            assert client.post("/v1/plans/plan_0/cancel", headers=sent).status_code == status
            assert client.get("/v1/plans", headers=sent).status_code == 200
