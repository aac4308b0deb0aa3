"""What one attacker does, once: each takes the target and a client that has the attacker's key."""

from __future__ import annotations

import base64
import json
import secrets
import time
from contextlib import suppress
from functools import cache
from typing import Any

import httpx2
from hostile_others import small_trace
from hostile_target import Target

JSON = {"Content-Type": "application/json"}
NO_TRACE = "sha256:" + "0" * 64
DRIP_S = 5.0


def rest(target: Target, http: httpx2.Client) -> object:
    """Do nothing."""
    time.sleep(0.5)
    return "rested"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def unknown_key_id(target: Target, http: httpx2.Client) -> object:
    """Send a token that nobody signed, of a key that nobody has."""
    head = {"alg": "RS256", "kid": secrets.token_hex(8), "typ": "JWT"}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, {"sub": "x"})]
    return http.get("/v1/plans", headers=_bearer(".".join([*parts, "AAAA"]))).status_code


def wrong_key(target: Target, http: httpx2.Client) -> object:
    """Guess a key."""
    return http.get("/v1/plans", headers=_bearer(f"mp_{secrets.token_urlsafe(32)}")).status_code


def refused_change(target: Target, http: httpx2.Client) -> object:
    """Ask for a change without a key, at a path that is long."""
    path = f"/v1/plans/{secrets.token_hex(1000)}"
    return http.request(secrets.choice(("POST", "DELETE", "PUT")), path, headers={"Authorization": ""}).status_code


ODD: tuple[dict[str, Any], ...] = (
    {"scope": 7},
    {"scope": {"a": 1}},
    {"scope": None, "scp": 3.5},
    {"scope": [None]},
    {"sub": "\ud800"},
    {"sub": "a\nb\x00"},
    {"sub": 7},
)


def odd_token(target: Target, http: httpx2.Client) -> object:
    """Send a token whose claims are of odd types, or whose algorithm is not its key's."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec

    if secrets.randbelow(2):
        claims = {"iss": target.provider.address, "sub": "x"}
        token = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "1"})
    else:
        token = target.provider.token(secrets.choice(ODD))
    return http.get("/v1/plans", headers=_bearer(token)).status_code


def odd_path(target: Target, http: httpx2.Client) -> object:
    """Ask for what no database can name."""
    odd = secrets.choice(("%00", "%ED%A0%80", "%FF", "..%2f..", "%0A", "a%00b", "%F4%90%80%80"))
    kind = secrets.choice(("traces", "plans", "fronts", "topologies", "uploads"))
    method = secrets.choice(("GET", "DELETE"))
    return http.request(method, f"/v1/{kind}/{odd}").status_code


def _own_trace(target: Target, http: httpx2.Client) -> str:
    found: str = http.post("/v1/traces", content=small_trace(1_000_001)).json()["id"]
    return found


def _post(http: httpx2.Client, path: str, content: bytes) -> object:
    return http.post(path, content=content, headers=JSON).status_code


def overlapping_groups(target: Target, http: httpx2.Client) -> object:
    """Ask for groups that break a rule once for each group, layer and expert."""
    groups = [{"experts": list(range(16))} for _ in range(20_000)]
    body = {"trace": _own_trace(target, http), "topology": "1x4", "constraints": {"groups": groups}}
    return _post(http, "/v1/plans/validate", json.dumps(body).encode())


@cache
def _unknown_fields() -> bytes:
    return json.dumps({f"k{number}": 1 for number in range(1_000_000)}).encode()


def unknown_fields(target: Target, http: httpx2.Client) -> object:
    """Send fields that there are not."""
    return _post(http, "/v1/plans", _unknown_fields())


@cache
def _exclusions() -> str:
    return json.dumps([{"expert": number % 31, "gpu": number % 3, "layer_id": number % 4} for number in range(100_000)])


def long_lists(target: Target, http: httpx2.Client) -> object:
    """Ask, within the rules, for as much as a request may say."""
    body = {"trace": _own_trace(target, http), "topology": "1x4", "limits": {"time_s": 0.2}, "solver": "contiguous"}
    text = json.dumps(body)[:-1] + ', "constraints": {"forbidden": ' + _exclusions() + "}}"
    return _post(http, "/v1/plans", text.encode())


def deep_nesting(target: Target, http: httpx2.Client) -> object:
    """Nest."""
    deep = b'{"options": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    wide = b'{"options": [' + b"{}," * 500_000 + b"{}]}"
    return _post(http, "/v1/plans", secrets.choice((deep, wide)))


@cache
def _numbers() -> bytes:
    rows = [[0] * 1000 for _ in range(4000)]
    plan = {"schema_version": 1, "layer_ids": list(range(4000)), "num_experts": 1, "num_gpus": 1}
    plan |= {"gpus_per_node": 1, "slots_per_gpu": 1000, "physical_to_logical_map": rows}
    return json.dumps({"plan": plan, "trace": NO_TRACE}, separators=(",", ":")).encode()


def many_numbers(target: Target, http: httpx2.Client) -> object:
    """Send a plan file of four million slots."""
    return _post(http, "/v1/evaluations", _numbers())


def idle_connections(target: Target, http: httpx2.Client) -> object:
    """Hold 1,000 connections for a while and say nothing."""
    for _ in range(1000 - len(target.sockets)):
        target.connect()
    time.sleep(DRIP_S)
    return f"{len(target.sockets)} held"


def _drip(target: Target, heads: list[bytes], count: int) -> object:
    made = [target.connect() for _ in range(count)]
    for number, one in enumerate(made):
        one.sendall(heads[number % len(heads)])
    end = time.monotonic() + DRIP_S
    alive = len(made)
    while time.monotonic() < end:
        alive = 0
        for one in made:
            with suppress(OSError):
                one.sendall(b"x")
                alive += 1
        time.sleep(1)
    return f"{alive} of {count} still taken"


def slow_heads(target: Target, http: httpx2.Client) -> object:
    """Begin heads that never end."""
    return _drip(target, [b"GET /v1/plans HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "], 100)


def slow_bodies(target: Target, http: httpx2.Client) -> object:
    """Begin bodies that never end."""
    head = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n"
    key = f"Authorization: Bearer {target.attacker}\r\n"
    heads = [(head.format(path) + more + "\r\n").encode() for path in ("/v1/plans", "/v1/traces") for more in ("", key)]
    return _drip(target, heads, 8)


def watchers(target: Target, http: httpx2.Client) -> object:
    """Watch a plan that runs, fifty times."""
    body = {"trace": _own_trace(target, http), "topology": "1x4", "solver": "annealing", "limits": {"time_s": 60}}
    place = http.post("/v1/plans", json=body).json()["id"]
    head = f"GET /v1/plans/{place}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for _ in range(50):
        target.connect().sendall(f"{head}Authorization: Bearer {target.attacker}\r\n\r\n".encode())
    time.sleep(10)
    http.post(f"/v1/plans/{place}/cancel")
    return "watched"
