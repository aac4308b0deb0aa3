"""Policies of re-planning over a series: what they may know, what they take, and when the gate opens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from placement import Plan
from placement.moves.cost import moves_between
from solvers import PolicyRequest, Simulation, simulate
from solvers.policies.gate import Gate, Recipe, _expected, _kept
from solvers.policies.setting import Setting
from tests.builders.series import domain_trace, dumps_of, sequence_loads
from traces import InputError, Series
from traces.phases import PHASES
from traces.synthetic import Synthetic, generate

NAMES = ["never", "every_window", "eplb_every_window", "on_drift", "on_gain", "oracle"]
LAYERS, EXPERTS = 6, 16
SIZES: dict[str, Any] = {"topology": "1x4", "redundant_experts": 4, "window_passes": 2000}


def skewed(seed: int) -> npt.NDArray[np.float64]:
    """Return loads of one domain, far from even, (L, E)."""
    weight = np.arange(1.0, EXPERTS + 1) ** -1.2
    return np.random.default_rng(seed).permuted(np.tile(weight, (LAYERS, 1)), axis=1)


def counts_of(
    domains: list[int], tokens: float = 1e6, seed: int = 0, times: npt.NDArray[np.float64] | None = None
) -> Series:
    """Return a series of one dump per window, each drawn from the loads of a domain."""
    rng = np.random.default_rng(seed)
    loads = [rng.poisson(skewed(domain) / skewed(domain).sum(axis=1, keepdims=True) * tokens) for domain in domains]
    return Series.of(dumps_of(np.stack(loads), times))


@pytest.fixture(scope="module")
def turns() -> Series:
    """Return two domains that take turns."""
    return counts_of([0, 1] * 5)


@pytest.fixture(scope="module")
def simulated(turns: Series) -> Simulation:
    """Return their simulation."""
    return simulate(turns, **SIZES)


def test_policies_add_up(simulated: Simulation) -> None:
    """All six are there by their names, and each total is that of its windows, moves and stalls included."""
    assert [run.name for run in simulated.policies] == NAMES
    for run in simulated.policies:
        assert run.total_ms == pytest.approx(sum(each.ms for each in run.per_window))
        assert all(each.ms == pytest.approx(2000 * each.step_ms + each.cost_ms) for each in run.per_window)
        moved = [each.moved_experts for each in run.per_window if each.replanned]
        assert (run.replans, run.moved_experts) == (len(moved), sum(moved))
        assert all((each.cost_ms >= 910) == each.replanned for each in run.per_window)
    assert simulated["never"].replans == 0
    assert simulated["every_window"].replans == 9


def test_what_pays_is_told(simulated: Simulation) -> None:
    """A re-plan's net is what it gained on the plan before it until the next one, less its cost."""
    never, every = simulated["never"].per_window, simulated["every_window"].per_window
    first = every[1]
    assert first.net_ms == pytest.approx(2000 * (never[1].step_ms - first.step_ms) - first.cost_ms)
    assert simulated["every_window"].unpaid == sum((each.net_ms or 0) < 0 for each in every)


def test_gate_is_below_what_engines_do(simulated: Simulation) -> None:
    """Where domains take turns, the last window tells least of the next: the gate plans for both."""
    total = {run.name: run.total_ms for run in simulated.policies}
    assert total["on_gain"] < min(total[name] for name in ("never", "every_window", "eplb_every_window"))
    assert total["oracle"] <= min(total.values())


def test_policies_know_the_past_only(turns: Series, simulated: Simulation) -> None:
    """Another last window changes no earlier decision, and no plan that runs in it, of any policy but the oracle."""
    last = replace(turns.windows[-1], load=turns.windows[-1].load[:, ::-1].copy())
    other = simulate(replace(turns, windows=(*turns.windows[:-1], last)), **SIZES)
    for name in NAMES[:-1]:
        seen, changed = (
            [
                (each.moved_experts, each.cost_ms, each.reason, each.step_ms if each.window < 9 else 0)
                for each in windows
            ]
            for windows in (simulated[name].per_window, other[name].per_window)
        )
        assert seen == changed


def test_stationary_series_is_planned_once() -> None:
    """Where nothing changes, the gate plans once, which pays, and leaves it."""
    for seed in range(4):
        run = simulate(counts_of([0] * 8, seed=seed), **SIZES)["on_gain"]
        assert (run.replans, run.unpaid) == (1, 0)


def test_stationary_sequences_are_left_alone() -> None:
    """Few sequences whose tokens are alike differ from window to window; a plan of the first one is kept."""
    unpaid = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        windows = np.stack([sequence_loads(rng, 30, LAYERS, EXPERTS).sum(axis=0) for _ in range(8)])
        unpaid += simulate(Series.of(dumps_of(windows)), **SIZES)["on_gain"].unpaid
    assert unpaid <= 1


