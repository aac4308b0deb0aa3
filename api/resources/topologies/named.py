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
from traces import InputError

__all__ = ["with_topology"]

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
