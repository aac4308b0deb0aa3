"""Keys, tokens, scopes and tenants: who may do what, and that nobody meets another's traces and plans."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.cli import app as command_line
from api.http.problems import ProblemError
from api.http.rates import Rates
from api.settings.settings import Settings
from api.store.audit import LEFT_OUT
from tests.builders.service import key_of, local_client, npz_bytes, services_of

OPEN = {"/healthz", "/readyz", "/openapi.json", "/problems/{slug}"}
ADMIN = {"/metrics"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Run a service that asks for keys."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("guarded"),
        auth="required",
        failures_burst=1000,
        max_workers=1,
        threads_per_plan=1,
        max_wait_s=100,
    )
    with local_client(settings, raising=False) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(guarded: TestClient, trace_bytes: bytes) -> dict[str, Any]:
    """Return what another tenant has: a trace, a finished plan, a key."""
    header = key_of(guarded, "them", "admin")
    trace = guarded.post("/v1/traces", content=trace_bytes, headers=header).json()["id"]
    other = guarded.post("/v1/traces", content=npz_bytes(seed=1), headers=header).json()["id"]
    body = {"trace": trace, "topology": "1x4", "solver": "contiguous"}
    plan = guarded.post("/v1/plans", json=body, headers=header | {"Prefer": "wait=100"}).json()
    assert plan["status"] == "succeeded", plan
    key_id = services_of(guarded).keys.list("them")[0].id
    found = {"trace_id": trace, "plan_id": plan["id"], "key_id": key_id, "number": "1", "header": header}
    front = body | {"solver": "annealing", "points": 3, "limits": {"work": 1000}}
    for name, path, asked in (
        ("front_id", "/v1/fronts", front),
        ("topology_id", "/v1/topologies", {"topology": "2x4"}),
        ("upload_id", "/v1/uploads", {}),
        ("series_id", "/v1/series", {}),
        ("replan_id", "/v1/replans", {"trace": trace, "running": plan["id"]}),
        ("simulation_id", "/v1/simulations", {"trace": trace, "topology": "1x4"}),
        ("mixture_id", "/v1/mixtures", {"traces": [trace, other], "topology": "1x4"}),
    ):
        found[name] = guarded.post(path, json=asked, headers=header).raise_for_status().json()["id"]
    return found


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Return every method and path of the service."""
    paths = client.app.openapi()["paths"]  # type: ignore[attr-defined]  # it is ours
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_route_asks_who_it_is(guarded: TestClient, theirs: dict[str, Any]) -> None:
    """Without a key, or with a wrong one, everything but health and texts is refused with 401 and a challenge."""
    for method, path in routes(guarded):
        url = path.format(**{name: theirs.get(name, "not-found") for name in names_of(path)})
        if path in OPEN:
            assert guarded.request(method, url).status_code == 200
            continue
        for header in ({}, {"Authorization": "Bearer mp_wrong"}, {"Authorization": "Basic eDp5"}):
            response = guarded.request(method, url, headers=header, content=b"{}")
            assert response.status_code == 401, (method, path, header)
            assert response.headers["www-authenticate"].startswith("Bearer")


def names_of(path: str) -> list[str]:
    """Return the parameters of a path."""
    return [part.strip("{}") for part in path.split("/") if part.startswith("{")]


def test_every_route_asks_for_its_scope(guarded: TestClient) -> None:
    """A key that may read changes nothing; keys and figures are for admins."""
    reader, writer = key_of(guarded, "us", "read"), key_of(guarded, "us", "write")
    for method, path in routes(guarded):
        if path in OPEN:
            continue
        url = path.format(**dict.fromkeys(names_of(path), "x"))
        if method != "GET" or path in ADMIN or path.startswith("/v1/keys"):
            assert guarded.request(method, url, headers=reader, content=b"{}").status_code == 403, (method, path)
        if path in ADMIN or path.startswith("/v1/keys"):
            assert guarded.request(method, url, headers=writer, content=b"{}").status_code == 403, (method, path)


