"""The Python client against a running service: uploads that resume, plans that are watched, errors that are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import api.client.connection
import api.client.streams
from api.client import Client, ServiceError
from api.resources.evaluation_body import EvaluationBody
from api.resources.evaluations.answers import Evaluation
from api.resources.replans.body import ReplanBody
from api.resources.schemas import FrontBody, PlanBody
from api.resources.series.bodies import SeriesBody, WindowBody
from api.resources.simulations.body import SimulationBody
from api.resources.topologies.bodies import TopologyBody


@pytest.fixture(scope="module")
def server(server_type: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run a service."""
    started = server_type.start(tmp_path_factory.mktemp("client") / "data")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def service(server: Any) -> Iterator[Client]:
    """Return a client of it."""
    with Client(str(server.http.base_url)) as client:
        yield client


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory, trace_bytes: bytes) -> Path:
    """Return the small valid trace as a file."""
    path = tmp_path_factory.mktemp("files") / "tiny.npz"
    path.write_bytes(trace_bytes)
    return path


def test_from_a_file_to_a_plan(service: Client, trace_file: Path) -> None:
    """A file is uploaded, a plan asked for, watched to its end, and judged."""
    trace = service.upload(trace_file, tags=["c"])
    assert (trace.name, trace.num_experts) == ("tiny.npz", 32)
    assert [item.id for item in service.traces(("c",))] == [trace.id]
    kept = service.keep_topology(TopologyBody(topology="1x4"))
    plan = service.plan(
        PlanBody.model_validate({"trace": trace.id, "topology": kept.id, "limits": {"work": 1000000}, "tags": ["c"]})
    )
    news = list(service.watch(plan.id))
    assert news[-1].status == "succeeded"
    finished = service.wait(plan.id)
    assert finished.score == news[-1].score
    assert service.look(plan.id) == finished
    assert service.plan_file(plan.id)["num_gpus"] == 4
    evaluated = service.evaluate(EvaluationBody(plan=plan.id, trace=trace.id))
    assert isinstance(evaluated, Evaluation)
    assert evaluated.tokens == 2000
    analysis = service.score(plan.id, layer=2, top=3)
    assert (analysis.plan, len(analysis.pairs)) == (plan.id, 3)
    assert analysis.score == pytest.approx(finished.score)
    assert [item.id for item in service.plans(("c",))] == [plan.id]
    assert service.solvers()[0].name == "auto"
    assert service.engines()[0].name == "sglang"
    assert service.topology(kept.id).num_gpus == 4
    with pytest.raises(ServiceError, match="layer"):
        service.export(plan.id, "sglang", force=True)
    with pytest.raises(ServiceError, match="go home after every layer"):
        service.export(plan.id, "sglang", model_layers=7, first_moe_layer=1)
    exported = json.loads(service.export(plan.id, "sglang", model_layers=7, first_moe_layer=1, layer=None, force=True))
    assert len(exported["physical_to_logical_map"]) == 7


def test_front_and_cancel(service: Client, trace_file: Path) -> None:
    """Fronts are asked for like plans; a cancelled plan keeps what it has."""
    trace = service.upload(trace_file)
    front = service.front(
        FrontBody.model_validate({"trace": trace.id, "topology": "1x4", "limits": {"work": 1000}, "points": 3})
    )
    assert service.front_state(front.id).id == front.id
    finished = service.wait_front(front.id, poll_s=0.1)
    assert finished.front is not None
    assert service.point_file(front.id, 0)["score"] == pytest.approx(finished.front["points"][0]["score"])
    long = FrontBody.model_validate({"trace": trace.id, "topology": "1x4", "limits": {"time_s": 50}, "points": 3})
    stopped = service.cancel_front(service.front(long).id)
    assert service.wait_front(stopped.id, poll_s=0.1).status == "cancelled"
    plan = service.plan(PlanBody.model_validate({"trace": trace.id, "topology": "1x4", "limits": {"time_s": 50}}))
    service.cancel(plan.id)
    assert service.wait(plan.id).status == "cancelled"


def test_series_replan_and_simulation(service: Client, trace_file: Path) -> None:
    """A stored trace is a window; what is asked of it comes back when it is finished."""
    trace = service.upload(trace_file)
    series = service.begin_series(SeriesBody(name="days"))
    assert service.add_window(series.id, WindowBody(trace=trace.id)).drift is None
    assert [window.trace for window in service.series(series.id).windows] == [trace.id]
    asked = {"trace": trace.id, "topology": "1x2", "solver": "contiguous"}
    plan = service.wait(service.plan(PlanBody.model_validate(asked)).id)
    again = {"trace": trace.id, "running": plan.id, "solver": "load_balance", "limits": {"time_s": 1}}
    replan = service.replan(ReplanBody.model_validate(again))
    assert (replan.status, replan.replaces) == ("succeeded", plan.id)
    simulated = service.simulate(SimulationBody.model_validate({"trace": trace.id, "topology": "1x2", "windows": 2}))
    assert simulated.simulation is not None
    assert simulated.simulation.windows == 2


def test_refusals_are_told(service: Client, trace_file: Path) -> None:
    """What the service refuses is an error with all that it says."""
    trace = service.upload(trace_file)
    with pytest.raises(ServiceError, match="solver") as caught:
        service.plan(PlanBody.model_validate({"trace": trace.id, "topology": "1x", "solver": "nobody"}))
    assert caught.value.status == 422
    assert caught.value.problem is not None
    assert {item.pointer for item in caught.value.problem.errors} == {"/topology", "/solver"}
    with pytest.raises(ServiceError) as missing:
        service.look("plan_" + "0" * 32)
    assert missing.value.status == 404


def test_unreachable_service_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: after some attempts the client says so."""
    monkeypatch.setattr(api.client.connection, "ATTEMPTS", 2)
    with Client("http://127.0.0.1:9", timeout_s=1) as nobody, pytest.raises(ServiceError, match="can't be reached"):
        nobody.look("plan_" + "0" * 32)


class Flaky(httpx2.BaseTransport):
    """Loses every third request before, and every fifth after it arrived."""

    def __init__(self) -> None:
        self._through = httpx2.HTTPTransport()
        self._count = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass a request on, or not."""
        self._count += 1
        if self._count % 3 == 0:
            raise httpx2.ConnectError("lost on the way")
        response = self._through.handle_request(request)
        if self._count % 5 == 0:
            response.read()
            raise httpx2.ReadError("lost on the way back")
        return response


def test_a_bad_network_changes_nothing(
    server: Any, make_trace_bytes: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a connection that loses requests and answers, a file arrives whole and one plan is made."""
    monkeypatch.setattr(api.client.streams, "PART_BYTES", 3000)
    content = make_trace_bytes(tokens=800, seed=3)
    (tmp_path / "flaky.npz").write_bytes(content)
    with Client(str(server.http.base_url), transport=Flaky()) as client:
        for _ in range(8):
            try:
                trace = client.upload(tmp_path / "flaky.npz")
                break
            except ServiceError:  # its beginning or its end was lost, which is not repeated by itself
                continue
        assert trace.bytes == len(content)
        body = PlanBody.model_validate(
            {"trace": trace.id, "topology": "1x2", "solver": "contiguous", "tags": ["flaky"]}
        )
        plan = client.plan(body)
        assert client.wait(plan.id).status == "succeeded"
        assert len(list(client.plans(("flaky",)))) == 1
