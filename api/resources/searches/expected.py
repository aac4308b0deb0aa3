"""How long a worker will be busy with a request, as far as it can be told: short ones must not wait for long ones."""

from __future__ import annotations

from solvers import Request
from solvers.requests.request import FrontRequest

__all__ = ["expected_s"]

# Rates of a slow machine: what is thought to be short should be.
READ_BYTES_PER_S = 20e6
WORK_PER_S = 1e6


def expected_s(request: Request, trace_bytes: int, max_time_limit_s: float) -> float:
    """Return the seconds that a search may take, with the reading of its trace.

    Parameters
    ----------
    request : Request
    trace_bytes : int
    max_time_limit_s : float
        Where every search ends.
    """
    limits = request.limits.of_front() if isinstance(request, FrontRequest) else request.limits
    ends = [max_time_limit_s]
    if limits.time_s is not None:
        ends.append(limits.time_s)
    if limits.work is not None:
        ends.append(limits.work / WORK_PER_S)
    searches = 1 if isinstance(request, FrontRequest) else request.seeds
    return min(max_time_limit_s, min(ends) * searches) + trace_bytes / READ_BYTES_PER_S
