"""The page in a real browser: the sample trace from the button to the plan file, on the loopback only."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from placement import Plan, evaluate
from placement.engines import ENGINES
from placement.exports import EXPORTS
from placement.topology.topology import Topology
from tests.engine_files import Toy, sglang_records, write_bundle
from traces import Trace, load

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
BAD = ("error", "warning")
LONGEST_MS = 120_000  # the first search on a machine compiles the loops

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)."),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="Playwright is not installed (dev)."),
]


def artefacts() -> Path:
    """Return the folder for screenshots, which git ignores."""
    folder = Path(os.environ.get("MOE_PLACEMENT_ARTEFACTS", ROOT / "build" / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Run Debian's Chromium; names of other hosts lead nowhere. Each page has a context, and so a cache, of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # its sandbox refuses root
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, server_type: Any) -> Iterator[Any]:
    """Start the service that most tests share."""
    running = server_type.start(tmp_path_factory.mktemp("page") / "data", threads_per_plan=2)
    yield running
    running.kill()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return what opens a page; console errors and requests of all its tabs are kept, and checked at the end."""
    errors: list[str] = []
    hosts: set[str | None] = set()
    expected: list[str] = []

    def opened(url: str, **options: Any) -> Any:
        expected.extend(options.pop("expected_errors", ()))
        tabs = browser.new_context(viewport={"width": 1120, "height": 900}, accept_downloads=True, **options)
        tabs.set_default_timeout(LONGEST_MS)
        tabs.on("console", lambda message: errors.append(message.text) if message.type in BAD else None)
        tabs.on("weberror", lambda error: errors.append(str(error.error)))
        tabs.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page = tabs.new_page()
        page.goto(url)
        return page

    yield opened
    assert [error for error in errors if not any(known in error for known in expected)] == []
    assert hosts - {None} == {"127.0.0.1"}  # None: files that the page made itself


def inked(page: Any, selector: str) -> int:
    """Return how many colours a canvas shows."""
    script = """canvas => {
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
    }"""
    found: int = page.locator(selector).evaluate(script)
    return found


def points(page: Any) -> int:
    """Return how many points the chart of the search has."""
    return int(page.locator("#search-chart").get_attribute("data-points") or 0)


# The page notes it itself: on a busy machine, whoever looks from outside comes when the search is over.
SEEN = """() => {
  window.seen = [];
  const chart = document.querySelector("#search-chart");
  const note = () => window.seen.push([document.querySelector("#status").innerText, Number(chart.dataset.points || 0)]);
  new MutationObserver(note).observe(chart, { attributes: true });
}"""


