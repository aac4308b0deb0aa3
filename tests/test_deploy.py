"""The files in deploy/: they parse, name real settings and figures, and run nothing as root."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from api.service.app import create_app
from api.settings.settings import Settings
from api.telemetry.gauges import PlanLoad

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
VARIABLES = {f"MOE_PLACEMENT_{name.upper()}" for name in Settings.model_fields}
SERIES = re.compile(r"moe_placement_\w+")
PARTS = re.compile("_(bucket|sum|count|total)$")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the figures that /metrics tells, without the endings of their series."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("service"), max_workers=1))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        load = PlanLoad(tenant="local", plan="plan_1", trace="sha256:1", imbalance=1.25, hottest_share=0.5, gap=0.1)
        app.state.services.metrics.finished("annealing", "succeeded", 2.0, load)
        text = client.get("/metrics").raise_for_status().text
    found = {PARTS.sub("", name) for name in re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)}
    return {name for name in found if not name.endswith("_created")}


def documents(name: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_variables_are_settings(path: Path) -> None:
    """Every variable that looks like a setting is one."""
    assert set(re.findall(r"MOE_PLACEMENT_[A-Z_]+", path.read_text())) <= VARIABLES


def test_values_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The service starts with what each file sets: no open server without authentication, nothing out of range."""
    container = documents("kubernetes.yaml")[3]["spec"]["template"]["spec"]["containers"][0]
    compose = documents("compose.yaml")[0]["services"]["service"]["environment"]
    image = dict(re.findall(r"(MOE_PLACEMENT_[A-Z_]+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    lines = (DEPLOY / "moe-placement.service").read_text()
    unit = dict(re.findall(r"^Environment=(MOE_PLACEMENT_[A-Z_]+)=(.+)$", lines, re.MULTILINE))
    kubernetes = {item["name"]: item.get("value", "") for item in container["env"]}
    for given in (image, image | compose, image | kubernetes, unit):
        with monkeypatch.context() as patched:
            for name, value in given.items():
                patched.setenv(name, value)
            settings = Settings()
        assert settings.data_dir.is_absolute()
    assert Settings(data_dir=tmp_path, database_url="").store_url.startswith("sqlite:")


def test_image() -> None:
    """The image is built in stages, runs as a user with a number, and is asked whether it is ready."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert lines.index("USER 10001:10001") > max(n for n, line in enumerate(lines) if line.startswith("RUN "))
    assert any("readyz" in line for line in lines)
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    assert any("pip install" in line and '".[service,' in line for line in lines), "without the extra there is no serve"
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    shipped = build["targets"]["wheel"]["packages"]
    assert [name for name in shipped if f"COPY {name} {name}" not in lines] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in shipped if f"!{name}" not in ignored] == []
    assert ignored[0] == "*", "what is not named does not get into an image"


def test_compose() -> None:
    """The service waits for its database, writes to its volume only, and gives up what it does not need."""
    content = documents("compose.yaml")[0]
    service, database = content["services"]["service"], content["services"]["database"]
    assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "healthcheck" in database
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "ports" not in database
    mounts = {mount.split(":")[0] for part in (service, database) for mount in part["volumes"]}
    assert mounts == set(content["volumes"])
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert (context / service["build"]["dockerfile"]).is_file()


def test_kubernetes() -> None:
    """Names fit together, probes ask what there is, and the container is locked down."""
    found = documents("kubernetes.yaml")
    assert [item["kind"] for item in found] == ["Secret", "Secret", "PersistentVolumeClaim", "Deployment", "Service"]
    deployment, service = found[3]["spec"], found[4]["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    assert deployment["template"]["metadata"]["labels"].items() >= service["selector"].items()
    assert deployment["strategy"] == {"type": "Recreate"}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == found[2]["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths <= set(create_app(Settings(data_dir=Path("unused"))).openapi()["paths"])
    asked = [item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item]
    assert asked
    for item in asked:
        secret = next(part for part in found if part["metadata"]["name"] == item["name"])
        assert item["key"] in secret["stringData"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit(tmp_path: Path) -> None:
    """The unit has no directive that systemd does not know."""
    text = (DEPLOY / "moe-placement.service").read_text().replace("/opt/moe-placement/bin/moe-placement", "/bin/true")
    (tmp_path / "moe-placement.service").write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "moe-placement.service")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in found.stderr.splitlines() if "moe-placement.service" in line]
    assert not told, told


def expressions() -> Iterator[str]:
    """Return what the dashboard asks Prometheus."""
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_dashboard_shows_what_there_is(families: set[str]) -> None:
    """Every series of the dashboard is one that the service tells, and every figure of the service has a panel."""
    shown = {PARTS.sub("", name) for text in expressions() for name in SERIES.findall(text)}
    assert shown == families


def test_dashboard_panels_fit() -> None:
    """Panels have ids of their own and don't overlap."""
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_docs_list_the_figures(families: set[str]) -> None:
    """The table of metrics is complete."""
    text = (ROOT / "docs" / "operations.md").read_text()
    listed = {PARTS.sub("", name) for name in re.findall(r"^\| `(moe_placement_\w+)", text, re.MULTILINE)}
    assert listed == families


def test_docs_sort_the_settings() -> None:
    """Every setting has its topic, one each."""
    text = (ROOT / "docs" / "operations.md").read_text().partition("## Settings by topic")[2].partition("\n## ")[0]
    listed = re.findall(r"`([A-Z_]+)`", text.partition("|---|")[2])
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


def test_docs_name_real_tests() -> None:
    """The threat model points to tests that exist."""
    named = set(re.findall(r"`(test_\w+\.py)`", (ROOT / "docs" / "security.md").read_text()))
    assert named
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
