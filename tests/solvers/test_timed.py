"""Time as what is minimised: a safe bound, weights as slopes, plans chosen by their time, the same at every door."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli import app
from api.resources.requests import request_of
from api.resources.schemas import PlanBody
from placement import Objective, Plan, score
from solvers import Limits, Study, advice_on
from solvers.requests.request import Request
from solvers.requests.served import Timed
from solvers.timed.bound import least_step_ms
from solvers.timed.weights import in_milliseconds
from traces import InputError, LoadCounts, Trace, save
from traces.synthetic import Synthetic, generate

LIMITS = Limits(work=3_000)


@cache
def tokens(count: int = 2048) -> Trace:
    """Return skewed tokens of two layers."""
    return generate(
        Synthetic(
            num_layers=2,
            num_experts=128,
            top_k=8,
            num_tokens=count,
            skew=0.8,
            affinity=0.5,
            tokens_per_sequence=32,
        )
    )


def timed(machine: str = "h200:2x2", **fields: Any) -> Timed:
    """Return what is asked of time."""
    asked: dict[str, Any] = {"machine": machine, "model": "qwen3-30b-a3b", "tokens_per_gpu": 64}
    return Timed(**(asked | fields))


def study(trace: Trace | None = None, asked: Timed | None = None, **fields: Any) -> Study:
    """Return a study in milliseconds."""
    asked = asked or timed()
    return Study.of(trace or tokens(), time=asked, limits=LIMITS, workers=1, engine="sglang", **fields)


def random_plan(of: Study, seed: int) -> Plan:
    """Return a plan of random experts, each of them somewhere."""
    rng, problem = np.random.default_rng(seed), of.problem
    table = np.stack([rng.permutation(problem.num_slots) for _ in range(problem.num_layers)])
    again = rng.integers(problem.num_experts, size=table.shape)  # a further replica, or none
    return problem.plan(np.where(table < problem.num_experts, table, np.where(again % 3, again, -1)))


@pytest.mark.parametrize("overlap", ["none", "two_batch"])
@pytest.mark.parametrize(
    ("machine", "phase", "per_gpu", "slots"),
    [
        ("h200:2x2", "prefill", 64, 40),
        ("h200:2x2@2", "prefill", 64, 40),
        ("h20:1x4", "decode", 16, 32),  # a roofline
        ("h200:1x2+h100:1x2", "decode", 64, 32),
        ("gb200:1x4", "prefill", 4096, 36),  # more than there is: a pass that is scaled up
    ],
)
def test_no_plan_takes_less_than_the_bound(machine: str, phase: Any, per_gpu: int, slots: int, overlap: Any) -> None:
    """Random plans, with replicas too, and the plan that was found take at least the bound, which says something."""
    asked = timed(machine, timed_phase=phase, tokens_per_gpu=per_gpu, overlap=overlap)
    of = study(asked=asked, slots_per_gpu=slots)
    judge = of.judges["fit"]
    bound = least_step_ms(judge, slots)
    steps = [judge.step_ms(random_plan(of, seed)) for seed in range(4)]
    steps.append(of.solve("load_balance").plan.score or 0.0)
    assert bound <= min(steps)
    assert bound > 0.35 * min(steps)


def test_bound_is_the_time_where_there_is_nothing_to_choose() -> None:
    """On one GPU every plan takes what the bound says."""
    of = study(asked=timed("h200:1x1"), solver="contiguous")
    found = of.solve()
    assert found.plan.score == pytest.approx(found.plan.bound)


def test_bound_of_halves_knows_how_unevenly_they_fall() -> None:
    """On one GPU nothing else leaves room: experts of odd counts lie on odd slots, whose halves all go one way."""
    blocks, odd = np.arange(128).reshape(16, 8), np.arange(1, 128, 2).reshape(8, 8)
    ids = np.tile(np.concatenate([blocks, blocks, blocks, odd, *[blocks[:4]] * 2]), (16, 1))
    trace = Trace.of(np.repeat(ids[:, None], 2, axis=1).astype(np.int16), num_experts=128)
    asked = timed("h100:1x1", timed_phase="prefill", overlap="two_batch", rest_ms=0.0)
    of = study(trace, asked, slots_per_gpu=128, hold_out=0.0)
    step = of.judges["fit"].step_ms(of.solve("contiguous").plan)
    assert 0.9 * step < least_step_ms(of.judges["fit"], 128) <= step * (1 + 1e-12)


def test_weights_are_the_slopes_of_the_step() -> None:
    """All messages weigh what the exchange takes; of what overlaps with longer computing, half."""
    of = study()
    judge, plan = of.judges["fit"], of.baseline
    assert plan is not None
    weighed = in_milliseconds(of.problem, judge, plan)
    assert weighed is not None
    times, objective = judge.times(plan).mean(), weighed.objective
    traffic = score(of.problem, plan)["traffic"].value
    exchange = float((times.dispatch + times.combine).sum())
    assert objective.traffic_weight * traffic == pytest.approx(exchange, rel=0.05)
    hidden = study(asked=timed(overlap="two_batch", rest_ms=50.0))
    covered = in_milliseconds(hidden.problem, hidden.judges["fit"], plan)
    assert covered is not None
    shorter = hidden.judges["fit"].times(plan).mean()
    half = float((shorter.dispatch + shorter.combine).sum()) / 2
    assert covered.objective.traffic_weight * traffic == pytest.approx(half, rel=0.05)


def test_plan_of_least_time_is_kept() -> None:
    """The score is the step's time on the fitted passes, not above that of any plan that was tried."""
    events: list[float] = []
    of = study()
    found = of.solve("load_balance", observe=lambda event: events.append(event.score or 0.0))
    judge = of.judges["fit"]
    assert found.plan.score == found.score.total == pytest.approx(judge.step_ms(found.plan))
    assert of.baseline is not None
    assert found.score.total < judge.step_ms(of.baseline)
    assert events == sorted(events, reverse=True)
    assert [term.weight for term in found.score.terms] == [1.0, *[0.0] * (len(found.score.terms) - 1)]
    assert found.plan.provenance["time"] == {
        "unit": "ms per forward pass",
        "machine": "h200:2x2",
        "model": "qwen3-30b-a3b",
        "phase": "prefill",
    }
    again = of.solve("load_balance", start=found.plan)
    assert again.score.total <= found.score.total
    row = of.compare(plan=found.plan)["plan"]
    assert row.score == found.plan.score
    assert set(row.step_ms) == {"fit", "held_out"}


