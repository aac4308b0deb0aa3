"""Bodies that name a stored topology by its id."""

from __future__ import annotations

from typing import TypeVar, cast

from api.resources.evaluation_body import EvaluationBody
from api.resources.mixtures.body import MixtureBody
from api.resources.replans.body import ReplanBody
from api.resources.schemas import FrontBody, PlanBody, TopologyFile
from api.resources.simulations.body import SimulationBody
from api.resources.survival.body import SurvivalBody
from api.store.tenant import TenantStore
from traces import InputError, Violations

__all__ = ["topology_or_any", "with_topology"]

Body = TypeVar(
    "Body", bound=PlanBody | FrontBody | EvaluationBody | ReplanBody | SimulationBody | SurvivalBody | MixtureBody
)


def with_topology(store: TenantStore, body: Body) -> Body:
    """Return the body with the content of the stored topology that it names, so that it does not change any more.

    Raises
    ------
    InputError
        If there is no such topology.
    """
    named = body.topology
    if not (isinstance(named, str) and named.startswith("topo_")):
        return body
    row = store.topologies.get(named)
    if row is None:
        detail = f"There is no topology {named[:100]}."
        raise InputError.of("unknown_topology", "/topology", detail, "Make it with POST /v1/topologies.")
    content = row.content if isinstance(row.content, str) else TopologyFile.model_validate(row.content)
    return cast("Body", body.model_copy(update={"topology": content}))


def topology_or_any(store: TenantStore, body: Body, found: Violations) -> Body:
    """Return the body as `with_topology` does; with some topology where that is not there, once this is reported."""
    try:
        return with_topology(store, body)
    except InputError as error:
        found.extend(error)
        return cast("Body", body.model_copy(update={"topology": "1x1"}))
