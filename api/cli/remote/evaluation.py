"""``evaluate --server``: the tokens are replayed by a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.cli.remote.service import body_of

if TYPE_CHECKING:
    from api.client import Client
    from placement import Evaluation, Plan, SettledObjective, Topology
    from solvers.judging.counted import CountsFigures
    from solvers.judging.replays import PartFigures

__all__ = ["expect_remotely", "replay_remotely"]


def replay_remotely(
    service: Client,
    plan: Plan,
    plan_id: str | None,
    tokens: dict[str, Any],
    where: Topology,
    objective: SettledObjective,
) -> tuple[PartFigures, tuple[str, ...]]:
    """Have a service replay a trace both ways that tokens travel, as `solvers.judging.replays.replay_both` does.

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
    from api.resources.evaluations.answers import Evaluation as Answer
    from placement import Evaluation
    from placement.replay.choices import choices_of
    from solvers.judging.replays import PartFigures

    sent = _asked(plan, plan_id, tokens, where)

    def ask(**choices: str | int) -> tuple[Evaluation, tuple[str, ...]]:
        found = service.evaluate(body_of(EvaluationBody, sent | choices))
        assert isinstance(found, Answer)  # of tokens
        return Evaluation.from_dict(found.model_dump(exclude={"kind", "notes"})), tuple(found.notes)

    own, notes = ask(**choices_of(objective))
    if objective.execution == "dispatch":
        other, _ = ask(execution="context_coherent", replica_policy="fair")
        return PartFigures(evaluation=own, context_coherent=other, dispatch=own), notes
    other, _ = ask(**choices_of(replace(objective, execution="dispatch", replica_policy="same_node")))
    return PartFigures(evaluation=own, context_coherent=own, dispatch=other), notes


def expect_remotely(
    service: Client,
    plan: Plan,
    plan_id: str | None,
    counts: dict[str, Any],
    where: Topology,
    replica_policy: str | None,
) -> tuple[CountsFigures, tuple[str, ...]]:
    """Have a service tell what a plan makes of counts, as `solvers.judging.counted.counts_figures` does.

    Parameters
    ----------
    service : Client
    plan : Plan
    plan_id : str or None
        Its id, if the service has it; else its content is sent.
    counts : dict
        ``trace``, ``part`` and ``hold_out``, as in an evaluation's request, and ``engine``.
    where : Topology
    replica_policy : str or None
        As asked; None: the engine's, else as the plan was made for.

    Returns
    -------
    CountsFigures, notes
    """
    from api.resources.evaluation_body import EvaluationBody
    from api.resources.evaluations.answers import CountsEvaluation
    from placement import ExpectedLoads
    from placement.replay.choices import recorded_choices
    from solvers.judging.counted import CountsFigures, DumpFigures

    if replica_policy is None and counts["engine"] is None:  # the content that is sent does not record it
        replica_policy = recorded_choices(plan.provenance).get("replica_policy")
    sent = _asked(plan, plan_id, counts, where) | {"replica_policy": replica_policy}
    found = service.evaluate(body_of(EvaluationBody, sent))
    assert isinstance(found, CountsEvaluation)
    figures = set(ExpectedLoads.__dataclass_fields__)
    return CountsFigures(
        loads=ExpectedLoads(**found.model_dump(include=figures)),
        dumps=tuple(
            DumpFigures(name=dump.name, part=counts["part"], loads=ExpectedLoads(**dump.model_dump(include=figures)))
            for dump in found.dumps
        ),
        replica_policy=found.replica_policy,
    ), tuple(found.notes)


def _asked(plan: Plan, plan_id: str | None, tokens: dict[str, Any], where: Topology) -> dict[str, Any]:
    """Return what every request for an evaluation says."""
    from placement.topology.file import topology_to_dict

    sent: dict[str, Any] = tokens | {"topology": topology_to_dict(where)}
    if plan_id is not None:
        return sent | {"plan": plan_id}
    content = plan.as_dict()
    return sent | {"plan": {name: value for name, value in content.items() if name not in ("provenance", "warnings")}}
