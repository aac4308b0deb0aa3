"""Advice: from a body to `solvers.advise`, which runs in a helper process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.resources.advice.body import KEPT, AdviceBody
from api.resources.declared import build
from api.resources.named import check_model, plan_of
from api.resources.traces.stored import StoredTrace
from solvers import AdviceRequest, advise, advise_both
from traces import InputError, Violations

__all__ = ["AdviceTask", "advice", "advice_request"]


@dataclass(frozen=True, kw_only=True)
class AdviceTask:
    """Everything that an advice needs; pickles."""

    request: AdviceRequest
    trace: StoredTrace
    workers: int | None


def advice_request(body: AdviceBody, plan: Mapping[str, Any] | None, max_time_s: float) -> AdviceRequest:
    """Build the request of a body.

    Parameters
    ----------
    body : AdviceBody
    plan : mapping or None
        Content of the plan that runs.
    max_time_s : float
        Longest search: what a helper has is for reading, searching and timing together.

    Raises
    ------
    InputError
        With all violations.
    """
    found = Violations()
    said = body.model_dump(exclude_unset=True, exclude={"trace", *KEPT})
    running = None if plan is None else plan_of(plan, "/plan", found)
    check_model(body.model, found)
    request: AdviceRequest | None = build(AdviceRequest, said, "", found, model=body.model, plan=running)
    if request is not None:
        limits = request.limits
        if limits.time_s is None or limits.time_s > max_time_s:
            detail = "A search here has a time limit, as a client waits for its answer."
            found.add("limit_range", "/limits/time_s", detail, f"Give at most {max_time_s:g} s.")
        if not found.found:
            try:
                for phase in ("prefill", "decode"):
                    if request.phase in (phase, "both"):
                        request.time_model("prefill" if phase == "prefill" else "decode")
            except InputError as error:
                found.extend(error)
    found.raise_if_any()
    assert request is not None
    return request


def advice(task: AdviceTask, max_bytes: int) -> dict[str, Any]:
    """Advise on a stored trace.

    Parameters
    ----------
    task : AdviceTask
    max_bytes : int
        Largest estimate of memory to let pass.

    Raises
    ------
    InputError
    """
    from placement.time import Machine

    gpus = Machine.parse(task.request.machine).num_gpus
    source = task.trace.open()
    need = 24 * 4 * 32 * source.num_layers * (2 * source.num_experts + 5 * gpus)
    if need > max_bytes:
        detail = f"{source.num_layers} layers and {gpus} GPUs need about {need / 1e9:.1f} GB."
        remedy = f"This service takes advice up to {max_bytes / 1e9:.1f} GB."
        raise InputError.of("job_too_large", "/machine", detail, remedy)
    ask = advise_both if task.request.phase == "both" else advise
    return ask(source, request=task.request, workers=task.workers).as_dict()
