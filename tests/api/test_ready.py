"""``/readyz``: one look at the store serves all who ask while it lasts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.settings.settings import Settings
from tests.builders.service import local_client, services_of


def test_one_look_serves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers, however many, hold one thread and ask the store once; the next look is a new one."""
    looks, go = [], threading.Event()
    with local_client(Settings(data_dir=tmp_path, max_workers=1)) as client:
        store = services_of(client).store

        def slow() -> dict[str, int]:
            looks.append(time.monotonic())
            go.wait(30)
            return {}

        monkeypatch.setattr(store, "counts", slow)
        with ThreadPoolExecutor(8) as strangers:
            asked = [strangers.submit(client.get, "/readyz") for _ in range(8)]
            while not looks:
                time.sleep(0.01)
            time.sleep(0.5)  # for the others to arrive
            assert client.get("/healthz").status_code == 200
            go.set()
            assert {answer.result().status_code for answer in asked} == {200}
        assert len(looks) < 8
        before = len(looks)
        client.get("/readyz")
        assert len(looks) == before + 1