def until(done: Callable[[], bool]) -> None:
    """Wait until something holds; the policy of the page lets no test evaluate code in it again and again."""
    deadline = time.monotonic() + LONGEST_MS / 1000
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sample_from_button_to_plan(
    tmp_path: Path, start_server: Callable[..., Any], open_page: Callable[..., Any]
) -> None:
    """The sample is uploaded, drawn, planned with a live chart, compared, downloaded; nothing leaves the loopback."""
    server = start_server(tmp_path / "data", threads_per_plan=2)
    page = open_page(str(server.http.base_url), color_scheme="light", expected_errors=("status of 422",))
    page.get_by_role("button", name="Try the sample trace").click()
    page.locator("#affinity-map canvas.map").wait_for()
    assert "8 layers of 32 experts, top-2, 20,480 tokens" in page.locator("#trace-facts").inner_text()
    assert inked(page, "#affinity-map canvas.map") > 50
    assert inked(page, "#load-map canvas.map") > 50

    page.get_by_label("Topology").fill("2x2")
    page.get_by_label("Time limit").fill("3")
    page.evaluate(SEEN)
    page.get_by_role("button", name="Find a plan").click()
    until(lambda: page.locator("#status").inner_text() == "succeeded")
    while_running = {number for status, number in page.evaluate("window.seen") if status == "running"}
    assert len(while_running - {0}) >= 2, "points arrive while it searches"
    assert points(page) >= max(while_running)

    page.locator("#replayed").wait_for()
    assert page.locator("#figures tbody tr").count() == 8, "five figures, and balance per pass of three sizes"
    assert page.locator("#travel-note").inner_text().startswith("No engine was named: tokens were taken to go straight")
    assert page.locator("#before-note").inner_text().startswith("Before is the contiguous layout")
    assert inked(page, "#traffic-before canvas.map") > 5
    assert inked(page, "#load-after canvas.map") > 5
    page.get_by_label("Experts by").select_option("gpu")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the plan").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)

    plan = Plan.load(file)
    plan_id = page.locator("#plan-id").inner_text()
    kept = server.http.get(f"/v1/plans/{plan_id}/plan").json()
    assert json.loads(file.read_text()) == kept
    engines = page.get_by_label("For an engine")
    assert engines.locator("option").all_inner_texts() == [export.engine for export in EXPORTS]
    engines.select_option(next(export.engine for export in EXPORTS if export.name == "csv"))
    with page.expect_download() as download:
        page.locator("#export").click()
    assert download.value.suggested_filename == f"{plan_id}-csv.csv"
    engines.select_option("sglang")
    page.locator("#export").click()
    assert "go home after every layer" in page.locator("#take-problem li").inner_text()
    page.get_by_label("Layers of the model").fill("8")
    page.get_by_label("First with experts").fill("0")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download it all the same").click()
    assert download.value.suggested_filename == f"{plan_id}-sglang.json"
    trace = load(ROOT / "examples" / "tiny_moe" / "tiny_moe.npz")
    assert isinstance(trace, Trace)
    replayed = evaluate(plan, trace, Topology.parse("2x2"))
    away = int(replayed.traffic_matrix.sum() - replayed.traffic_matrix.trace())
    assert f"{away:,} pairs leave their GPU" in page.locator("#traffic-after").inner_text()
    assert [item["id"] for item in server.http.get("/v1/plans").json()["items"]] == [plan_id], "no plan is left behind"

    page.screenshot(path=artefacts() / "page-light.png", full_page=True)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
    page.screenshot(path=artefacts() / "page-dark.png", full_page=True)


def sent(page: Any) -> dict[str, Any]:
    """Ask for a plan, and return what the body says beside trace, topology and limits; the service does not see it."""
    refusal = {"title": "Refused", "detail": "by the test.", "errors": []}
    page.route("**/v1/plans", lambda route: route.fulfill(status=422, json=refusal))
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/plans")) as asked:
        page.get_by_role("button", name="Find a plan").click()
    page.get_by_text("by the test.").wait_for()
    page.unroute("**/v1/plans")
    found: dict[str, Any] = asked.value.post_data_json
    return {name: value for name, value in found.items() if name not in ("trace", "topology", "limits")}


def recorded(folder: Path) -> Path:
    """Write what SGLang's recorder leaves, as one file."""
    records = write_bundle(folder / "dump", sglang_records(Toy(layers=4, moe=(1, 2, 3)), tokens=True))
    with tarfile.open(folder / "dump.tar", "w") as archive:
        archive.add(records, "dump")
    return folder / "dump.tar"


def test_verdict_is_on_top_where_time_counts(server: Any, open_page: Callable[..., Any]) -> None:
    """With machine and model, the topology follows, the verdict comes first, and each layer's time is drawn."""
    page = open_page(str(server.http.base_url), color_scheme="light")
    page.get_by_role("button", name="Try the sample trace").click()
    page.locator("#affinity-map canvas.map").wait_for()
    page.get_by_label("Machine").fill("h200:2x2")
    assert page.get_by_label("Topology").is_disabled()
    page.get_by_label("Model", exact=True).fill("gpt-oss-20b")
    page.get_by_label("Tokens per GPU").fill("256")
    page.get_by_label("Load cap").fill("")
    page.get_by_label("Time limit").fill("6")  # long enough to be looked at on a busy machine
    page.get_by_role("button", name="Find a plan").click()
    until(lambda: page.locator("#status").inner_text() == "succeeded")
    page.locator("#replayed").wait_for()
    assert page.locator("#verdict-sentence").inner_text().startswith(("Worth it: ", "Not worth it: ", "Not enough "))
    text = page.locator("#verdict-parts").inner_text()
    assert "messages between nodes" in text
    assert "step, ms" in text
    assert inked(page, "#layer-chart canvas") > 5
    page.screenshot(path=artefacts() / "verdict.png", full_page=True)


