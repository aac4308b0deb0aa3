"""The page in a real browser, after the first plan: a re-plan with its moves, and a series as charts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.api.test_page_browser import artefacts, browser, inked, open_page, pytestmark
from tests.builders.series import domain_trace
from tests.builders.service import npz

__all__ = ["browser", "open_page", "pytestmark"]  # fixtures and marks of this file, too


def windows_of(domains: int) -> list[bytes]:
    """Return a trace of each domain as a file."""
    batch = next(iter(domain_trace(0, domains, 16, tokens=60, experts=16).batches()))
    source, number = np.asarray(batch.data_source), np.asarray(batch.seq_id)
    return [
        npz(topk_ids=batch.topk_ids[chosen], num_experts=16, seq_id=number[chosen])
        for chosen in (source == domain for domain in range(domains))
    ]


def test_change_and_series(tmp_path: Path, start_server: Callable[..., Any], open_page: Callable[..., Any]) -> None:
    """A plan for one day is re-planned for the next: verdict, moves as table and drawing; a series tells the drift."""
    server = start_server(tmp_path / "data")
    series = server.http.post("/v1/series", json={"name": "week"}).raise_for_status().json()["id"]
    for day, content in enumerate(windows_of(2)):
        trace = server.http.post(f"/v1/traces?name=day{day}", content=content).raise_for_status().json()["id"]
        server.http.post(f"/v1/series/{series}/windows", json={"trace": trace}).raise_for_status()
    page = open_page(str(server.http.base_url), color_scheme="light")
    option = page.locator("#stored option", has_text="day0").get_attribute("value")
    page.get_by_label("Or one that is here").select_option(option)
    page.get_by_label("Engine", exact=True).select_option("sglang")
    page.get_by_label("Topology").fill("1x4")
    page.get_by_label("Time limit").fill("1")
    page.get_by_role("button", name="Find a plan").click()
    page.locator("#replayed").wait_for()

    page.get_by_label("Recorded lately").select_option(label="day1")
    page.get_by_label("Experts per step").fill("6")
    page.get_by_role("button", name="Is a change worth it?").click()
    page.locator("#change-found").wait_for()
    replan = server.http.get("/v1/replans").json()["items"][0]
    found = server.http.get(f"/v1/replans/{replan['id']}").json()["replan"]
    assert replan["replaces"] == page.locator("#plan-id").inner_text()
    assert replan["id"] in page.locator("#change-ids").inner_text()
    assert page.locator("#change-verdict").get_attribute("data-verdict") == found["verdict"]
    assert found["moved_experts"] > 0
    assert page.locator("#moves tbody tr").count() == sum(len(step["arrivals"]) for step in found["steps"])
    assert inked(page, "#moves-map canvas.map") > 5

    page.get_by_label("Traces in time").select_option(series)
    page.locator("#windows tbody tr").nth(1).wait_for()
    assert page.locator("#windows tbody tr").nth(1).inner_text().split("\t")[-1].startswith("drifted, in")
    assert inked(page, "#drift-chart canvas") > 5
    assert "Imbalance under the plan" in page.locator("#series-chart").inner_text()
    page.screenshot(path=artefacts() / "change.png", full_page=True)
