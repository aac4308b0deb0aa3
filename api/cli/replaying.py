"""How ``evaluate`` and ``compare`` replay: as asked, as an engine does, else as the plan was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from api.cli.placements import read_placement
from api.cli.progress import Progress
from api.cli.reading import TraceReading, open_planned
from api.cli.remote.service import fetch_plan, is_plan, machine_of, service_at
from api.cli.remote.trace import send_trace

if TYPE_CHECKING:
    from api.cli.declared import Asked
    from api.client import Client
    from placement import Plan, SettledObjective, Topology
    from solvers.judging.counted import CountsFigures
    from solvers.judging.replays import PartFigures
    from traces import LoadCounts, ModelLayout, Trace
    from traces.support.words import HoldOutBy

    Replay = Callable[[Path, Plan, Topology, SettledObjective], PartFigures]
    Expected = Callable[[Path, Plan, Topology, str | None], CountsFigures]

__all__ = ["CHOICES", "REPLAY_OPTIONS", "Replays", "check_part", "counted", "local_options", "travel"]

CHOICES = ("execution", "dedup", "ownership", "replica_policy")
REPLAY_OPTIONS = ("engine", "topology", *CHOICES, "decode_batch", "pass_tokens", "hold_out", "hold_out_by")


@dataclass(frozen=True, kw_only=True)
class Replays:
    """Plans, the tokens to replay through them, and who does it.

    Attributes
    ----------
    plans : list of (Plan, Topology)
        With the topology of each: as asked, else as recorded in the plan, else from its nodes.
    tokens : Trace, LoadCounts or None
        None with a service.
    engine : dict
        What ``--engine`` says of the way that tokens travel.
    replay : callable
        For tokens.
    expected : callable or None
        For counts, with the policy of replicas that is asked for; None for tokens.
    notes : sequence of str
        On the tokens; with a service, after the replay.
    """

    plans: list[tuple[Plan, Topology]]
    tokens: Trace | LoadCounts | None
    engine: dict[str, Any]
    replay: Replay
    notes: Sequence[str]
    expected: Expected | None = None

    @classmethod
    def of(
        cls,
        files: Sequence[Path],
        trace: Path,
        asked: Asked,
        reading: TraceReading,
        *,
        part: str,
        plan_format: str | None,
        workers: int | None,
        server: str | None,
        stack: ExitStack,
        shown: Progress,
    ) -> Replays:
        """Read the plans and the trace that a command names; with a service, fetch and upload them."""
        from placement.replay.choices import engine_choices
        from traces import LoadCounts

        model = reading.layout()
        service = None if server is None else stack.enter_context(service_at(server))
        fetched = list(files)
        if service is not None:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            fetched = [fetch_plan(service, str(file), folder) if is_plan(file) else file for file in files]
        where = asked.get("topology")
        machine = None if where is None else machine_of(where, server)
        plans = [_plan_and_topology(file, machine, plan_format, reading, model) for file in fetched]
        hold_out, by = asked.get("hold_out"), asked.get("hold_out_by")
        own = tuple(dict.fromkeys(note for _, place in plans for note in (*place.notes, *place.warnings)))
        said = asked.get("engine") is not None or asked.get("objective", "execution") is not None
        untold = () if said else _untold(files[0], plans[0][0])
        name = asked.get("engine")
        if service is None:
            tokens, notes = _tokens(trace, part, hold_out, by, reading, model)
            engine, more = engine_choices(name, tokens)
            replay = _here(tokens, workers, asked.get("pass_tokens") or ())
            expected = _expected_here(tokens, part, name) if isinstance(tokens, LoadCounts) else None
            more = (*more, *(() if expected is not None else untold))
            told_here = (*own, *more, *notes)
            return cls(plans=plans, tokens=tokens, engine=engine, replay=replay, notes=told_here, expected=expected)
        shown.phase("uploading")
        sent = {"trace": send_trace(service, trace, reading.load_options(model)), "part": part, "hold_out": hold_out}
        sent |= {"hold_out_by": by}
        kept = service.trace(sent["trace"])
        if kept.kind == "counts":
            told: list[str] = [*own]
            more_of = _expected_there(service, sent | {"engine": name}, told)
            return cls(
                plans=plans, tokens=None, engine={}, replay=_there(service, sent, told), notes=told, expected=more_of
            )
        engine, more = engine_choices(name, kept.columns)
        sent |= {"pass_tokens": list(asked.get("pass_tokens") or ())}
        told = [*own, *more, *untold]
        return cls(plans=plans, tokens=None, engine=engine, replay=_there(service, sent, told), notes=told)

    def objective(self, plan: Plan, asked: Asked) -> SettledObjective:
        """Return how tokens travel through a plan: as asked, as the engine does, else as it was made for."""
        given = self.engine | {name: value for name in CHOICES if (value := asked.get("objective", name)) is not None}
        return travel(plan.provenance, given)


def travel(provenance: Mapping[str, Any], given: Mapping[str, Any]) -> SettledObjective:
    """Return how tokens travel in a replay: what is given, else what a plan's provenance records, else by default.

    Raises
    ------
    InputError
        If something that is given has no effect under the execution that follows.
    """
    from dataclasses import replace

    from placement.problem.objective import DECODE_BATCH
    from placement.replay.choices import replayed_objective

    objective, _ = replayed_objective(provenance, given, None)
    # What is counted besides is for `counted` to say.
    return replace(objective.settled(capped=False), activated_weight=0.0, decode_batch=DECODE_BATCH)


def counted(objective: SettledObjective, plan: Plan, decode_batch: int | None) -> SettledObjective:
    """Return the objective with a weight of activated experts if these are to be counted: as asked, else as recorded.

    Raises
    ------
    InputError
        If they are asked for under another execution than dispatch.
    """
    from dataclasses import replace

    from placement.replay.choices import decode_batch_of
    from traces import InputError

    batch = decode_batch_of(plan.provenance.get("objective"), decode_batch, objective.execution)
    if batch is None:
        return objective
    if objective.execution != "dispatch":
        detail = "Activated experts are counted with home ranks, which only dispatch knows."
        remedy = "Use execution 'dispatch', or leave it out."
        raise InputError.of("activated_execution", "/objective/decode_batch", detail, remedy)
    return replace(objective, activated_weight=1.0, decode_batch=batch)


def local_options(plans: Sequence[Path], workers: int | None, plan_format: str | None) -> dict[str, object]:
    """Return, by name, the options that are for this process or its own files; None where not given."""
    return {"--workers": workers, "--plan-format": plan_format if any(map(is_plan, plans)) else None}


def check_part(part: str, hold_out: float | None, by: str | None) -> None:
    """Refuse a share that would not be used: all tokens are not split."""
    if part == "all" and (hold_out or by is not None):
        raise typer.BadParameter(
            "All tokens are replayed, so nothing is held out. Add --part fit or --part held-out, or leave it out.",
            param_hint="--hold-out" if hold_out else "--hold-out-by",
        )


def _untold(path: Path, plan: Plan) -> tuple[str, ...]:
    """Say how tokens are taken to travel through a plan that does not tell: an engine's file, say."""
    from placement.replay.choices import recorded_choices

    if "execution" in recorded_choices(plan.provenance):
        return ()
    taken = "they are taken to go straight from one layer's experts to the next (ExFlow)"
    return (
        f"{path.name} does not say how tokens travel: {taken}. Most engines send them home: name it with --engine.",
    )


