"""Traces as bytes, the service in this process, its store, and what tests ask of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from api.resources.context import Services
from api.service.app import create_app
from api.settings.settings import Settings
from api.store.blobs import Blobs
from api.store.database import Database
from api.store.store import Store

__all__ = ["codes", "keep", "key_of", "local_client", "npz", "npz_bytes", "services_of", "store_in", "upload"]

LOCAL = "http://127.0.0.1"


def npz(**arrays: Any) -> bytes:
    """Return the arrays as `.npz`."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_bytes(tokens: int = 2000, layers: int = 6, experts: int = 32, seed: int = 0, **columns: Any) -> bytes:
    """Return an `.npz` trace whose experts prefer topics, with other experts for each topic in every layer."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 4, tokens)
    home = np.stack([rng.permutation(experts) % 4 for _ in range(layers)])
    taste = rng.normal(size=(tokens, layers, experts)) + 0.8 * (home[None] == topic[:, None, None])
    arrays: dict[str, Any] = {
        "topk_ids": np.argsort(-taste, axis=2)[:, :, :2].astype(np.uint8),
        "layer_ids": np.arange(1, layers + 1),
        "num_experts": np.array(experts),
        "seq_id": np.arange(tokens) // 50,
    } | columns
    return npz(**arrays)


@contextmanager
def local_client(settings: Settings, *, raising: bool = True) -> Iterator[TestClient]:
    """Run a service in this process; without `raising`, its faults are answers with status 500."""
    with TestClient(create_app(settings), base_url=LOCAL, raise_server_exceptions=raising) as client:
        yield client


def services_of(client: TestClient) -> Services:
    """Return what the routes of a service in this process share."""
    found: Services = client.app.state.services  # type: ignore[attr-defined]  # it is ours
    return found


def key_of(client: TestClient, tenant: str, *scopes: str, days: float | None = None) -> dict[str, str]:
    """Make a key and return the header fields that send it."""
    key, _ = services_of(client).keys.create(tenant, scopes, days=days)
    return {"Authorization": f"Bearer {key}"}


def upload(client: Any, content: bytes, **params: Any) -> str:
    """Upload a trace with any client of HTTP and return its id."""
    response = client.post("/v1/traces", content=content, params=params)
    assert response.status_code in (200, 201), response.text
    found: str = response.json()["id"]
    return found


def codes(response: Any) -> dict[str, str]:
    """Return the codes of a problem document by their pointers."""
    assert response.headers["content-type"] == "application/problem+json"
    return {item["pointer"]: item["code"] for item in response.json()["errors"]}


def store_in(folder: Path) -> tuple[Database, Store]:
    """Return the embedded database of a data folder, migrated, and its store."""
    database = Database(f"sqlite:///{folder / 'service.db'}")
    database.upgrade()
    return database, Store(database)


def keep(blobs: Blobs, content: bytes) -> str:
    """Keep content as a blob and return its id."""
    incoming = blobs.receive()
    incoming.write(content)
    incoming.finish()
    blobs.keep(incoming)
    return incoming.blob_id
