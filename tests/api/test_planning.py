"""The way from a trace file to a plan and its figures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api.planning import PlanRequest, Prepared, open_source, prepare, run, summarise

from placement import Constraints, Plan, Topology, evaluate
from traces import InputError, LoadCounts, Profile, Provenance, Trace, save
from traces.synthetic import Synthetic, generate

PARAMS = Synthetic(num_layers=4, num_experts=8, top_k=2, num_tokens=1024, tokens_per_sequence=32, source_ranks=2)
FLAT = Topology.parse("1x4")


def codes(error: pytest.ExceptionInfo[InputError]) -> set[str]:
    """Return the codes of all violations."""
    return {violation.code for violation in error.value.violations}


def request(**changes: Any) -> PlanRequest:
    """Return a request that needs no search."""
    return PlanRequest(**{"topology": FLAT, "solver": "contiguous", **changes})


def counts() -> LoadCounts:
    """Return counts of 3 layers of 8 experts."""
    load = np.random.default_rng(0).uniform(1, 9, (3, 8))
    return LoadCounts(load=load, layer_ids=np.arange(3), provenance=Provenance(), digest="sha256:0")


def planned(prepared: Prepared, asked: PlanRequest) -> Plan:
    """Return the plan of a request."""
    return run(prepared, asked).plan


def test_half_of_the_sequences_of_a_trace_are_held_out_by_default() -> None:
    """Even sequences are fitted, odd ones are not."""
    prepared = prepare(generate(PARAMS), request())
    assert prepared.fit is not None
    assert prepared.held_out is not None
    fitted = np.concatenate([np.asarray(batch.seq_id) for batch in prepared.fit.batches()])
    held = np.concatenate([np.asarray(batch.seq_id) for batch in prepared.held_out.batches()])
    assert set(fitted % 2) == {0}
    assert set(held % 2) == {1}
    assert prepared.problem.profile.tokens == len(fitted)


def test_dummies_beyond_the_start_are_told() -> None:
    """The notes of a plan are on all rows that were counted, not on those that opening the trace looked at."""
    ids = np.random.default_rng(0).random((9000, 4, 8)).argsort(axis=2)[:, :, :2]
    ids[8200:] = ids[8200]
    head = "Of the first 8,192 rows, nothing is said here."
    trace = replace(Trace.of(ids, num_experts=8), provenance=Provenance(notes=(head, "kept")))
    notes = prepare(trace, request(hold_out=0)).notes
    assert notes[0] == "kept"
    assert notes[1].startswith("Of all 9,000 rows, ")
    assert len(notes) == 2


def test_nothing_is_held_out_on_request() -> None:
    """A share of 0 fits on every token."""
    prepared = prepare(generate(PARAMS), request(hold_out=0))
    assert prepared.held_out is None
    assert prepared.problem.profile.tokens == PARAMS.num_tokens


def test_a_trace_of_one_sequence_is_fitted_whole_and_says_so() -> None:
    """By default, what can't be split is not."""
    prepared = prepare(Trace.of(np.zeros((5, 2, 1), int), num_experts=8, seq_id=np.ones(5, int)), request())
    assert prepared.held_out is None
    assert any("Nothing is held out" in note for note in prepared.notes)


def test_a_share_that_leaves_a_part_empty_is_refused_if_asked_for() -> None:
    """Explicit requests are never quietly changed."""
    trace = Trace.of(np.zeros((5, 2, 1), int), num_experts=8, seq_id=np.ones(5, int))
    with pytest.raises(InputError) as error:
        prepare(trace, request(hold_out=0.5))
    assert codes(error) == {"hold_out_empty"}


