"""Residency: from a body to `solvers.simulate_residency`, which runs in a helper process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.resources.declared import build
from api.resources.named import check_model
from api.resources.residency.body import KEPT, ResidencyBody
from api.resources.traces.stored import StoredTrace
from placement.residency.accesses import MAX_CHOICES
from solvers import ResidencyRequest, simulate_residency
from traces import InputError, Trace, Violations

__all__ = ["ResidencyTask", "residency", "residency_request"]

BYTES_PER_CHOICE = 80  # of both parts' accesses, and of what a policy says of each


@dataclass(frozen=True, kw_only=True)
class ResidencyTask:
    """Everything that is needed; pickles."""

    request: ResidencyRequest
    trace: StoredTrace


def residency_request(body: ResidencyBody) -> ResidencyRequest:
    """Build the request of a body.

    Raises
    ------
    InputError
        With all violations.
    """
    found = Violations()
    said = body.model_dump(exclude_unset=True, exclude={"trace", *KEPT})
    if body.model is not None:
        check_model(body.model, found)
    request: ResidencyRequest | None = build(ResidencyRequest, said, "", found, model=body.model)
    if request is not None and not found.found:
        try:
            request.time_model()
        except InputError as error:
            found.extend(error)
    found.raise_if_any()
    assert request is not None
    return request


def residency(task: ResidencyTask, max_bytes: int) -> dict[str, Any]:
    """Run policies on a stored trace.

    Parameters
    ----------
    task : ResidencyTask
    max_bytes : int
        Largest estimate of memory to let pass.

    Raises
    ------
    InputError
    """
    source = task.trace.open()
    if isinstance(source, Trace):
        choices = MAX_CHOICES
        if source.num_tokens is not None:
            choices = min(choices, source.num_tokens * source.num_layers * source.top_k)
        need = BYTES_PER_CHOICE * choices + 8 * source.num_layers * source.num_experts**2
        if need > max_bytes:
            detail = f"{source.num_layers} layers of {source.num_experts} experts need about {need / 1e9:.1f} GB."
            remedy = f"This service looks at residency up to {max_bytes / 1e9:.1f} GB."
            raise InputError.of("job_too_large", "/trace", detail, remedy)
    return simulate_residency(source, request=task.request).as_dict()