def test_engine_comes_first(tmp_path: Path, server: Any, open_page: Callable[..., Any]) -> None:
    """The engine of the trace is chosen; the body names it and nothing that it settles, unless that is changed."""
    page = open_page(str(server.http.base_url), color_scheme="light", expected_errors=("status of 422",))
    page.locator("#file").set_input_files(recorded(tmp_path))
    page.locator("#affinity-map canvas.map").wait_for()
    engine, algorithm = page.get_by_label("Engine", exact=True), page.get_by_label("Algorithm")
    assert engine.input_value() == "sglang"
    assert "it recorded this trace" in page.locator("#engine-hint").inner_text()
    listed = engine.locator("option").evaluate_all("options => options.map(option => option.value)")
    assert listed == ["", *ENGINES]
    assert algorithm.locator("option").evaluate_all("options => options.map(option => option.value)") == list(
        ENGINES["sglang"].algorithms
    )
    assert not page.get_by_label("Execution").is_visible()
    page.get_by_label("Load cap").fill("")
    page.get_by_label("Redundant experts").fill("4")
    assert page.get_by_label("Slots per GPU").is_disabled()
    assert sent(page) == {"engine": "sglang:static", "constraints": {}, "redundant_experts": 4}
    page.get_by_label("Redundant experts").fill("")
    page.get_by_label("Slots per GPU").fill("5")
    algorithm.select_option("dynamic")
    assert sent(page) == {"engine": "sglang:dynamic", "constraints": {}, "slots_per_gpu": 5}
    page.locator("#advanced summary").click()
    page.get_by_label("Sent once per").select_option("gpu")
    assert sent(page)["objective"] == {"dedup": "gpu"}
    page.get_by_label("Slots per GPU").fill("")
    page.get_by_label("Load cap").fill("1.1")
    engine.select_option("megatron")
    assert sent(page) == {"engine": "megatron", "constraints": {"load_cap": 1.1}}
    assert not algorithm.is_visible()
    # A trace of an engine is planned for it where a body says nothing: "none named" has to say something.
    engine.select_option("")
    assert page.get_by_label("Execution").is_visible()
    assert sent(page) == {"objective": {"execution": "context_coherent"}, "constraints": {"load_cap": 1.1}}


def test_plan_for_an_engine(tmp_path: Path, server: Any, open_page: Callable[..., Any]) -> None:
    """A plan for an engine is compared with the layout that the engine has, and its file is the one that is offered."""
    page = open_page(str(server.http.base_url), color_scheme="light")
    page.locator("#file").set_input_files(recorded(tmp_path))
    page.get_by_label("Topology").fill("2x2")
    page.get_by_label("Load cap").fill("")
    page.get_by_label("Redundant experts").fill("4")
    page.get_by_label("Time limit").fill("1")
    page.get_by_role("button", name="Find a plan").click()
    until(lambda: page.locator("#status").inner_text() == "succeeded")
    page.locator("#replayed").wait_for()
    before = "Before is the modulo layout, which SGLang uses when nobody plans."
    assert page.locator("#before-note").inner_text() == before
    assert page.locator("#travel-note").is_hidden()
    assert page.locator("#figures tbody th").first.inner_text().startswith("Messages")
    assert "–" not in page.locator("#figures tbody tr").first.inner_text().split("\t"), "before, after and change"
    assert page.locator("#format").input_value() == "sglang"
    page.get_by_label("Layers of the model").fill("4")
    page.get_by_label("First with experts").fill("1")
    with page.expect_download() as download:
        page.locator("#export").click()
    assert download.value.suggested_filename.endswith("-sglang.json")
    plan_id = page.locator("#plan-id").inner_text()
    assert server.http.get(f"/v1/plans/{plan_id}").json()["request"]["engine"] == "sglang:static"
    page.screenshot(path=artefacts() / "page-engine-light.png", full_page=True)
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out of a narrow screen"
    right = "parts => parts.map(part => part.getBoundingClientRect().right)"
    assert max(page.locator("section > *, .choices > *").evaluate_all(right)) <= 390 - 8
    page.screenshot(path=artefacts() / "page-engine-narrow.png", full_page=True)


def used(page: Any) -> list[str]:
    """Use the page as far as the maps of the sample, and return what its style makes of the button."""
    page.get_by_role("button", name="Try the sample trace").click()
    page.locator("#affinity-map canvas.map").wait_for()
    script = "button => { const {color, backgroundColor} = getComputedStyle(button); return [color, backgroundColor]; }"
    found: list[str] = page.locator("#sample").evaluate(script)
    return found


