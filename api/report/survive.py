"""What a plan survives, as a JSON-ready document and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from api.report.tables import table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from placement import Plan, Topology
    from solvers import FailureEvent
    from solvers.failures.request import FailureRequest

__all__ = ["survive_document", "survive_text"]


def survive_document(
    plan: Plan,
    topology: Topology,
    request: FailureRequest,
    load: npt.NDArray[np.float64] | None = None,
    events: Sequence[FailureEvent] | None = None,
) -> dict[str, Any]:
    """Return what a plan survives, what to do when each unit fails, and what a schedule brings.

    Returns
    -------
    dict
        ``survival`` (see `placement.Survival`), ``degraded`` (per unit: number, lost, possible, reloads, bytes,
        largest_load, ranks, and the `Plan` itself), ``schedule`` (per event), or None.
    """
    import numpy as np

    from placement import prove_survival
    from placement.survival.domains import failure_domains
    from solvers import degraded, simulate_failures

    proof = prove_survival(plan, topology, request.survive, load=load)
    domain = failure_domains(topology, request.survive.unit)
    size = request.expert_bytes
    rows = []
    for number in range(proof.domains):
        found = degraded(plan, topology, np.flatnonzero(domain == number).tolist(), load)
        bytes_ = None if size is None else size * len(found.reloads)
        rows.append({"unit": proof.unit, "number": number, "bytes": bytes_, "plan": found.plan} | found.as_dict())
    states = None
    if events is not None:
        states = [each.as_dict() for each in simulate_failures(plan, topology, request.survive.unit, events, load)]
        if size is not None:
            states = [each | {"bytes": size * each["loaded"]} for each in states]
    return {"survival": proof.as_dict(), "degraded": rows, "schedule": states}


def survive_text(found: dict[str, Any]) -> str:
    """Return the verdict, a line per unit that may fail, and a line per event."""
    proof = found["survival"]
    lines = [proof["sentence"]]
    if proof["least_lost"] is not None and not proof["survives"]:
        lines.append(
            f"No plan with these slots loses fewer than {proof['least_lost']} experts of a layer to its worst failure; "
            f"all survive from {proof['slots_needed']} slots per GPU on."
            if proof["least_lost"]
            else "These slots are enough for a plan that survives: solve with the same --survive."
        )
    lines.append("")
    rows = [
        [
            f"{row['unit']} {row['number']}",
            str(row["lost"]),
            str(len(row["reloads"])) if row["possible"] else "-",
            "-" if row["largest_load"] is None else f"{row['largest_load']:.4f}",
            "" if row["possible"] else "too few slots are left",
        ]
        for row in found["degraded"]
    ]
    lines.append(table(["fails", "experts lost", "slots loaded", "max/mean load after", ""], rows))
    if found["schedule"] is not None:
        rows = [
            [
                f"{row['at']:g}",
                f"{'fails' if 'fail' in row else 'joins'} {row.get('fail', row.get('join'))}",
                *(str(row[name]) for name in ("gpus", "lost", "loaded")),
                "-" if row["largest_load"] is None else f"{row['largest_load']:.4f}",
            ]
            for row in found["schedule"]
        ]
        header = ["time", "event", "GPUs", "experts lost", "slots loaded", "max/mean load after"]
        lines += ["", table(header, rows, left=2)]
    return "\n".join(lines)