def test_no_route_shows_what_is_anothers(guarded: TestClient, theirs: dict[str, Any], trace_bytes: bytes) -> None:
    """Every route that names an object answers another tenant as if there were none, and the object stays as it was."""
    us = key_of(guarded, "us", "admin")
    for method, path in routes(guarded):
        given = names_of(path)
        if not given or path in OPEN or "{" not in path or "slug" in given:
            continue
        ids = {name: theirs.get(name, "0") for name in given}
        known, unknown = path.format(**ids), path.format(**{name: f"{found[:-1]}0" for name, found in ids.items()})
        sent = us | {"Content-Type": "application/json", "Upload-Offset": "0"}
        content = json.dumps({"trace": theirs["trace_id"]} if path.endswith("/windows") else {})
        answers = [guarded.request(method, url, headers=sent, content=content) for url in (known, unknown)]
        assert [answer.status_code for answer in answers] == [404, 404], (method, path, answers[0].text)
    for name in ("trace", "plan", "key", "replan", "simulation", "mixture"):
        assert theirs[f"{name}_id"] not in guarded.get(f"/v1/{name}s", headers=us).text, name
    assert theirs["series_id"] not in guarded.get("/v1/series", headers=us).text
    body = {"trace": theirs["trace_id"], "topology": "1x4", "start": theirs["plan_id"]}
    codes = {item["code"] for item in guarded.post("/v1/plans", json=body, headers=us).json()["errors"]}
    assert codes == {"unknown_trace", "unknown_plan"}
    asked = {"plan": theirs["plan_id"], "trace": theirs["trace_id"]}
    assert guarded.post("/v1/evaluations", json=asked, headers=us).status_code == 422
    mine = guarded.post("/v1/traces", content=trace_bytes, headers=us)
    assert mine.status_code == 201, "the same bytes are new to this tenant"
    assert guarded.delete(f"/v1/traces/{theirs['trace_id']}", headers=us).status_code == 204
    for path in (f"/v1/traces/{theirs['trace_id']}", f"/v1/plans/{theirs['plan_id']}"):
        assert guarded.get(path, headers=theirs["header"]).status_code == 200
    again = {"plan": theirs["plan_id"], "trace": theirs["trace_id"]}
    assert guarded.post("/v1/evaluations", json=again, headers=theirs["header"]).status_code == 200, "the file is there"


def test_idempotency_keys_are_ones_own(guarded: TestClient, theirs: dict[str, Any], trace_bytes: bytes) -> None:
    """The same Idempotency-Key of another tenant makes a plan of its own."""
    us = key_of(guarded, "us", "write")
    guarded.post("/v1/traces", content=trace_bytes, headers=us)
    body = {"trace": theirs["trace_id"], "topology": "1x2", "solver": "contiguous"}
    key = {"Idempotency-Key": "monday"}
    plans = [guarded.post("/v1/plans", json=body, headers=who | key).json()["id"] for who in (theirs["header"], us)]
    assert plans[0] != plans[1]


def test_keys_end(guarded: TestClient) -> None:
    """A revoked key and one whose time is over open nothing; only the digest of a key is kept."""
    admin = key_of(guarded, "ours", "admin")
    made = guarded.post("/v1/keys", json={"scopes": ["read"], "days": 1}, headers=admin).json()
    header = {"Authorization": f"Bearer {made['key']}"}
    assert guarded.get("/v1/traces", headers=header).status_code == 200
    assert made["key"] not in guarded.get("/v1/keys", headers=admin).text
    assert guarded.delete(f"/v1/keys/{made['id']}", headers=admin).json()["revoked_at"]
    assert guarded.get("/v1/traces", headers=header).status_code == 401
    late = key_of(guarded, "ours", "read", days=1e-9)
    time.sleep(0.01)
    assert guarded.get("/v1/traces", headers=late).status_code == 401
    data = b"".join(path.read_bytes() for path in services_of(guarded).settings.data_dir.glob("service.db*"))
    assert made["key"].encode() not in data


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[TestClient]:
    """Run a service whose audit log is empty."""
    with local_client(Settings(data_dir=tmp_path, auth="required", shutdown_s=0), raising=False) as client:
        yield client


def test_audit_log_names_who_did_what(audited: TestClient) -> None:
    """Changes and refusals are in the log, with actor, tenant, request id and status; reading is not."""
    services, header = services_of(audited), {"X-Request-ID": "audit-1"}
    them = key_of(audited, "them", "admin")
    audited.get("/v1/traces", headers=them | header)
    audited.post("/v1/plans", json={}, headers=them | header)
    audited.delete("/v1/plans/nothing", headers=header)
    rows = services.audit.list(50)
    assert [(row.action, row.status, row.tenant) for row in rows] == [
        ("DELETE unknown", 401, None),
        ("POST /v1/plans", 422, "them"),
    ]
    assert rows[0].target == "/v1/plans/nothing"
    assert rows[1].actor == services.keys.list("them")[0].id
    assert {row.request_id for row in rows} == {"audit-1"}