def test_gap_is_one_of_milliseconds() -> None:
    """A gap that the first plans are within ends the search before the slopes are tried."""
    of = study()
    names: list[str] = []
    found = of.solve("grace", limits=Limits(work=3_000, gap=0.9), observe=lambda event: names.append(event.solver))
    assert found.plan.gap is not None
    assert found.plan.gap <= 0.9
    assert not any("weighed" in name for name in names)


def test_what_does_not_go_with_time_is_refused() -> None:
    """Machine and model belong together; weights, other nodes and counts have no meaning."""
    broken: tuple[tuple[dict[str, Any], str], ...] = (
        ({"machine": "h200:1x4"}, "field_missing"),
        ({"model": "olmoe"}, "field_missing"),
        ({"overlap": "two_batch"}, "without_effect"),
    )
    for fields, code in broken:
        with pytest.raises(InputError) as error:
            Timed(**fields)
        assert {each.code for each in error.value.violations} == {code}
    with pytest.raises(InputError) as error:
        Request(topology="1x8", time=timed(), objective=Objective(imbalance_weight=3.0))
    assert {each.code for each in error.value.violations} == {"nodes_differ", "without_effect"}
    counts = LoadCounts.of(np.ones((2, 128), int))
    with pytest.raises(InputError, match="Time needs tokens"):
        Study.of(counts, time=timed(), engine="sglang")
    with pytest.raises(InputError, match="straight from layer to layer"):
        Study.of(tokens(), time=timed(), engine="exflow")
    with pytest.raises(InputError, match="A front weighs"):
        study().front()


def test_topology_follows_from_the_machine() -> None:
    """None is needed beside it, and device classes are as fast as their kernels in such passes; a given one wins."""
    speed = Request(time=timed("h100:1x2+h20:1x2", tokens_per_gpu=2048)).machine.speed
    assert speed[2] < 0.5
    assert Request(time=timed("h100:1x2+h20:1x2"), topology="2x2").machine.speed.tolist() == [1] * 4
    with pytest.raises(InputError, match="A plan needs a machine"):
        Request()


def test_service_reads_no_path_for_a_model() -> None:
    """A model that it does not know is told with all else that is wrong, and never looked for."""
    timed_body = {"trace": f"sha256:{'0' * 64}", "time": {"machine": "h100:1x2+h999:1x2", "model": "/dev/null"}}
    body = PlanBody.model_validate(timed_body)
    with pytest.raises(InputError) as error:
        request_of(body, 10.0)
    assert {each.code for each in error.value.violations} == {"unknown_model", "unknown_gpu"}


def test_command_line_finds_the_plan_of_python(tmp_path: Path) -> None:
    """``solve --machine --model`` gives the plan and the milliseconds that Python gives, with classes of devices."""
    mixed = "h200:1x2+h20:1x2"
    path, out = tmp_path / "trace.npz", tmp_path / "plan.json"
    save(tokens(), path)
    options = ("--machine", mixed, "--model", "qwen3-30b-a3b", "--tokens-per-gpu", "64", "--engine", "sglang")
    report = tmp_path / "report.html"
    more = ("--solver", "load-balance", "--work-limit", "3000", "--workers", "1")
    files = ("-o", str(out), "--json", "--report", str(report))
    done = CliRunner().invoke(app, ["solve", str(path), *options, *more, *files])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    expected = Study.of(path, time=timed(mixed), limits=LIMITS, workers=1, engine="sglang").solve("load_balance").plan
    assert document["unit"] == "ms per forward pass"
    assert document["score"] == expected.score
    assert Plan.load(out).physical_to_logical_map.tolist() == expected.physical_to_logical_map.tolist()
    assert document["summary"]["plans"]["plan"]["step_ms"]["fit"] == expected.score
    told = report.read_text()
    assert told.index("messages between nodes") < told.index("Which is better"), "the verdict is on top"


def test_verdict_on_the_plan_that_was_found() -> None:
    """It is judged on tokens held out against the plan that runs, with the time of each layer."""
    of = study()
    found = of.solve("load_balance")
    advice = advice_on(of, found.plan)
    told = advice.detailed()
    assert told["step_ms_after"] == pytest.approx(of.compare(plan=found.plan)["plan"].step_ms["held_out"])
    assert [layer["layer_id"] for layer in told["layers"]] == of.problem.profile.layer_ids.tolist()
    assert sum(layer["after_ms"] for layer in told["layers"]) == pytest.approx(told["step_ms_after"])
    assert any("stalls about" in reason for reason in told["reasons"])
    unmoved = advice_on(study(start=found.plan), found.plan)
    assert unmoved.gain_fraction == 0
    assert unmoved.verdict != "worth_it"
    with pytest.raises(InputError, match="no machine"):
        advice_on(Study.of(tokens(), "2x2"), found.plan)
