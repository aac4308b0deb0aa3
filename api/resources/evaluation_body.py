"""The shape of a request for an evaluation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from api.resources.schemas import Name, PlanFile, PlanId, Strict, TopologyField, TraceId, form
from placement.problem.objective import Dedup, Execution, Ownership, ReplicaPolicy
from placement.replay.passes import MAX_PASS_TOKENS, MAX_SIZES
from solvers.sources.source import Part
from traces.support.words import HoldOutBy

__all__ = ["EvaluationBody"]


class EvaluationBody(Strict):
    """A plan and the trace to replay through it.

    What is left out is taken from the plan: from its request, or, for an inline plan, from its provenance.
    """

    plan: Annotated[
        Annotated[PlanId, Tag("<text>")] | Annotated[PlanFile, Tag("<object>")],
        Discriminator(form),
        Field(description="Id of a plan, or the content of a plan file."),
    ]
    trace: TraceId
    topology: TopologyField | None = None
    engine: Name | None = Field(default=None, description="Replay as this engine does; what else is given wins.")
    execution: Execution | None = None
    dedup: Dedup | None = None
    ownership: Ownership | None = None
    replica_policy: ReplicaPolicy | None = None
    decode_batch: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Tokens per batch to count activated experts over, under dispatch; null: as the plan was made for.",
    )
    pass_tokens: Annotated[list[Annotated[int, Field(ge=1, le=MAX_PASS_TOKENS)]], Field(max_length=MAX_SIZES)] = Field(
        default=[], description="Tokens of a forward pass, for balance per pass; 64, 256 and 2,048 if empty."
    )
    part: Part = Field(default="all", description="Tokens to replay; the trace is split as for plans.")
    hold_out: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = Field(
        default=None, description="Share of the sequences that is held out, for the parts. 0.5 if null."
    )
    hold_out_by: HoldOutBy | None = Field(
        default=None, description="What the share is of: sequences, or dumps, if null."
    )
