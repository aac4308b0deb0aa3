"""Findings on a trace over REST."""

from __future__ import annotations

import io

import numpy as np
from fastapi.testclient import TestClient

from tests.builders.service import upload
from tests.builders.traces import random_ids


def padded() -> bytes:
    """Return a trace whose last rows are the same."""
    ids = random_ids(0, 1000, 3, 16, 4)
    ids[900:] = ids[900]
    buffer = io.BytesIO()
    np.savez(buffer, topk_ids=ids, num_experts=16, layer_ids=[0, 1, 2])
    return buffer.getvalue()


def test_findings_are_those_of_the_library(client: TestClient, trace_id: str) -> None:
    """A sound trace has no warning; a trace never changes, so neither do its findings."""
    answer = client.get(f"/v1/traces/{trace_id}/findings")
    assert answer.status_code == 200
    assert answer.json()["trace"] == trace_id
    assert [one for one in answer.json()["findings"] if one["severity"] != "note"] == []
    again = client.get(f"/v1/traces/{trace_id}/findings", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    assert client.get(f"/v1/traces/sha256:{'0' * 64}/findings").status_code == 404


def test_a_trace_with_a_fault_tells_it_from_its_upload_on(client: TestClient) -> None:
    """Its notes have the line, and the findings the rest."""
    trace = client.get(f"/v1/traces/{upload(client, padded())}").json()
    assert trace["notes"][-1].startswith("The recording has repeated rows: ")
    (found,) = client.get(f"/v1/traces/{trace['id']}/findings").json()["findings"]
    assert set(found) == {"code", "severity", "detail", "remedy"}
    assert (found["code"], found["severity"]) == ("repeated_rows", "warning")