def test_change_for_good_is_followed() -> None:
    """Loads that change for good are re-planned for from the first window that shows it."""
    run = simulate(counts_of([0] * 4 + [1] * 3), **SIZES)["on_gain"]
    assert [each.window for each in run.per_window if each.replanned] == [1, 5]
    assert run.per_window[-1].step_ms < 1.05 * run.per_window[3].step_ms


def test_steady_drift_is_followed_at_once() -> None:
    """From the second window on, whose loads the running plan does not fit any more."""
    ends = [skewed(domain) / skewed(domain).sum(axis=1, keepdims=True) for domain in (0, 1)]
    loads = np.stack([(1 - part) * ends[0] + part * ends[1] for part in np.linspace(0, 1, 5)])
    found = simulate(Series.of(dumps_of(np.rint(1e6 * loads))), **SIZES | {"window_passes": 100_000})
    assert [each.replanned for each in found["on_gain"].per_window] == [False, True, True, True, True]


def test_odd_window_is_left_again() -> None:
    """After one window of another kind, the plan for what was before is back, and stays."""
    run = simulate(counts_of([0, 0, 0, 1, 0, 0, 0]), **SIZES | {"window_passes": 20_000})["on_gain"]
    assert run.per_window[-1].step_ms < 1.02 * run.per_window[2].step_ms
    assert not run.per_window[-1].replanned


def test_hours_of_the_day_are_followed() -> None:
    """What is planned for the hour to come is judged by the last window of that hour, and follows day and night."""
    times = 1_700_006_400 + 43_200 * np.arange(10, dtype=np.float64)
    run = simulate(counts_of([0, 1] * 5, times=times), **SIZES | {"window_passes": 200_000})["on_gain"]
    assert all(each.replanned for each in run.per_window[5:])
    assert run.per_window[-1].step_ms < 1.05 * min(each.step_ms for each in run.per_window)


def test_promises_that_did_not_come_true_count_less(turns: Series) -> None:
    """Where domains take turns, a plan for the last window promises much, and little of that is expected."""
    setting = Setting.of(turns, PolicyRequest(**SIZES))
    plans = [setting.start, *(setting.plan(shares) for shares in turns.shares[:4])]
    told = Gate(setting=setting)._promised(Recipe(name="last", made=5), plans)
    assert told.kept == told.gain_ms == 0
    assert told.evidence == 3


def test_costly_stall_is_not_paid(turns: Series) -> None:
    """What costs more than it gains is left alone: the gate is `never` then."""
    found = simulate(turns, **SIZES, stall_ms=1e9)
    assert found["on_gain"].replans == found["oracle"].replans == 0
    assert not found.now["replan"]
    assert found["every_window"].total_ms > 9e9


def test_tokens_are_judged_as_tokens() -> None:
    """Windows of tokens are timed on their own tokens; the first plan is judged on sequences that it had not seen."""
    series = Series.of(domain_trace(0, 2, 24, tokens=120, layers=6, skew=0.3), windows=6)
    asked: dict[str, Any] = {"topology": "1x4", "redundant_experts": 0, "phase": "prefill", "stall_ms": 0.0}
    setting = Setting.of(series, PolicyRequest(**asked))
    assert len(setting.judges) == 6
    decision = Gate(setting=setting).decide(1, [setting.start])
    assert decision.recipe is not None
    assert (decision.recipe.made, decision.evidence) == (1, 0)
    assert decision.kept == pytest.approx(0.7)
    found = simulate(series, **asked)
    assert found["on_drift"].per_window[2].reason.startswith("loads differ by")
    assert found["oracle"].total_ms <= min(run.total_ms for run in found.policies)


def test_moves_are_those_of_the_plans(turns: Series) -> None:
    """What a move costs is the stall and the transfer of the experts that GPUs have to be sent."""
    setting = Setting.of(turns, PolicyRequest(**SIZES))
    plan = setting.settled(setting.start, setting.plan(turns.shares[0]))
    move = setting.move(setting.start, plan)
    maps = (setting.start.physical_to_logical_map, plan.physical_to_logical_map)
    moves = moves_between(*maps, EXPERTS, np.zeros(4, np.int64), 44_040_192)
    assert (move.experts, move.bytes) == (moves.experts, moves.bytes)
    assert move.ms == pytest.approx(910 + 1e3 * (moves.transfer_s(setting.links) or 0))


def test_gate_looks_at_fewer_moves(turns: Series) -> None:
    """Plans on the way from one plan to another: the best by the same loads, and most of it for fewer moves."""
    setting = Setting.of(turns, PolicyRequest(**SIZES))
    shares = turns.shares[1]
    running = setting.settled(setting.start, setting.plan(turns.shares[0]))
    target = setting.settled(running, setting.plan(shares))
    few, best = setting.fewer_moves(running, target, shares)
    before, whole, part, most = (setting.expected(plan, shares).ms for plan in (running, target, few, best))
    assert setting.move(running, few).experts < setting.move(running, target).experts
    assert before - part >= 0.9 * (before - most)
    assert most <= whole


