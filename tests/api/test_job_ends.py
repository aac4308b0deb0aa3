"""Re-plans and simulations end between phases: when they are cancelled, and when the service's time is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import api.resources.replans.replanning
import api.resources.simulations.simulating
from api.resources.worker import run_search
from tests.api.test_jobs import Bench

MODULES = {"replan": api.resources.replans.replanning, "simulation": api.resources.simulations.simulating}
CALLED = {"replan": "replan", "simulation": "simulate"}


@pytest.mark.parametrize("kind", ["replan", "simulation"])
@pytest.mark.parametrize("how", ["cancelled", "took-too-long"])
def test_ends(tmp_path: Path, trace_bytes: bytes, monkeypatch: pytest.MonkeyPatch, kind: str, how: str) -> None:
    """It does not run on, and its state says why."""
    bench = Bench(tmp_path, trace_bytes)
    begun = threading.Event()

    def endless(*_: Any, tell: Callable[[str], None], **__: Any) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            begun.set()
            tell("on and on")
            time.sleep(0.02)

    monkeypatch.setattr(MODULES[kind], CALLED[kind], endless)
    asked: dict[str, Any] = {"trace": bench.trace_id, "topology": "1x4", "name": None, "tags": []}
    own: dict[str, dict[str, Any]] = {
        "replan": {"running": None, "limits": {"time_s": 0.1}},
        "simulation": {"series": None, "plan": None, "windows": 2},
    }
    asked |= own[kind]
    plan = bench.store.plans.add(asked, max_queued=9, kind=kind, start=RUNNING if kind == "replan" else None).row
    limit = 0.2 if how == "took-too-long" else 600.0
    worker = threading.Thread(target=run_search, args=[bench.job(max_time_limit_s=limit)])
    worker.start()
    if how == "cancelled":
        assert begun.wait(60)
        bench.store.plans.cancel(plan.id, kind)
    worker.join(60)
    row = bench.store.plans.get(plan.id, kind)
    assert row is not None
    assert (row.status, row.error and row.error["type"]) == {
        "cancelled": ("cancelled", None),
        "took-too-long": ("failed", "/problems/took-too-long"),
    }[how]


RUNNING = (
    '{"schema_version": 1, "layer_ids": [1], "num_experts": 4, "num_gpus": 4, "gpus_per_node": 4, "slots_per_gpu": 1,'
    ' "physical_to_logical_map": [[0, 1, 2, 3]]}'
)
