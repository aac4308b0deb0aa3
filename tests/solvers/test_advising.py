"""Advice on traces that the project makes: verdicts, alternatives, both phases, what is refused."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.verdicts import CASES, asked, trace_of
from placement import Plan
from solvers import Advice, AdviceRequest, advise, advise_both
from solvers.advising.wider import around_hottest, with_hottest, with_replicas
from traces import InputError, LoadCounts, Trace
from traces.synthetic import Synthetic, generate

KEYS = {
    *("verdict", "step_ms_before", "step_ms_after", "gain_fraction", "gain_interval", "moe_share", "reasons"),
    "alternatives",
}
ASKED: dict[str, Any] = {
    "machine": "h200:2x2",
    "model": "qwen3-30b-a3b",
    "engine": "sglang",
    "solver": "load_balance",
    "tokens_per_gpu": 256,
}


@cache
def tokens(decode_share: float = 0.0) -> Trace:
    """Return skewed tokens of two layers."""
    return generate(
        Synthetic(
            num_layers=2,
            num_experts=128,
            top_k=8,
            num_tokens=4096,
            skew=0.8,
            affinity=0,
            tokens_per_sequence=64,
            decode_share=decode_share,
        )
    )


@cache
def advice() -> Advice:
    """Return the advice on them."""
    return advise(tokens(), **ASKED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdicts_on_planted_routing(case: Any) -> None:
    """Random routing and small batches are not worth it, planted skew and co-activation are; see benchmarks."""
    found = advise(trace_of(case, 7), **asked(case), seed=7, workers=1)
    assert (found.verdict == "worth_it") == (case.least > 0)


def test_advice_has_exactly_the_keys_that_are_promised() -> None:
    """The document is plain JSON with the keys of the documentation, and shows its verdict first."""
    document = json.loads(json.dumps(advice().as_dict(), allow_nan=False))
    assert set(document) == KEYS
    assert document["gain_interval"][0] <= document["gain_fraction"] <= document["gain_interval"][1]
    assert document["gain_fraction"] == pytest.approx(1 - document["step_ms_after"] / document["step_ms_before"])
    assert repr(advice()).startswith(("Worth it", "Not worth it", "Not enough"))


def test_every_alternative_is_told() -> None:
    """Each has its step or says why not, and memory is counted against the plan that runs."""
    rows = {each.name: each for each in advice().alternatives}
    assert list(rows) == [
        *("leave_alone", "rearrange", "redundant_experts_4", "redundant_experts_8", "redundant_experts_16"),
        *("hottest_1_on_every_rank", "hottest_4_on_every_rank", "no_ep_tensor_parallel", "no_ep_data_parallel"),
        *("allgather_reduce_scatter", "ep_2", "separate_phases", "pull_weights"),
    ]
    assert rows["leave_alone"].gain_fraction == 0
    assert rows["rearrange"].step_ms == advice().step_ms_after
    extra = rows["redundant_experts_8"].extra_memory_gb
    assert extra == pytest.approx(2 * 48 * 3 * 2048 * 768 * 2 / 1e9)
    assert rows["separate_phases"].step_ms is None
    assert list(advice().to_frame()["name"]) == list(rows)


def test_the_plan_that_runs_is_the_one_before() -> None:
    """Against a plan that was found on the same tokens, nothing is left to gain."""
    again = advise(tokens(), **ASKED, plan=advice().plan, alternatives=False)
    assert again.step_ms_before == pytest.approx(advice().step_ms_after)
    assert again.verdict == "not_worth_it"


def test_few_sequences_are_not_enough_data() -> None:
    """Three sequences held out say nothing, whatever the gain."""
    few = tokens().where(lambda batch: batch.rows < 6 * 64, "six sequences")
    found = advise(few, **ASKED, alternatives=False)
    assert found.verdict == "not_enough_data"
    assert "3 sequences" in found.reasons[0]


def test_weights_beyond_the_memory_are_told() -> None:
    """Half of Qwen3-235B's experts don't fit into an A100: a step of what can't run is told to be that."""
    asked = ASKED | {"machine": "a100:1x2", "model": "qwen3-235b-a22b", "alternatives": False}
    told = [reason for reason in advise(tokens(), **asked).reasons if "can't run" in reason]
    assert len(told) == 1
    assert "227 GB of a GPU in bfloat16" in told[0]
    assert not any("can't run" in reason for reason in advice().reasons)


