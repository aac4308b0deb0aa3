"""The client: a method for everything that the service does."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from api.client.connection import Connection
from api.client.streams import events_of, send_parts
from api.resources.catalogue.answers import EngineResource, SolverResource
from api.resources.evaluation_body import EvaluationBody
from api.resources.evaluations.answers import CountsEvaluation, Evaluation, ReplayAnswer
from api.resources.findings.answers import FindingsResource
from api.resources.fronts.answers import FrontResource
from api.resources.mixtures.answers import MixtureResource
from api.resources.mixtures.body import MixtureBody
from api.resources.plans.answers import PlanResource, PlanSummary
from api.resources.reading import ImportBody, UploadBody
from api.resources.replans.answers import ReplanResource
from api.resources.replans.body import ReplanBody
from api.resources.schemas import FrontBody, PlanBody
from api.resources.score.answers import ScoreAnalysis
from api.resources.searches.answers import JobState, News
from api.resources.series.answers import SeriesResource, SeriesWindow
from api.resources.series.bodies import SeriesBody, WindowBody
from api.resources.simulations.answers import SimulationResource
from api.resources.simulations.body import SimulationBody
from api.resources.survival.answers import SurvivalAnswer
from api.resources.survival.body import SurvivalBody
from api.resources.topologies.answers import TopologyResource
from api.resources.topologies.bodies import TopologyBody
from api.resources.traces.answers import TraceResource, UploadResource

__all__ = ["Client"]

WAIT_S = 30
Job = TypeVar("Job", bound=JobState)


class Client:
    """A connection to a service. Reading, and whatever has the same effect twice, is tried again when it fails.

    Parameters
    ----------
    url : str
        Of the service, without ``/v1``.
    key : str, optional
        API key or token.
    timeout_s : float
        For each answer.

    Raises
    ------
    ImportError
        Without httpx2: ``pip install "moe-placement[client]"``.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = 60.0, transport: Any = None) -> None:
        self._connection = Connection(url, key, timeout_s, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def upload(self, path: str | Path, *, name: str | None = None, **reading: Any) -> TraceResource:
        """Upload a trace in parts, which go on where they were when a connection is lost.

        Parameters
        ----------
        path : path
        name : str, optional
            Name to show; the file's by default.
        **reading
            See `traces.load`: format, num_experts, layer_ids, and so on; and tags.
        """
        file = Path(path)
        size = file.stat().st_size
        begin = UploadBody(name=name or file.name, bytes=size, **reading)
        upload = self._connection.send(UploadResource, "POST", "/v1/uploads", begin)
        place = f"/v1/uploads/{upload.id}"
        with file.open("rb") as stream:
            send_parts(self._connection, place, stream, size)
        return self._connection.send(TraceResource, "POST", f"{place}/finish")

    def import_trace(self, source: str, **fields: Any) -> TraceResource:
        """Have the service fetch a trace from where its operator allows."""
        return self._connection.send(TraceResource, "POST", "/v1/imports", ImportBody(source=source, **fields))

    def trace(self, trace_id: str) -> TraceResource:
        """Return what is known of a trace."""
        return self._connection.send(TraceResource, "GET", f"/v1/traces/{trace_id}")

    def findings(self, trace_id: str) -> FindingsResource:
        """Return what is wrong with the recording of a trace; the service reads it from start to end."""
        return self._connection.send(FindingsResource, "GET", f"/v1/traces/{trace_id}/findings")

    def traces(self, tags: tuple[str, ...] = ()) -> Iterator[TraceResource]:
        """Iterate over the traces, the newest first."""
        return self._connection.pages(TraceResource, "/v1/traces", tags)

    def keep_topology(self, topology: TopologyBody) -> TopologyResource:
        """Keep a topology under an id."""
        return self._connection.send(TopologyResource, "POST", "/v1/topologies", topology)

    def topology(self, topology_id: str) -> TopologyResource:
        """Return a topology that is kept."""
        return self._connection.send(TopologyResource, "GET", f"/v1/topologies/{topology_id}")

    def solvers(self) -> list[SolverResource]:
        """Return the solvers with the JSON Schema of their options."""
        return [
            SolverResource.model_validate(item) for item in self._connection.ask("GET", "/v1/solvers").json()["items"]
        ]

    def engines(self) -> list[EngineResource]:
        """Return the serving engines, with how tokens travel in each."""
        return [
            EngineResource.model_validate(item) for item in self._connection.ask("GET", "/v1/engines").json()["items"]
        ]

    def plan(self, body: PlanBody) -> PlanResource:
        """Ask for a plan, once: a request that is sent again after a failure makes no second one."""
        return self._connection.send(
            PlanResource, "POST", "/v1/plans", body, {"Idempotency-Key": secrets.token_hex(16)}
        )

    def plans(self, tags: tuple[str, ...] = ()) -> Iterator[PlanSummary]:
        """Iterate over the plans without their maps, the newest first."""
        return self._connection.pages(PlanSummary, "/v1/plans", tags)

    def look(self, plan_id: str) -> PlanResource:
        """Return the state of a plan, with the best that was found so far."""
        return self._connection.send(PlanResource, "GET", f"/v1/plans/{plan_id}")

    def wait(self, plan_id: str) -> PlanResource:
        """Return a plan when it is finished."""
        while True:
            header = {"Prefer": f"wait={WAIT_S}"}
            plan = self._connection.send(PlanResource, "GET", f"/v1/plans/{plan_id}", headers=header)
            if plan.status not in ("queued", "running"):
                return plan

    def watch(self, plan_id: str) -> Iterator[News]:
        """Iterate over the changes of a plan, from its first to its last; lost connections are opened again."""
        return events_of(self._connection, plan_id)

    def cancel(self, plan_id: str) -> PlanResource:
        """Stop a search and keep the best plan so far."""
        return self._connection.send(PlanResource, "POST", f"/v1/plans/{plan_id}/cancel")

    def plan_file(self, plan_id: str) -> dict[str, Any]:
        """Return the plan file of the best plan so far; of a re-plan, that of the plan to change to."""
        kind = "replans" if plan_id.startswith("replan_") else "plans"
        found: dict[str, Any] = self._connection.ask("GET", f"/v1/{kind}/{plan_id}/plan").json()
        return found

    def export(self, plan_id: str, engine: str, **writing: Any) -> bytes:
        """Return the file that an engine loads.

        Parameters
        ----------
        plan_id : str
        engine : str
            Format: ``sglang``, ``trtllm``, ...
        **writing
            The model's layers and what the file is keyed by: model_layers, first_moe_layer, moe_layers, mtp_layers,
            fill_missing, without_mtp, layer, model_class, mtp_model_class, model_name, pipeline_stages; and force, for
            an engine where tokens travel otherwise than the plan was made for.
        """
        query = {name: value for name, value in writing.items() if value is not None}
        content: bytes = self._connection.ask("GET", f"/v1/plans/{plan_id}/exports/{engine}", params=query).content
        return content

    def score(self, plan_id: str, *, layer: int | None = None, top: int = 20) -> ScoreAnalysis:
        """Return where the score of the best plan so far comes from.

        Parameters
        ----------
        plan_id : str
        layer : int, optional
            Model layer whose traffic between GPUs is shown; the one with most by default.
        top : int
            Most experts, pairs and replicas to name.
        """
        query = {"top": top} | ({} if layer is None else {"layer": layer})
        return ScoreAnalysis.model_validate_json(
            self._connection.ask("GET", f"/v1/plans/{plan_id}/score", params=query).content
        )

    def front(self, body: FrontBody) -> FrontResource:
        """Ask for a front; see `front_state`."""
        return self._connection.send(
            FrontResource, "POST", "/v1/fronts", body, {"Idempotency-Key": secrets.token_hex(16)}
        )

    def front_state(self, front_id: str) -> FrontResource:
        """Return the state of a front, and its points at the end."""
        return self._connection.send(FrontResource, "GET", f"/v1/fronts/{front_id}")

    def wait_front(self, front_id: str, poll_s: float = 0.5) -> FrontResource:
        """Return a front when it is finished; looks again after so many seconds."""
        while True:
            front = self.front_state(front_id)
            if front.status not in ("queued", "running"):
                return front
            time.sleep(poll_s)

    def cancel_front(self, front_id: str) -> FrontResource:
        """Stop the searches of a front and keep its points."""
        return self._connection.send(FrontResource, "POST", f"/v1/fronts/{front_id}/cancel")

    def point_file(self, front_id: str, number: int) -> dict[str, Any]:
        """Return the plan file of a point of a front, counted from 0."""
        found: dict[str, Any] = self._connection.ask("GET", f"/v1/fronts/{front_id}/points/{number}/plan").json()
        return found

    def begin_series(self, body: SeriesBody) -> SeriesResource:
        """Begin a series without windows."""
        return self._connection.send(SeriesResource, "POST", "/v1/series", body)

    def add_window(self, series_id: str, body: WindowBody) -> SeriesWindow:
        """Add a stored trace to a series as its last window; its drift is told."""
        return self._connection.send(SeriesWindow, "POST", f"/v1/series/{series_id}/windows", body)

    def series(self, series_id: str) -> SeriesResource:
        """Return a series with its windows and their drift."""
        return self._connection.send(SeriesResource, "GET", f"/v1/series/{series_id}")

    def replan(self, body: ReplanBody) -> ReplanResource:
        """Ask whether to change the plan that runs, and wait for the answer."""
        return self._finished(ReplanResource, "/v1/replans", body)

    def simulate(self, body: SimulationBody) -> SimulationResource:
        """Ask what policies would have taken on a series or a trace, and wait for the answer."""
        return self._finished(SimulationResource, "/v1/simulations", body)

    def mixture(self, body: MixtureBody) -> MixtureResource:
        """Ask for one plan for several domains, and wait for the answer."""
        return self._finished(MixtureResource, "/v1/mixtures", body)

    def survive(self, body: SurvivalBody) -> SurvivalAnswer:
        """Prove what a plan survives, or name the failing set."""
        return self._connection.send(SurvivalAnswer, "POST", "/v1/survival", body)

    def _finished(self, kind: type[Job], place: str, body: BaseModel) -> Job:
        """Ask for a job, once, and return it when it is finished; an interrupt (Ctrl-C) cancels it."""
        job = self._connection.send(kind, "POST", place, body, {"Idempotency-Key": secrets.token_hex(16)})
        try:
            while job.status in ("queued", "running"):
                job = self._connection.send(kind, "GET", f"{place}/{job.id}", headers={"Prefer": f"wait={WAIT_S}"})
        except KeyboardInterrupt:
            with suppress(Exception):  # whoever interrupts is to see that, also where the service is gone
                self._connection.send(kind, "POST", f"{place}/{job.id}/cancel")
            raise
        return job

    def evaluate(self, body: EvaluationBody) -> Evaluation | CountsEvaluation:
        """Replay a trace through a plan; of counts, return the loads of the GPUs that they lead to."""
        return self._connection.send(ReplayAnswer, "POST", "/v1/evaluations", body).root
