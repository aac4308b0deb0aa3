"""``evaluate --server``: the tokens are replayed by a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.cli.remote.service import body_of

if TYPE_CHECKING:
    from api.client import Client
    from placement import Evaluation, Plan, SettledObjective, Topology
    from solvers.replays import PartFigures

__all__ = ["replay_remotely"]


def replay_remotely(
    service: Client,
    plan: Plan,
    plan_id: str | None,
    tokens: dict[str, Any],
    where: Topology,
    objective: SettledObjective,
) -> tuple[PartFigures, tuple[str, ...]]:
    """Have a service replay a trace both ways that tokens travel, as `solvers.replays.replay_both` does.

    Parameters
    ----------
    service : Client
    plan : Plan
    plan_id : str or None
        Its id, if the service has it; else its content is sent.
    tokens : dict
        ``trace``, its id; and, as in an evaluation's request, the ``part`` of it, the share to ``hold_out``, and
        ``pass_tokens``.
    where : Topology
    objective : SettledObjective
        How tokens travel; where activated experts have a weight, they are counted as well.

    Returns
    -------
    PartFigures, notes
    """
    from dataclasses import replace

    from api.resources.evaluation_body import EvaluationBody
    from placement import Evaluation
    from placement.replay.choices import choices_of
    from placement.topology.file import topology_to_dict
    from solvers.replays import PartFigures

    sent: dict[str, Any] = tokens | {"topology": topology_to_dict(where)}
    if plan_id is None:
        content = plan.as_dict()
        sent["plan"] = {name: value for name, value in content.items() if name not in ("provenance", "warnings")}
    else:
        sent["plan"] = plan_id

    def ask(**choices: str | int) -> tuple[Evaluation, tuple[str, ...]]:
        found = service.evaluate(body_of(EvaluationBody, sent | choices))
        return Evaluation.from_dict(found.model_dump(exclude={"notes"})), tuple(found.notes)

    own, notes = ask(**choices_of(objective))
    if objective.execution == "dispatch":
        other, _ = ask(execution="context_coherent", replica_policy="fair")
        return PartFigures(evaluation=own, context_coherent=other, dispatch=own), notes
    other, _ = ask(**choices_of(replace(objective, execution="dispatch", replica_policy="same_node")))
    return PartFigures(evaluation=own, context_coherent=own, dispatch=other), notes