def test_both_phases_have_plans_of_their_own() -> None:
    """Decode is timed on its own tokens and passes; one plan for both costs something or nothing, never less."""
    both = advise_both(tokens(0.5), **ASKED, decode_tokens_per_gpu=64)
    document = json.loads(json.dumps(both.as_dict(), allow_nan=False))
    assert set(document) == {"verdict", "phases", "one_plan", "separate_pools", "reasons"}
    assert set(document["phases"]["decode"]) == KEYS
    owner = document["one_plan"]["of"]
    assert document["one_plan"][f"{owner}_cost_fraction"] == 0
    assert document["separate_pools"]["decode"]["least_gpus"] == 1
    apart = {each["name"]: each for each in document["phases"]["decode"]["alternatives"]}["separate_phases"]
    assert apart["step_ms"] == document["phases"]["decode"]["step_ms_after"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"hold_out": 0.0}, "hold_out_range"),
        ({"decode_tokens_per_gpu": 8}, "without_effect"),
        ({"machine": "h200"}, "machine_form"),
        ({"model": "deepseek-v33"}, "unknown_model"),
        ({"model": "deepseek-v3"}, "experts_differ"),
        ({"phase": "both"}, "two_phases"),
        ({"tokens_per_gpu": 0}, "tokens_per_gpu_range"),
        ({"machin": "h200:1x4"}, "unknown_field"),
    ],
)
def test_what_does_not_fit_is_refused(said: dict[str, Any], code: str) -> None:
    """Each with its own code."""
    with pytest.raises(InputError) as error:
        advise(tokens(), **(ASKED | said))
    assert error.value.violations[0].code == code


def test_counts_are_refused() -> None:
    """Counts can't tell what a pass waits for."""
    counts = LoadCounts.of(np.ones((2, 128), np.int64))
    with pytest.raises(InputError, match="tokens") as error:
        advise(counts, **ASKED)
    assert error.value.violations[0].code == "counts_only"


def test_slots_of_the_running_plan_are_not_said_twice() -> None:
    """A plan says its slots itself."""
    with pytest.raises(InputError, match="says how many slots"):
        AdviceRequest(machine="h200:2x2", model="qwen3-30b-a3b", plan=advice().plan, slots_per_gpu=33)


def test_hottest_experts_go_to_every_gpu_once() -> None:
    """Every GPU holds the hottest ones, and none twice."""
    plan = Plan.of([[0, 1, 2, 3]], layer_ids=[0], num_experts=4, gpus_per_node=(2,))
    found = with_hottest(plan, np.array([[1.0, 9.0, 5.0, 2.0]]), 2)
    assert found.physical_to_logical_map.tolist() == [[0, 1, -1, 2, 2, 3, 1, -1]]


def test_others_are_balanced_around_the_hottest() -> None:
    """What the hottest expert leaves is even, and an expert that had its GPU has company."""
    plan = Plan.of([[0, 1, 2, 3, 4, 5]], layer_ids=[0], num_experts=6, gpus_per_node=(2,))
    found = around_hottest(plan, np.array([[9.0, 1.0, 1.0, 3.0, 3.0, 1.0]]), 1)
    table = found.physical_to_logical_map.reshape(2, 4)
    assert (table[:, -1] == 0).all()
    assert not (table[:, :3] == 0).any()
    load, copies = np.array([0, 1, 1, 3, 3, 1]), np.bincount(table[:, :3].ravel())
    assert (load / np.maximum(copies, 1))[table[:, :3]].sum(axis=1).tolist() == [4.5, 4.5]


def test_replicas_go_to_the_hottest_expert_and_the_idlest_gpu() -> None:
    """The hottest expert is doubled on the GPU that has the least load."""
    plan = Plan.of([[0, 1, 2, 3]], layer_ids=[0], num_experts=4, gpus_per_node=(2,))
    found = with_replicas(plan, np.array([[1.0, 9.0, 5.0, 2.0]]), 1)
    assert found.physical_to_logical_map.tolist() == [[0, 1, 2, 2, 3, 1]]