def test_page_works_when_it_is_loaded_again(server: Any, open_page: Callable[..., Any]) -> None:
    """Reloaded, in a second tab and come back to, the page that the browser has kept runs and is styled as at first."""
    url, earlier = str(server.http.base_url), len(server.log.read_text().splitlines())
    page = open_page(url)
    first = used(page)
    page.context.set_default_timeout(20_000)  # what is compiled is compiled, and a page without its script does nothing

    page.reload()
    assert used(page) == first
    second = page.context.new_page()
    second.goto(url)
    assert used(second) == first
    second.goto(f"{url}/healthz")
    second.go_back()
    assert used(second) == first
    second.goto(f"{url}/healthz")
    second.goto(url)
    assert used(second) == first

    told = [json.loads(line) for line in server.log.read_text().splitlines()[earlier:]]
    statuses = [line["status"] for line in told if line["event"] == "request" and line["path"] == "/"]
    assert statuses[0] == 200
    assert len(statuses) > 3
    assert set(statuses[1:]) == {304}, "the browser asked whether what it has kept still holds"


def test_asks_for_a_key_and_shows_what_is_wrong(
    tmp_path: Path, start_server: Callable[..., Any], open_page: Callable[..., Any]
) -> None:
    """With authentication the page asks for a key, keeps it in the tab only, and shows every violation of a request."""
    from api.service.lifecycle import Service
    from api.settings.settings import Settings

    server = start_server(tmp_path / "data", auth="required")
    service = Service(Settings(data_dir=tmp_path / "data"))
    key, _ = service.services.keys.create("team", ("write",), name=None, days=None)
    service.database.close()
    page = open_page(str(server.http.base_url), expected_errors=("status of 401", "status of 422"))
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Use it").click()
    page.get_by_role("button", name="Forget the key").wait_for()
    page.get_by_role("button", name="Try the sample trace").click()
    page.locator("#affinity-map canvas.map").wait_for()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert page.evaluate("Object.values(sessionStorage)") == [key]

    page.get_by_label("Load cap").fill("0.5")
    page.get_by_label("Slots per GPU").fill("0")
    page.get_by_role("button", name="Find a plan").click()
    shown = page.locator("#plan-problem li")
    shown.first.wait_for()
    assert sorted(text.split()[0] for text in shown.all_inner_texts()) == ["/constraints/load_cap", "/slots_per_gpu"]
    assert page.locator("[aria-invalid=true]").count() == 2


def test_says_how_to_read_a_file_and_what_is_held_out(
    tmp_path: Path, server: Any, open_page: Callable[..., Any]
) -> None:
    """Fields around the file go with its upload, what the service refuses is marked, and a plan is held out by time."""
    ids = np.random.default_rng(0).random((120, 2, 6)).argsort(axis=2)[..., :2]
    np.savez(tmp_path / "fused.npz", topk_ids=np.insert(ids, 2, 6, axis=2), seq_id=np.arange(120) // 6)
    page = open_page(str(server.http.base_url), expected_errors=("status of 409", "status of 422"))
    page.get_by_text("How to read the next file").click()
    page.get_by_label("Phase").select_option("decode")
    page.locator("#file").set_input_files(tmp_path / "fused.npz")
    page.locator("#trace-problem .problem").wait_for()
    assert page.locator("[aria-invalid=true]").get_attribute("id") == "phase"

    page.get_by_label("Phase").select_option("")
    page.get_by_label("Experts per layer").fill("6")
    page.get_by_label("Ids beyond the experts").select_option("none")
    page.get_by_label("Only these layers").fill("0-1")
    page.locator("#file").set_input_files(tmp_path / "fused.npz")
    page.locator("#affinity-map canvas.map").wait_for()
    assert "2 layers of 6 experts" in page.locator("#trace-facts").inner_text()

    page.get_by_label("Held out", exact=True).fill("0.25")
    page.get_by_label("Held out by").select_option("time")
    page.get_by_label("Topology").fill("1x2")
    page.get_by_label("Time limit").fill("1")
    page.get_by_role("button", name="Find a plan").click()
    page.locator("#plan-id").wait_for()
    asked = [item["request"] for item in server.http.get("/v1/plans").json()["items"]]
    assert ("time", 0.25) in [(one["hold_out_by"], one["hold_out"]) for one in asked]
