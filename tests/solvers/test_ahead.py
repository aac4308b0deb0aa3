"""What follows a search is done while it runs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from placement import Objective
from solvers import Limits, Study, ahead
from solvers.ahead import Ahead, judge_tiny
from solvers.searching.events import Event
from traces.synthetic import Synthetic, generate

FIRST = Event(kind="bound", elapsed_s=0.0, solver="auto", score=None, bound=1.0, gap=None)
TRACE = Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=256, tokens_per_sequence=32)


def _study(**limits: Any) -> Study:
    objective = Objective(execution="dispatch")
    return Study.of(generate(TRACE), "2x2", slots_per_gpu=2, objective=objective, limits=Limits(**limits), workers=1)


def test_the_baseline_is_replayed_once_and_its_figures_are_the_same(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault would be hidden, as whoever compares replays what is missing."""
    study = _study(time_s=10.0)
    wanted = study.compare(workers=1).as_dict()
    running = Ahead(study, workers=2)
    with caplog.at_level(logging.DEBUG, logger="solvers.ahead"):
        running.observe(FIRST)
        running.observe(FIRST)
        running.join()
    assert not caplog.records
    monkeypatch.setattr("placement.replay.evaluator.Evaluator.add", None)  # no token is replayed any more
    assert study.compare(workers=1).as_dict() == wanted


@pytest.mark.parametrize(("workers", "time_s", "begins"), [(1, 10.0, True), (2, 1e-4, True), (2, None, False)])
def test_a_search_keeps_its_cores(workers: int, time_s: float | None, begins: bool) -> None:
    """With one core, or too little time, only what has to be loaded is; without a clock, nothing."""
    study = _study(**({"work": 1} if time_s is None else {"time_s": time_s}))
    running = Ahead(study, workers)
    running.observe(FIRST)
    running.join()
    assert (running._thread is not None) == begins
    assert "judged_baseline" not in study.__dict__


def test_judging_takes_longer_the_more_tokens_and_experts_there_are() -> None:
    """Both parts are judged: the fitted one has half of the tokens here."""
    expected = 256 * 2 * 2 * (2 + ahead.PAIRS_OF_DISPATCH) / ahead.PAIRS_PER_S
    assert Ahead(_study(time_s=1.0)).judging_s == pytest.approx(expected)


def test_a_tiny_plan_is_judged() -> None:
    """A fault of it would be hidden, as whoever judges the real plan gets the error."""
    judge_tiny()