def test_gain_is_taken_for_what_is_beyond_chance() -> None:
    """Nothing where parts or layers differ as much as they gain, all of it where they agree, never more."""
    clear, noisy = np.full((3, 4), 2.0), np.array([[5.0, -4.0], [-4.0, 5.0]])
    assert _expected(clear, together=True) == pytest.approx(8.0)
    assert _expected(noisy, together=True) == 0
    assert _expected(-clear, together=True) == pytest.approx(-8.0)
    assert 0 < _expected(clear + np.array([[0.5], [-0.5], [0.0]]), together=True) < 8


def test_parts_that_differ_together_say_less() -> None:
    """Sequences of different kinds gain in all layers or in none, tokens drawn one by one in each layer apart."""
    gains = np.array([[3.0, 3.0, 3.0], [1.0, 1.0, 1.0]])
    assert _expected(gains, together=True) == 0
    assert 4 < _expected(gains, together=False) < 6


def test_part_of_promises_that_comes_true() -> None:
    """What is assumed, alone; what was seen beside it, by the squares of promises; less where windows differ."""
    assert _kept(np.array([1.0]), np.array([0.7])) == pytest.approx(0.7)
    assert _kept(np.array([1.0, 1.0, 1.0]), np.full(3, 0.7)) == pytest.approx(0.7)
    assert 0 < _kept(np.array([1.0, 1.0, 1.0]), np.array([0.7, 1.3, 0.1])) < 0.7
    assert _kept(np.array([1.0, 9.0]), np.array([0.7, 0.9])) < 0.2
    assert _kept(np.array([1.0, 9.0]), np.array([0.7, 90.0])) <= 1
    assert _kept(np.array([1.0, 2.0]), np.array([0.7, -2.0])) == 0


def test_running_plan_is_where_all_begin(turns: Series) -> None:
    """A plan that is given runs in the first window, and under `never` in all of them."""
    table = np.tile(np.r_[np.arange(EXPERTS)[::-1], [0, 1, 2, 3]], (LAYERS, 1))
    plan = Plan.of(table, layer_ids=np.arange(LAYERS), num_experts=EXPERTS, gpus_per_node=(4,))
    found = simulate(turns, topology="1x4", plan=plan, window_passes=2000)
    own = simulate(turns, **SIZES)
    assert {run.per_window[0].step_ms for run in found.policies} == {found["never"].per_window[0].step_ms}
    assert found["never"].total_ms != own["never"].total_ms


def test_engines_settings(simulated: Simulation) -> None:
    """The cheapest setting of each engine is recommended; each window without a threshold is EPLB every window."""
    for engine in ("sglang", "vllm"):
        tried = [each for each in simulated.engine_settings if each.engine == engine]
        best = [each for each in tried if each.recommended]
        assert [each.total_ms for each in best] == [min(each.total_ms for each in tried)]
        assert tried[0].total_ms == pytest.approx(simulated["eplb_every_window"].total_ms)
    assert "--eplb-rebalance-num-iterations 4000" in simulated.engine_settings[3].options


def test_what_was_assumed_is_told(simulated: Simulation) -> None:
    """Machine and model that nobody named are said first."""
    assert "No machine was named" in simulated.notes[0]
    assert "No model was named" in simulated.notes[1]


def test_other_phases_are_told() -> None:
    """Tokens of prefill that stand for decode are no secret."""
    params = Synthetic(num_layers=2, num_experts=8, top_k=2, num_tokens=512, tokens_per_sequence=32, decode_share=0.25)
    series = Series.of(generate(params), windows=2)
    notes = {phase: Setting.of(series, PolicyRequest(topology="1x2", phase=phase)).notes for phase in PHASES}
    assert "75% of the tokens are of another phase, and stand for decode." in notes["decode"]
    assert "25% of the tokens are of another phase, and stand for prefill." in notes["prefill"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "topology_missing"),
        ({"topology": "1x4", "machine": "h200:1x8"}, "nodes_differ"),
        ({"topology": "1x4", "model": "deepseek-v3"}, "experts_differ"),
        ({"topology": "1x4", "windows": 5}, "without_effect"),
        ({"topology": "1x4", "horizon_windows": 0}, "horizon_windows_range"),
        ({"topology": "1x4", "engine": "exflow"}, "execution"),
    ],
)
def test_what_does_not_fit_is_refused(turns: Series, asked: dict[str, Any], code: str) -> None:
    """Every refusal names what is wrong."""
    with pytest.raises(InputError) as caught:
        simulate(turns, **asked)
    assert caught.value.violations[0].code == code
