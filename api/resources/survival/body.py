"""The shape of a request about failures: the declaration of the library, and what the service keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag

from api.resources.declared import body_model
from api.resources.schemas import INT64, Finite, PlanFile, PlanId, Strict, TopologyField, TraceId, form
from solvers.failures.request import FailureRequest

__all__ = ["KEPT", "SurvivalBody"]

KEPT = frozenset({"topology"})  # declared here: what the service keeps
MAX_EVENTS = 1000
Unit = Annotated[int, Field(ge=0, le=INT64)]

if TYPE_CHECKING:

    class FailureFields(Strict):
        """Whose fields are made from the declaration of `FailureRequest`."""

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    FailureFields = body_model(FailureRequest, Strict, KEPT)


class ScheduledEvent(Strict):
    """A unit that fails, or comes back: one of both."""

    at: Finite = Field(description="Time, in any unit.")
    fail: Unit | None = Field(default=None, description="GPU, host or node that fails.")
    join: Unit | None = Field(default=None, description="The same, where it comes back.")


class SurvivalBody(FailureFields):
    """A question about failures."""

    plan: Annotated[
        Annotated[PlanId, Tag("<text>")] | Annotated[PlanFile, Tag("<object>")],
        Discriminator(form),
        Field(description="Plan by id or whole."),
    ]
    topology: TopologyField | None = Field(default=None, description="As the plan records it by default.")
    trace: TraceId | None = Field(default=None, description="Tokens or counts, for the loads of what is left.")
    schedule: Annotated[list[ScheduledEvent], Field(max_length=MAX_EVENTS)] | None = Field(
        default=None,
        description='Failures and joins to go through: `[{"at": 10, "fail": 3}, {"at": 50, "join": 3}]`.',
    )
    plans: bool = Field(default=False, description="Whether to give the plan that each unit's failure asks for.")
