"""What Prometheus is told: true, bounded, and nothing of other tenants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from api.settings.settings import Settings
from api.telemetry.gauges import LATEST_PLANS, PlanLoad, PlanLoads
from tests.builders.service import local_client, services_of


def figures(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the value of every series."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_figures_of_a_plan(tmp_path: Path, trace_bytes: bytes) -> None:
    """Uploads, queue, search, gap and loads of a finished plan are told, as its own summary has them."""
    settings = Settings(data_dir=tmp_path, max_workers=1, threads_per_plan=1, max_wait_s=100)
    with local_client(settings) as client:
        trace = client.post("/v1/traces", content=trace_bytes).json()["id"]
        body = {"trace": trace, "topology": "1x4", "solver": "annealing", "limits": {"work": 10_000}}
        plan = client.post("/v1/plans", json=body, headers={"Prefer": "wait=100"}).json()
        assert plan["status"] == "succeeded", plan
        told = figures(client.get("/metrics").text)
    labels = (("plan", plan["id"]), ("trace", trace))
    expected = plan["summary"]["plans"]["plan"]["expected_load"]["imbalance_max_over_mean"]
    assert told["moe_placement_plan_imbalance", labels] == pytest.approx(expected)
    assert 1 / 32 < told["moe_placement_plan_hottest_expert_share", labels] < 1
    assert told["moe_placement_plan_latest_gap", labels] == pytest.approx(plan["gap"])
    assert told["moe_placement_plan_gap_count", (("solver", "annealing"),)] == 1
    assert told["moe_placement_upload_bytes_total", ()] == len(trace_bytes)
    assert (told["moe_placement_blobs", ()], told["moe_placement_blob_bytes", ()]) == (1, len(trace_bytes))
    assert told["moe_placement_plans", (("status", "succeeded"),)] == 1
    assert (told["moe_placement_queue_length", ()], told["moe_placement_queue_age_seconds", ()]) == (0, 0)
    assert told["moe_placement_disk_free_bytes", ()] > 0


def test_waiting_plans_have_an_age(tmp_path: Path, trace_bytes: bytes) -> None:
    """The queue's length and age tell of what waits behind a long search."""
    with local_client(Settings(data_dir=tmp_path, max_workers=1)) as client:
        trace = client.post("/v1/traces", content=trace_bytes).json()["id"]
        body = {"trace": trace, "topology": "1x4", "limits": {"time_s": 60}}
        places = [client.post("/v1/plans", json=body).headers["location"] for _ in range(3)]
        told = figures(client.get("/metrics").text)
        assert told["moe_placement_queue_length", ()] >= 2
        assert told["moe_placement_queue_age_seconds", ()] > 0
        for place in reversed(places):
            client.post(f"{place}/cancel")


def test_loads_of_a_tenant_are_its_own(tmp_path: Path) -> None:
    """The plans that /metrics names are those of the tenant whose key asks."""
    settings = Settings(data_dir=tmp_path, auth="required", max_workers=1)
    with local_client(settings) as client:
        services = services_of(client)
        services.metrics.loads.add(load("them", 1))
        services.metrics.loads.add(load("us", 2))
        key, _ = services.keys.create("us", ["admin"])
        text = client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).text
    assert "plan_2" in text
    assert "plan_1" not in text


def load(tenant: str, number: int) -> PlanLoad:
    """Return the load of a made-up plan."""
    return PlanLoad(tenant=tenant, plan=f"plan_{number}", trace="t", imbalance=1.0, hottest_share=0.1, gap=None)


def test_series_are_bounded() -> None:
    """Of the plans of a tenant only the latest are kept, and of tenants not all there ever were."""
    loads = PlanLoads()
    for number in range(LATEST_PLANS + 5):
        loads.add(load("us", number))
    assert [item.plan for item in loads.of("us")] == [f"plan_{number}" for number in range(5, LATEST_PLANS + 5)]
    for number in range(1000):
        loads.add(load(f"tenant {number}", number))
    assert not loads.of("us")
    assert len(loads.of("tenant 999")) == 1


def test_store_that_fails_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the database /metrics still answers, with what is known, and counts the error."""
    with local_client(Settings(data_dir=tmp_path)) as client:
        services = services_of(client)

        def broken() -> Callable[[], None]:
            raise OperationalError("SELECT", {}, Exception("disk I/O error"))

        monkeypatch.setattr(services.store, "totals", broken)
        monkeypatch.setattr(services.store, "counts", broken)
        client.get("/metrics")
        assert client.get("/readyz").status_code == 503
        told = figures(client.get("/metrics").text)
    assert told["moe_placement_store_errors_total", (("where", "metrics"),)] >= 1
    assert told["moe_placement_store_errors_total", (("where", "ready"),)] == 1
    assert ("moe_placement_blobs", ()) not in told