@pytest.mark.parametrize("share", [1.0, -0.5, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(share: float) -> None:
    """The whole trace can't be held out."""
    with pytest.raises(InputError) as error:
        prepare(generate(PARAMS), request(hold_out=share))
    assert codes(error) == {"hold_out_range"}


def test_a_fault_in_the_held_out_tokens_is_found_before_the_search() -> None:
    """The part that is not profiled is checked as well."""
    ids = np.tile(np.array([0, 1]), (256, 2, 1))
    ids[64 + 3, 1] = [5, 5]  # blocks of 64 tokens alternate
    with pytest.raises(InputError) as error:
        prepare(Trace.of(ids, num_experts=8), request())
    assert codes(error) == {"duplicate_expert"}


def test_counts_can_not_be_split() -> None:
    """Only tokens can be held out."""
    with pytest.raises(InputError) as error:
        prepare(counts(), request(hold_out=0.5))
    assert codes(error) == {"hold_out_counts"}


def test_counts_are_refused_where_the_objective_needs_affinity() -> None:
    """Counts tell nothing about pairs of layers."""
    with pytest.raises(InputError) as error:
        prepare(counts(), request())
    assert codes(error) == {"counts_only"}


def test_counts_give_expected_loads_and_no_figures_of_tokens() -> None:
    """A summary of counts shows what counts can tell."""
    asked = request(execution="dispatch", dedup="none")
    prepared = prepare(counts(), asked)
    figures = summarise(prepared, {"plan": planned(prepared, asked)}, asked)["plans"]["plan"]
    share = counts().load / counts().load.sum(axis=1, keepdims=True)
    expected = share.reshape(3, 4, 2).sum(axis=2).max(axis=1).mean() * 4
    assert figures["fit"] is None
    assert figures["held_out"] is None
    assert figures["expected_load"]["imbalance_max_over_mean"] == pytest.approx(expected)


def test_missing_home_ranks_are_told_before_the_search_whatever_the_execution() -> None:
    """The summary shows dispatch too, so its ownership has to work."""
    trace = Trace.of(np.tile(np.array([0, 1]), (256, 2, 1)), num_experts=8)
    with pytest.raises(InputError) as error:
        prepare(trace, request(ownership="measured"))
    assert codes(error) == {"no_source_rank"}


def test_unknown_solvers_and_options_are_told_before_the_trace_is_read() -> None:
    """The name is checked first."""

    def never(max_tokens: int) -> Any:
        raise AssertionError

    trace = Trace(
        layer_ids=np.arange(2), num_experts=4, top_k=1, num_tokens=None, read=never, hash_source=lambda: "0" * 64
    )
    with pytest.raises(InputError) as error:
        prepare(trace, request(solver="contigous"))
    assert codes(error) == {"unknown_solver"}
    with pytest.raises(InputError) as error:
        prepare(trace, request(options={"sweeps": 3}))
    assert codes(error) == {"unknown_option"}


@pytest.mark.parametrize("slots", [0, -3])
def test_slots_per_gpu_start_at_1(slots: int) -> None:
    """0 is no way to ask for the default."""
    with pytest.raises(InputError) as error:
        prepare(generate(PARAMS), request(slots_per_gpu=slots))
    assert codes(error) == {"slots_range"}


def test_more_experts_than_slots_are_refused() -> None:
    """8 experts don't fit 4 GPUs of one slot."""
    with pytest.raises(InputError) as error:
        prepare(generate(PARAMS), request(slots_per_gpu=1))
    assert codes(error) == {"more_experts_than_slots"}


def test_the_summary_names_the_contiguous_plan_first_and_agrees_with_evaluate() -> None:
    """Figures are those of `placement.evaluate`, on both parts, for both executions."""
    asked = request(solver="random", seed=1)
    prepared = prepare(generate(PARAMS), asked)
    plan = planned(prepared, asked)
    summary = summarise(prepared, {"plan": plan}, asked)
    assert list(summary["plans"]) == ["contiguous", "plan"]
    for part, trace in prepared.parts.items():
        figures = summary["plans"]["plan"][part]
        own, dispatch = evaluate(plan, trace, FLAT), evaluate(plan, trace, FLAT, execution="dispatch")
        for name in ("tokens", "cross_gpu_fraction", "imbalance_max_over_mean", "fanout_gpus", "balancedness_vllm"):
            assert figures[name] == getattr(own, name)
        for name in ("fanout_gpus", "fanout_nodes", "remote_gpus", "remote_nodes"):
            assert figures["dispatch"][name] == getattr(dispatch, name)
        assert summary["tokens"][part] == own.tokens


def test_a_dispatch_summary_shows_the_crossings_between_layers_too() -> None:
    """Nobody is misled about their engine, in either direction."""
    asked = request(execution="dispatch", dedup="node", ownership="measured", topology=Topology.parse("2x2"))
    prepared = prepare(generate(PARAMS), asked)
    plan = planned(prepared, asked)
    figures = summarise(prepared, {"plan": plan}, asked)["plans"]["plan"]["held_out"]
    assert prepared.held_out is not None
    context = evaluate(plan, prepared.held_out, asked.topology)
    assert figures["context_coherent"]["cross_gpu_fraction"] == context.cross_gpu_fraction
    assert figures["dispatch"]["ownership"] == "measured"
    assert figures["dispatch"]["remote_nodes"] > 0


def test_a_saved_profile_gives_the_plan_of_its_trace_and_the_figures_of_its_sample(tmp_path: Path) -> None:
    """`profile -o`, then `solve` on the profile, is the same as `solve --hold-out 0` on a trace of this size."""
    trace = generate(PARAMS)
    Profile.of(trace).save(tmp_path / "profile.npz")
    source = open_source(tmp_path / "profile.npz")
    assert isinstance(source, Profile)
    asked = request(constraints=Constraints(load_cap=1.5))
    prepared, whole = prepare(source, asked), prepare(trace, request(hold_out=0))
    plan = planned(prepared, asked)
    assert plan.physical_to_logical_map.tolist() == planned(whole, request()).physical_to_logical_map.tolist()
    ours = summarise(prepared, {"plan": plan}, asked)["plans"]["plan"]["fit"]
    theirs = summarise(whole, {"plan": plan}, asked)["plans"]["plan"]["fit"]
    assert ours["cross_gpu_fraction"] == pytest.approx(theirs["cross_gpu_fraction"])
    assert ours["tokens"] == PARAMS.num_tokens


def test_a_trace_file_is_opened_with_the_hints_of_the_caller(tmp_path: Path) -> None:
    """Hints reach the reader; a profile, which knows everything, refuses them."""
    np.savez(tmp_path / "bare.npz", topk_ids=np.zeros((4, 2, 1), np.uint8))
    source = open_source(tmp_path / "bare.npz", num_experts=6, layer_ids=[3, 5])
    assert isinstance(source, Trace)
    assert (source.num_experts, source.layer_ids.tolist()) == (6, [3, 5])
    Profile.of(generate(PARAMS)).save(tmp_path / "profile.npz")
    with pytest.raises(InputError) as error:
        open_source(tmp_path / "profile.npz", num_experts=8)
    assert codes(error) == {"profile_options"}


def test_a_saved_trace_is_planned_like_the_one_in_memory(tmp_path: Path) -> None:
    """The front door's file handling changes nothing."""
    trace = generate(PARAMS)
    save(trace, tmp_path / "trace.npz")
    asked = request(solver="random", seed=3)
    from_file, direct = prepare(open_source(tmp_path / "trace.npz"), asked), prepare(trace, asked)
    assert planned(from_file, asked).score == planned(direct, asked).score
