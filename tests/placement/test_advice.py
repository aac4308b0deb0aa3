"""Passes drawn from a trace, plans timed on them, and the rule that makes a verdict of the gain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from placement import Plan
from placement.advice.judging import Gain, Verdict, judge_gain, verdict_of
from placement.advice.sample import sample_passes
from placement.advice.timing import PlanOnPasses, mean_step_ms
from placement.advice.without_ep import all_gather, data_parallel, expert_counts, pulled_weights, tensor_parallel
from placement.time import LayerTimes, TimeModel, step_time
from placement.time.step import travel_in_steps
from traces import Trace
from traces.synthetic import Synthetic, generate

LAYERS, EXPERTS, TOP_K, GPUS = 2, 128, 8, 4
NAMES: dict[str, Any] = {
    "machine": "h200:2x2",
    "model": "qwen3-30b-a3b",
    "phase": "prefill",
    "tokens_per_gpu": 64,
    "weight_dtype": "fp8_block",
}
TIME = TimeModel.of(**NAMES)


def trace_of(tokens: int = 2048, skew: float = 0.0, seed: int = 0) -> Trace:
    """Return tokens in sequences of 32."""
    return generate(
        Synthetic(
            num_layers=LAYERS,
            num_experts=EXPERTS,
            top_k=TOP_K,
            num_tokens=tokens,
            skew=skew,
            affinity=0,
            tokens_per_sequence=32,
            seed=seed,
        )
    )


def plan_of(order: np.ndarray | None = None) -> Plan:
    """Return a plan with the experts of every layer in an order."""
    row = np.arange(EXPERTS) if order is None else order
    return Plan.of(np.tile(row, (LAYERS, 1)), layer_ids=range(LAYERS), num_experts=EXPERTS, gpus_per_node=(2, 2))


def on_passes(trace: Trace, plan: Plan, *, by_group: bool = False) -> PlanOnPasses:
    """Return a plan on the passes of a trace."""
    travel = travel_in_steps(trace, TIME, None, None, None, None)
    return PlanOnPasses(plan, sample_passes(trace, TIME.pass_tokens, "prefill"), TIME, travel, by_group=by_group)


def test_passes_are_timed_as_step_time_times_them() -> None:
    """In prefill, passes are the consecutive tokens that `step_time` replays, and take as long."""
    trace = trace_of()
    found = on_passes(trace, plan_of()).times()
    expected = step_time(plan_of(), trace, TIME)
    assert len(found.experts) == expected.passes == 8
    np.testing.assert_allclose(found.experts.mean(axis=0), expected.experts_ms)
    np.testing.assert_allclose(found.combine.mean(axis=0), expected.combine_ms)
    assert mean_step_ms(TIME, found) == pytest.approx(expected.step_ms)


def test_groups_add_up_to_passes() -> None:
    """A draw in which every group counts once is the sample itself."""
    grouped = on_passes(trace_of(), plan_of(), by_group=True)
    sample = grouped.sample
    drawn = grouped.drawn(np.ones((1, sample.groups), np.int64), np.arange(sample.passes)[None])
    whole = grouped.times()
    np.testing.assert_array_equal(drawn.experts[0], whole.experts)
    np.testing.assert_array_equal(drawn.dispatch_even[0], whole.dispatch_even)


def test_passes_of_decode_mix_sequences() -> None:
    """A decode pass takes one token of every sequence in turn, a prefill pass whole ones."""
    trace = trace_of(1024)
    for phase, sequences in (("prefill", 2), ("decode", 32)):
        sample = sample_passes(trace, 64, "decode" if phase == "decode" else "prefill")
        first = sample.tokens.select(sample.cell // sample.groups == 0)
        assert first.seq_id is not None
        assert len(np.unique(first.seq_id)) == sequences


def test_short_traces_are_scaled_to_a_pass() -> None:
    """Tokens that make less than a pass stand for one, and their counts add up to it."""
    sample = sample_passes(trace_of(128), 512, "prefill")
    assert (sample.passes, sample.scale) == (1, 4.0)
    assert expert_counts(sample, EXPERTS).sum() == pytest.approx(512 * TOP_K * LAYERS)


def test_the_same_plan_gains_nothing() -> None:
    """Before and after share draws and errors, so that a plan against itself gains exactly nothing."""
    plan = on_passes(trace_of(skew=0.5), plan_of(), by_group=True)
    gain = judge_gain(plan, plan, TIME, plan.sample)
    assert (gain.fraction, gain.interval) == (0.0, (0.0, 0.0))
    assert verdict_of(gain, 64, 100.0) == "not_worth_it"


def test_fewer_sequences_widen_the_interval() -> None:
    """A quarter of the tokens leaves a wider interval over sequences."""
    widths = []
    order = np.random.default_rng(0).permutation(EXPERTS)
    for tokens in (4096, 1024):
        trace = trace_of(tokens, skew=0.8)
        gain = judge_gain(
            on_passes(trace, plan_of(), by_group=True),
            on_passes(trace, plan_of(order), by_group=True),
            TIME,
            sample_passes(trace, TIME.pass_tokens, "prefill"),
        )
        low, high = gain.over_sequences
        assert low < gain.fraction < high
        widths.append(high - low)
    assert widths[1] > 1.3 * widths[0]


def gain_of(low: float, high: float, over: tuple[float, float]) -> Gain:
    """Return a gain with an interval."""
    layers = LayerTimes(dispatch=np.ones(1), experts=np.ones(1), combine=np.ones(1), rest=1.0)
    return Gain(
        before=layers,
        after=layers,
        remote_before=np.ones(1),
        remote_after=np.ones(1),
        step_ms_before=4.0,
        step_ms_after=4.0,
        fraction=(low + high) / 2,
        interval=(low, high),
        over_sequences=over,
        over_model=(low, high),
        moe_share=0.75,
        draws=100,
    )


@pytest.mark.parametrize(
    ("interval", "over", "sequences", "per_expert", "verdict"),
    [
        ((0.02, 0.06), (0.03, 0.05), 50, 100.0, "worth_it"),
        ((0.02, 0.06), (0.03, 0.05), 7, 100.0, "not_enough_data"),
        ((0.004, 0.03), (0.01, 0.02), 50, 100.0, "not_worth_it"),
        ((-0.04, 0.05), (-0.03, 0.04), 50, 100.0, "not_enough_data"),
        ((-0.01, 0.02), (0.0, 0.01), 50, 15.0, "not_enough_data"),
        ((-0.09, 0.004), (-0.08, 0.0), 50, 15.0, "not_worth_it"),
    ],
)
def test_the_rule_of_the_verdict(
    interval: tuple[float, float], over: tuple[float, float], sequences: int, per_expert: float, verdict: Verdict
) -> None:
    """The lower end decides; where it does not, few or uneven data are told apart from no gain."""
    assert verdict_of(gain_of(*interval, over), sequences, per_expert) == verdict


def test_alternatives_without_expert_parallelism() -> None:
    """What does not fit says so; what does takes memory for all experts; nothing depends on a plan."""
    trace = trace_of()
    sample = sample_passes(trace, TIME.pass_tokens, "prefill")
    counts = expert_counts(sample, EXPERTS)
    step, gb, _ = data_parallel(TIME, counts)
    assert step is not None
    assert gb == pytest.approx(48 * 128 * 3 * 2048 * 768 / 1e9)
    split, half, _ = tensor_parallel(TIME, counts)
    assert split is not None
    assert half == pytest.approx(gb / 2)
    pulled, _, detail = pulled_weights(TIME, counts)
    assert pulled is not None
    assert "links" in detail
    assert all_gather(TIME, on_passes(trace, plan_of()).times())[0] > 0
    both = TimeModel.of(**NAMES, overlap="two_batch")  # halves of the collectives, of which computing hides some
    assert both.rest_ms > TIME.rest_ms
    assert (
        all_gather(both, on_passes(trace, plan_of()).times())[0]
        != all_gather(TIME, on_passes(trace, plan_of()).times())[0]
    )
    overlapped, alone = tensor_parallel(both, counts)[0], data_parallel(both, counts)[0]
    assert overlapped is not None
    assert overlapped != split
    assert alone == step  # nothing to overlap with
    large = replace(TIME, model=TimeModel.of("h200:2x2", "deepseek-v3", phase="prefill").model)
    assert data_parallel(large, counts)[0] is None
