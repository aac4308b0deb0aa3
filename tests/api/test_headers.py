"""What clients choose never breaks out of a header field of an answer."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from placement.exports import EXPORTS

ODD = ['a"; filename="b.exe', "a%0D%0ASet-Cookie:%20a=b", "a%22%3b", "%E2%80%AE", "..%5c..%5cb"]
FIELD = re.compile(r'attachment; filename="[A-Za-z0-9_.-]+"')


@pytest.fixture(scope="module")
def plan_id(client: TestClient, trace_id: str) -> str:
    """Return the id of a plan whose name would break out."""
    body = {"trace": trace_id, "topology": "1x4", "solver": "contiguous", "name": 'x"; filename="evil.exe'}
    found: str = client.post("/v1/plans", json=body, headers={"Prefer": "wait=100"}).json()["id"]
    return found


def test_names_of_exports(client: TestClient, plan_id: str) -> None:
    """The name of an exported file is one token, whatever the plan and the model are called."""
    named = 0
    for export in EXPORTS:
        answer = client.get(
            f"/v1/plans/{plan_id}/exports/{export.name}",
            params={"force": "true", "model_name": 'm"\r\nX-Evil: 1'} if export.name == "hygon" else {"force": "true"},
        )
        assert "x-evil" not in answer.headers
        if answer.status_code == 200:
            assert FIELD.fullmatch(answer.headers["content-disposition"]), export.name
            named += 1
    assert named >= 5


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_are_not_echoed_in_fields(client: TestClient, plan_id: str, odd: str) -> None:
    """Ids, formats, tags, cursors and request ids that are odd make no header field, and change none."""
    sent = {"X-Request-ID": odd, "Idempotency-Key": odd.encode("ascii", "replace").decode()}
    for path in (f"/v1/plans/{odd}/exports/sglang", f"/v1/plans/{plan_id}/exports/{odd}", f"/v1/plans?tag={odd}"):
        answer = client.get(path, headers=sent)
        assert 400 <= answer.status_code < 500
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
        assert not {"set-cookie", "content-disposition", "location", "link"} & set(answer.headers)