def _here(tokens: Trace | LoadCounts, workers: int | None, pass_tokens: tuple[int, ...]) -> Replay:
    from solvers.judging.replays import replay_both
    from traces import Trace

    def replay(_: Path, plan: Plan, where: Topology, objective: SettledObjective) -> PartFigures:
        assert isinstance(tokens, Trace)  # counts are told of otherwise
        found = replay_both({"": plan}, {"": tokens}, where, objective, pass_tokens=pass_tokens, workers=workers)
        return found["", ""]

    return replay


def _there(service: Client, sent: dict[str, Any], told: list[str]) -> Replay:
    from api.cli.remote.evaluation import replay_remotely

    def replay(name: Path, plan: Plan, where: Topology, objective: SettledObjective) -> PartFigures:
        known = str(name) if is_plan(name) else None
        found, notes = replay_remotely(service, plan, known, sent, where, objective)
        told.extend(note for note in notes if note not in told)
        return found

    return replay


def _expected_here(counts: LoadCounts, part: str, engine: str | None) -> Expected:
    from solvers.judging.counted import counts_figures

    def expected(_: Path, plan: Plan, where: Topology, policy: str | None) -> CountsFigures:
        return counts_figures(plan, counts, where, part, engine=engine, replica_policy=policy)

    return expected


def _expected_there(service: Client, sent: dict[str, Any], told: list[str]) -> Expected:
    from api.cli.remote.evaluation import expect_remotely

    def expected(name: Path, plan: Plan, where: Topology, policy: str | None) -> CountsFigures:
        known = str(name) if is_plan(name) else None
        found, notes = expect_remotely(service, plan, known, sent, where, policy)
        told.extend(note for note in notes if note not in told)
        return found

    return expected


def _plan_and_topology(
    path: Path, asked: Topology | None, format_name: str | None, reading: TraceReading, model: ModelLayout | None
) -> tuple[Plan, Topology]:
    from placement import Topology
    from placement.replay.choices import recorded_topology

    known: dict[str, Any] = {"model": model, "num_experts": reading.num_experts, "layer_ids": reading.named_layers()}
    plan = read_placement(path, format_name, topology=asked, **known)
    if asked is not None:
        return plan, asked
    return plan, recorded_topology(plan, f"{path.name}#") or Topology.of(plan.gpus_per_node)


def _tokens(
    path: Path,
    part: str,
    hold_out: float | None,
    by: HoldOutBy | None,
    reading: TraceReading,
    model: ModelLayout | None,
) -> tuple[Trace | LoadCounts, tuple[str, ...]]:
    from solvers.sources.source import part_of

    return part_of(open_planned(path, reading, model), part, hold_out, path.name, by)