def test_refusals_do_not_fill_the_audit_log(audited: TestClient) -> None:
    """Of many refusals some are listed, and how many more there were; no change is left out."""
    audit, us = services_of(audited).audit, key_of(audited, "us", "write")
    for number in range(200):
        audited.post("/v1/plans/" + "x" * 2000, headers=us if number % 2 else {})
    assert len(audit.list(1000)) <= 20
    for _ in range(30):
        assert audited.post("/v1/uploads", json={}, headers=us).status_code == 201
    rows = audit.list(1000)
    assert sum(row.status == 201 for row in rows) == 30
    told = sum(int(str(row.target).split()[0]) for row in rows if row.action == LEFT_OUT)
    assert told + sum(row.status >= 400 for row in rows) == 200


def test_answers_tell_browsers_to_do_nothing_with_them(guarded: TestClient) -> None:
    """All answers, errors included, carry the header fields that keep browsers from running or caching them."""
    for path in ("/healthz", "/v1/traces", "/nowhere"):
        headers = guarded.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_rates() -> None:
    """A bucket lets a burst through, then so many per second, and says how long to wait; clients don't share it."""
    now = 0.0
    rates = Rates(2.0, 3, clock=lambda: now)
    for _ in range(3):
        rates.check("a")
    with pytest.raises(ProblemError) as caught:
        rates.check("a")
    assert caught.value.status_code == 429
    assert caught.value.headers == {"Retry-After": "1"}
    rates.check("b")
    now = 0.5
    rates.check("a")
    with pytest.raises(ProblemError):
        rates.check("a")


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    """Beyond the limit of an address, credentials are not looked at, but for those that were valid the last time."""
    settings = Settings(data_dir=tmp_path, auth="required", failures_per_s=0.01, failures_burst=2, shutdown_s=0)
    with local_client(settings) as client:
        good = key_of(client, "us", "read")
        assert client.get("/v1/traces", headers=good).status_code == 200
        guesses = [{"Authorization": f"Bearer mp_{number}"} for number in range(4)]
        assert [client.get("/v1/traces", headers=guess).status_code for guess in guesses] == [401, 401, 429, 429]
        assert client.get("/v1/traces", headers=good).status_code == 200
        answer = client.get("/v1/traces", headers=key_of(client, "us", "read"))
        assert answer.status_code == 429, "a key that was not seen before waits"
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/v1/plans/" + "x" * 5000, "/v1/nothing", "/v1", "/v1/traces/a/b/c"])
def test_who_it_is_comes_before_what_is_asked(guarded: TestClient, path: str) -> None:
    """Without a key nobody learns which paths and methods there are."""
    for method in ("GET", "POST", "TRACE"):
        assert guarded.request(method, path).status_code == 401


def test_open_service_stays_on_this_machine(tmp_path: Path) -> None:
    """Without authentication no other address is taken; with it any is."""
    with pytest.raises(ValueError, match="AUTH=required"):
        Settings(data_dir=tmp_path, host="0.0.0.0")
    assert Settings(data_dir=tmp_path, host="0.0.0.0", auth="required").auth == "required"
    with pytest.raises(ValueError, match="OIDC_JWKS_URL"):
        Settings(data_dir=tmp_path, oidc_issuer="https://id.example")
    with pytest.raises(ValueError, match="https"):
        Settings(data_dir=tmp_path, oidc_issuer="https://id.example", oidc_jwks_url="http://id.example/keys")


def test_key_commands(tmp_path: Path) -> None:
    """`key create` prints a key that works, `key list` shows it without itself, `key revoke` ends it."""
    run = CliRunner()
    where = ["--data-dir", str(tmp_path)]
    made = run.invoke(command_line, ["key", "create", "--tenant", "t", "--scope", "write", "--json", *where])
    assert made.exit_code == 0, made.output
    key = json.loads(made.stdout)
    with local_client(Settings(data_dir=tmp_path, auth="required")) as client:
        header = {"Authorization": f"Bearer {key['key']}"}
        assert client.get("/v1/plans", headers=header).status_code == 200
        listed = run.invoke(command_line, ["key", "list", "--json", *where]).stdout
        assert json.loads(listed)["keys"][0]["scopes"] == ["write"]
        assert key["key"] not in listed
        assert run.invoke(command_line, ["key", "revoke", key["id"], *where]).exit_code == 0
        assert client.get("/v1/plans", headers=header).status_code == 401
    assert run.invoke(command_line, ["key", "revoke", "key_0", *where]).exit_code == 1
    typo = run.invoke(command_line, ["key", "list", "--data-dir", str(tmp_path / "typo")])
    assert typo.exit_code == 1
    assert not (tmp_path / "typo").exists()
    bad = run.invoke(command_line, ["key", "create", "--tenant", "", "--scope", "all", "--days", "0", *where])
    assert bad.exit_code == 1
    assert all(place in bad.output for place in ("--scope", "--tenant", "--days"))
