"""The way from a trace to a plan and its figures."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement import Constraints, Objective, Pin, Topology, evaluate
from solvers import Eplb, Event, Front, FrontRequest, Limits, Request, Study
from solvers.sources.source import open_source
from tests.engine_files import ENGINE_FILES, Toy, write_bundle
from traces import InputError, LoadCounts, Profile, Provenance, Trace, save
from traces.synthetic import Synthetic, generate

PARAMS = Synthetic(num_layers=4, num_experts=8, top_k=2, num_tokens=1024, tokens_per_sequence=32, source_ranks=2)
FLAT = Topology.parse("1x4")


def codes(error: pytest.ExceptionInfo[InputError]) -> set[str]:
    """Return the codes of all violations."""
    return {violation.code for violation in error.value.violations}


def request(**changes: Any) -> Request:
    """Return a request that needs no search."""
    return Request(**{"topology": FLAT, "solver": "contiguous", **changes})


def study(source: Any = None, **changes: Any) -> Study:
    """Study a source, by default the synthetic trace, with a request that needs no search."""
    return Study.of(generate(PARAMS) if source is None else source, request=request(**changes), workers=1)


def counts(**provenance: Any) -> LoadCounts:
    """Return counts of 3 layers of 8 experts."""
    load = np.random.default_rng(0).uniform(1, 9, (3, 8))
    return LoadCounts(load=load, layer_ids=np.arange(3), provenance=Provenance(**provenance), digest="sha256:0")


def recorded(engine: str, **changes: Any) -> Trace:
    """Return the synthetic trace as if a format of an engine held it."""
    return replace(generate(PARAMS), provenance=Provenance(engine=engine), **changes)


def unread(max_tokens: int) -> Any:
    """Fail where a trace is read."""
    raise AssertionError


def test_studies_pickle() -> None:
    """A study comes back equal, with its parts and its problem; one of another request is another."""
    one = study(constraints=Constraints(load_cap=1.5))
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert again.solve(workers=1).plan == one.solve(workers=1).plan
    assert study() != one


# The trace and its parts


def test_half_of_the_sequences_of_a_trace_are_held_out_by_default() -> None:
    """Even sequences are fitted, odd ones are not."""
    found = study()
    assert found.fit is not None
    assert found.held_out is not None
    fitted = np.concatenate([np.asarray(batch.seq_id) for batch in found.fit.batches()])
    held = np.concatenate([np.asarray(batch.seq_id) for batch in found.held_out.batches()])
    assert set(fitted % 2) == {0}
    assert set(held % 2) == {1}
    assert found.problem.profile.tokens == len(fitted)


def test_dummies_beyond_the_start_are_told() -> None:
    """The notes of a plan are on all rows that were counted, not on those that opening the trace looked at."""
    ids = np.random.default_rng(0).random((9000, 4, 8)).argsort(axis=2)[:, :, :2]
    ids[8200:] = ids[8200]
    head = "Of the first 8,192 rows, nothing is said here."
    trace = replace(Trace.of(ids, num_experts=8), provenance=Provenance(notes=(head, "kept")))
    notes = study(trace, hold_out=0).notes
    assert notes[0] == "kept"
    assert notes[1].startswith("Of all 9,000 rows, ")
    assert notes[2].startswith("The recording has repeated rows: ")
    assert len(notes) == 3


@pytest.mark.parametrize("share", [0, 0.5])
def test_what_is_wrong_with_a_recording_is_told_in_a_line(share: float) -> None:
    """Whatever part is fitted, the whole of it is diagnosed, once; of counts as well."""
    ids = np.random.default_rng(0).integers(0, 4, (2048, 2, 1))
    told = [note for note in study(Trace.of(ids, num_experts=8), hold_out=share).notes if "recording" in note]
    says = "`moe-placement check` says what that does to a plan, and what to do."
    assert told == [f"The recording has experts of one rank only (0-3 of 8): {says}"]
    load = np.array([[300.0, 200, 0, 0], [250, 260, 0, 0]])
    one_rank = LoadCounts(load=load, layer_ids=np.arange(2), provenance=Provenance(), digest="sha256:0")
    by_loads = Objective(execution="dispatch", dedup="none")
    assert study(one_rank, topology="1x2", objective=by_loads).notes[-1:] == (told[0].replace("0-3 of 8", "0-1 of 4"),)


def test_nothing_is_held_out_on_request() -> None:
    """A share of 0 fits on every token."""
    found = study(hold_out=0)
    assert found.held_out is None
    assert list(found.parts) == ["fit"]
    assert found.problem.profile.tokens == PARAMS.num_tokens


def test_a_trace_of_one_sequence_is_fitted_whole_and_says_so() -> None:
    """By default, what can't be split is not."""
    found = study(Trace.of(np.zeros((5, 2, 1), int), num_experts=8, seq_id=np.ones(5, int)))
    assert found.held_out is None
    assert any("Nothing is held out" in note for note in found.notes)


def test_a_share_that_leaves_a_part_empty_is_refused_if_asked_for() -> None:
    """Explicit requests are never quietly changed."""
    trace = Trace.of(np.zeros((5, 2, 1), int), num_experts=8, seq_id=np.ones(5, int))
    with pytest.raises(InputError) as error:
        study(trace, hold_out=0.5)
    assert codes(error) == {"hold_out_empty"}


def test_a_fault_in_the_held_out_tokens_is_found_before_the_search() -> None:
    """The part that is not profiled is checked as well."""
    ids = np.tile(np.array([0, 1]), (256, 2, 1))
    ids[64 + 3, 1] = [5, 5]  # blocks of 64 tokens alternate
    with pytest.raises(InputError) as error:
        study(Trace.of(ids, num_experts=8))
    assert codes(error) == {"duplicate_expert"}


def test_counts_can_not_be_split() -> None:
    """Only tokens can be held out."""
    with pytest.raises(InputError) as error:
        study(counts(), hold_out=0.5)
    assert codes(error) == {"hold_out_counts"}


def test_counts_are_refused_where_the_objective_needs_affinity() -> None:
    """Counts tell nothing about pairs of layers; where nothing is said, none are asked for."""
    with pytest.raises(InputError) as error:
        study(counts(), objective=Objective(execution="context_coherent"))
    assert codes(error) == {"counts_only"}
    assert study(counts()).problem.objective.execution == "dispatch"


def test_counts_give_expected_loads_and_no_figures_of_tokens() -> None:
    """A comparison on counts shows what counts can tell."""
    found = study(counts(), objective=Objective(execution="dispatch", dedup="none"))
    figures = found.compare(plan=found.solve().plan).as_dict()["plans"]["plan"]
    share = counts().load / counts().load.sum(axis=1, keepdims=True)
    expected = share.reshape(3, 4, 2).sum(axis=2).max(axis=1).mean() * 4
    assert figures["fit"] is None
    assert figures["held_out"] is None
    assert figures["expected_load"]["imbalance_max_over_mean"] == pytest.approx(expected)


def test_missing_home_ranks_are_told_before_the_search() -> None:
    """A dispatch that the recorded ranks are to be the homes of needs recorded ranks."""
    trace = Trace.of(np.tile(np.array([0, 1]), (256, 2, 1)), num_experts=8)
    with pytest.raises(InputError) as error:
        study(trace, objective=Objective(execution="dispatch", ownership="measured"))
    assert codes(error) == {"no_source_rank"}


def test_home_ranks_that_nothing_makes_use_of_are_refused() -> None:
    """Nobody says how tokens travel, so they don't go home: `ownership` would have no effect."""
    with pytest.raises(InputError) as error:
        study(objective=Objective(ownership="measured"))
    assert [(item.code, item.pointer) for item in error.value.violations] == [
        ("without_effect", "/objective/ownership")
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"solver": "contigous"}, "unknown_solver"),
        ({"options": {"sweeps": 3}}, "unknown_option"),
        ({"baseline": "contigous"}, "unknown_solver"),
    ],
)
def test_unknown_solvers_and_options_are_told_before_the_trace_is_read(changes: dict[str, Any], code: str) -> None:
    """Names are checked first, those of the solver and of the baseline."""
    trace = Trace(
        layer_ids=np.arange(2), num_experts=4, top_k=1, num_tokens=None, read=unread, hash_source=lambda: "0" * 64
    )
    with pytest.raises(InputError) as error:
        study(trace, **changes)
    assert codes(error) == {code}


def test_more_experts_than_slots_are_refused() -> None:
    """8 experts don't fit 4 GPUs of one slot."""
    with pytest.raises(InputError) as error:
        study(slots_per_gpu=1)
    assert codes(error) == {"more_experts_than_slots"}


def test_a_saved_profile_gives_the_plan_of_its_trace_and_the_figures_of_its_sample(tmp_path: Path) -> None:
    """A study of a saved profile is that of a trace of this size of which nothing is held out."""
    trace = generate(PARAMS)
    Profile.of(trace).save(tmp_path / "profile.npz")
    source = open_source(tmp_path / "profile.npz")
    assert isinstance(source, Profile)
    saved, whole = study(source, constraints=Constraints(load_cap=1.5)), study(trace, hold_out=0)
    plan, other = saved.solve().plan, whole.solve().plan
    assert plan.physical_to_logical_map.tolist() == other.physical_to_logical_map.tolist()
    ours = saved.compare(plan=plan).as_dict()["plans"]["plan"]["fit"]
    theirs = whole.compare(plan=plan).as_dict()["plans"]["plan"]["fit"]
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
    """A path in place of a trace changes nothing."""
    trace = generate(PARAMS)
    save(trace, tmp_path / "trace.npz")
    plans = [study(source, solver="random", seed=3).solve().plan for source in (tmp_path / "trace.npz", trace)]
    assert plans[0].score == plans[1].score


# What is asked


def test_fields_of_the_request_can_be_given_one_by_one() -> None:
    """The topology as shorthand, the rest by name: the same request."""
    found = Study.of(generate(PARAMS), "1x4", solver="contiguous", hold_out=0, workers=1)
    assert found.request == replace(request(hold_out=0), topology=found.request.topology)
    assert found.request.machine.num_gpus == 4


@pytest.mark.parametrize(
    ("name", "remedy"), [("redundant_expert", "Did you mean redundant_experts?"), ("zzz", "Fields are topology, ")]
)
def test_an_unknown_field_is_refused_with_the_one_that_is_meant(name: str, remedy: str) -> None:
    """Most likely a slip of the pen; where none is near, all are listed."""
    asked: dict[str, Any] = {name: 4}
    with pytest.raises(InputError) as error:
        Study.of(generate(PARAMS), "1x4", **asked)
    (violation,) = error.value.violations
    assert (violation.code, violation.pointer) == ("unknown_field", f"/{name}")
    assert violation.remedy.startswith(remedy)


def test_a_study_without_a_topology_is_refused() -> None:
    """No machine is assumed."""
    with pytest.raises(InputError) as error:
        Study.of(generate(PARAMS))
    assert codes(error) == {"topology_missing"}


@pytest.mark.parametrize("beside", [{"topology": "1x4"}, {"seed": 3}])
def test_a_request_and_its_fields_together_are_refused(beside: dict[str, Any]) -> None:
    """Which of the two counts is nothing to guess."""
    with pytest.raises(InputError) as error:
        Study.of(generate(PARAMS), request=request(), **beside)
    assert codes(error) == {"request_twice"}


# Engines


def test_the_engine_is_that_of_the_file(tmp_path: Path) -> None:
    """A format that only SGLang writes is planned for SGLang, with its default algorithm."""
    path = write_bundle(tmp_path / "recorded", ENGINE_FILES["sglang_per_token"](Toy(slots=16)))
    found = Study.of(path, "2x4", workers=1)
    assert found.request.engine == found.problem.engine == "sglang:static"
    assert found.problem.objective.execution == "dispatch"


def test_the_engine_that_is_asked_for_wins() -> None:
    """What one engine has recorded can be planned for another."""
    found = study(recorded("sglang"), engine="exflow")
    assert found.problem.engine == "exflow"
    assert found.problem.objective.execution == "context_coherent"


def test_no_engine_is_taken_where_the_execution_is_said() -> None:
    """Who says how tokens travel is not told otherwise by a file."""
    found = study(recorded("sglang"), objective=Objective(execution="context_coherent"))
    assert found.problem.engine is None
    assert found.problem.objective.execution == "context_coherent"


def test_without_an_engine_tokens_go_straight_from_layer_to_layer() -> None:
    """A format that anything may write tells no engine."""
    found = study()
    assert found.problem.engine is None
    assert found.problem.objective.execution == "context_coherent"


def test_an_engine_settles_how_tokens_travel() -> None:
    """SGLang: home after every layer, a message per node, a home per token, the nearest replica."""
    objective = study(engine="sglang").problem.objective
    assert (objective.execution, objective.dedup) == ("dispatch", "node")
    assert (objective.ownership, objective.replica_policy) == ("token", "same_node")


def test_what_the_objective_says_wins_over_the_engine() -> None:
    """And the rest remains the engine's."""
    objective = study(engine="sglang", objective=Objective(dedup="gpu", replica_policy="fair")).problem.objective
    assert (objective.dedup, objective.replica_policy) == ("gpu", "fair")
    assert (objective.execution, objective.ownership) == ("dispatch", "token")


def test_an_objective_against_the_engine_that_has_no_effect_is_refused() -> None:
    """ExFlow's tokens don't go home, so they send no messages."""
    with pytest.raises(InputError) as error:
        study(engine="exflow", objective=Objective(dedup="node"))
    assert codes(error) == {"without_effect"}


def test_messages_that_counts_can_not_tell_are_noted() -> None:
    """SGLang sends a message per node; of counts, only those per expert are known."""
    found = study(counts(engine="sglang"))
    assert found.problem.objective.dedup == "none"
    assert any("SGLang sends one message per node" in note and "counts only" in note for note in found.notes)


def test_messages_that_are_asked_for_need_no_note() -> None:
    """Nothing was replaced."""
    found = study(counts(engine="sglang"), objective=Objective(dedup="none"))
    assert not any("message per node" in note for note in found.notes)


def test_homes_that_a_trace_without_sequences_can_not_tell_are_noted() -> None:
    """Engines such as vLLM keep a sequence on a rank."""
    ids = np.random.default_rng(0).random((256, 2, 8)).argsort(axis=2)[:, :, :2]
    found = study(Trace.of(ids, num_experts=8), engine="vllm")
    assert found.problem.objective.ownership == "token"
    assert any("no seq_id" in note for note in found.notes)
    with_sequences = study(engine="vllm")
    assert with_sequences.problem.objective.ownership == "sequence"
    assert not any("no seq_id" in note for note in with_sequences.notes)


# Redundant experts


def test_redundant_experts_make_slots() -> None:
    """8 experts and 4 redundant ones are 3 slots on each of 4 GPUs."""
    assert study(redundant_experts=4).problem.slots_per_gpu == 3


def test_redundant_experts_that_can_not_be_spread_evenly_are_refused_with_those_that_can() -> None:
    """8 + 5 experts are no multiple of 4 GPUs; 8 + 4 and 8 + 8 are."""
    with pytest.raises(InputError) as error:
        study(redundant_experts=5)
    (violation,) = error.value.violations
    assert (violation.code, violation.pointer) == ("redundant_experts_uneven", "/redundant_experts")
    assert violation.remedy == "Give 4 or 8."


def test_slots_and_redundant_experts_that_differ_are_refused() -> None:
    """Both may be given, if they mean the same."""
    with pytest.raises(InputError) as error:
        study(redundant_experts=4, slots_per_gpu=4)
    assert codes(error) == {"slots_differ"}
    assert study(redundant_experts=4, slots_per_gpu=3).problem.slots_per_gpu == 3


# The baseline


def test_the_baseline_is_the_layout_of_the_engine() -> None:
    """When nobody plans, slot s of SGLang holds expert s % E."""
    found = study(engine="sglang", redundant_experts=4)
    assert found.baseline_name == "modulo"
    assert found.baseline is not None
    assert found.baseline.physical_to_logical_map.tolist() == [[slot % 8 for slot in range(12)]] * 4


def test_without_an_engine_the_baseline_is_contiguous() -> None:
    """Experts in order, spare slots empty."""
    found = study(redundant_experts=4)
    assert found.baseline_name == "contiguous"
    assert found.baseline is not None
    assert found.baseline.physical_to_logical_map[0].tolist() == [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]


def test_where_constraints_rule_the_layout_out_the_baseline_is_contiguous() -> None:
    """The engine's own layout knows no pins."""
    found = study(engine="sglang", constraints=Constraints(pins=(Pin(expert=0, gpu=3),)))
    assert found.baseline_name == "contiguous"
    assert found.baseline is not None
    assert 0 in found.baseline.physical_to_logical_map[0, 6:]


def test_the_baseline_can_be_a_solver() -> None:
    """The figures stand beside those of the one that is named."""
    found = study(baseline="round_robin")
    assert found.baseline_name == "round_robin"
    assert found.baseline is not None
    assert found.baseline.physical_to_logical_map[0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    told = found.compare().as_dict()
    assert (told["baseline"], list(told["plans"])) == ("round_robin", ["round_robin"])


def test_there_is_no_baseline_where_constraints_leave_no_plan() -> None:
    """Seven of eight experts can't share the two slots of a GPU: nothing to stand beside."""
    pins = tuple(Pin(expert=expert, gpu=gpu) for expert in range(1, 8) for gpu in (0, 2, 3))
    found = study(constraints=Constraints(forbidden=pins))
    assert found.baseline is None
    told = found.compare().as_dict()
    assert (told["plans"], told["best"]) == ({}, None)


# Solving


def test_what_is_given_to_solve_wins_over_the_request_and_leaves_it_alone() -> None:
    """A study is asked again and again."""
    found = study(seed=5, limits=Limits(work=7))
    plan = found.solve("random", seed=3, limits=Limits(work=9)).plan
    assert (plan.provenance["solver"], plan.provenance["seed"]) == ("random", 3)
    assert plan.provenance["limits"]["work"] == 9
    again = found.solve().plan
    assert (again.provenance["solver"], again.provenance["seed"]) == ("contiguous", 5)
    assert again.provenance["limits"]["work"] == 7


def test_options_reach_the_solver() -> None:
    """As the request has them, or as they are given."""
    found = study(options={"layout": "modulo"}, redundant_experts=4)
    assert found.solve().plan.provenance["parameters"]["layout"] == "modulo"
    assert found.solve(options={"layout": "overlapping"}).plan.provenance["parameters"]["layout"] == "overlapping"


def test_seeds_are_searched_for_the_best() -> None:
    """The best of seeds 4 to 6."""
    found = study(solver="random", seed=4)
    each = [found.solve(seed=seed).plan for seed in (4, 5, 6)]
    best = found.solve(seeds=3).plan
    assert best.score == min(plan.score for plan in each if plan.score is not None)


def test_a_start_plan_is_never_lost() -> None:
    """What the solver finds instead would be worse."""
    found = study(baseline="random", seed=2)
    start = min((found.solve("random", seed=seed).plan for seed in range(9)), key=lambda plan: plan.score or 0.0)
    worse = max((found.solve("random", seed=seed).plan for seed in range(9)), key=lambda plan: plan.score or 0.0)
    assert start.score != worse.score, "the case is of no use"
    seed = worse.provenance["seed"]
    assert found.solve("random", seed=seed, start=start).plan.score == start.score


# Comparing


def test_the_baseline_comes_first_and_figures_agree_with_evaluate() -> None:
    """Figures are those of `placement.evaluate`, on both parts, for both executions."""
    found = study(solver="random", seed=1)
    plan = found.solve().plan
    told = found.compare(plan=plan).as_dict()
    assert list(told["plans"]) == ["contiguous", "plan"]
    assert told["baseline"] == "contiguous"
    for part, trace in found.parts.items():
        figures = told["plans"]["plan"][part]
        own = evaluate(plan, trace, FLAT, execution="context_coherent")
        dispatch = evaluate(plan, trace, FLAT, execution="dispatch")
        for name in (
            "tokens",
            "cross_gpu_fraction",
            "imbalance_max_over_mean",
            "fanout_gpus",
            "balancedness_whole_trace",
        ):
            assert figures[name] == getattr(own, name)
        for name in ("fanout_gpus", "fanout_nodes", "remote_gpus", "remote_nodes"):
            assert figures["dispatch"][name] == getattr(dispatch, name)
        assert told["tokens"][part] == own.tokens


def test_a_comparison_under_dispatch_shows_the_crossings_between_layers_too() -> None:
    """Nobody is misled about their engine, in either direction."""
    topology = Topology.parse("2x2")
    found = study(topology=topology, objective=Objective(execution="dispatch", dedup="node", ownership="measured"))
    plan = found.solve().plan
    figures = found.compare(plan=plan).as_dict()["plans"]["plan"]["held_out"]
    assert found.held_out is not None
    context = evaluate(plan, found.held_out, topology, execution="context_coherent")
    assert figures["context_coherent"]["cross_gpu_fraction"] == context.cross_gpu_fraction
    assert figures["dispatch"]["ownership"] == "measured"
    assert figures["dispatch"]["remote_nodes"] > 0


def test_solvers_are_compared_by_name_and_as_objects() -> None:
    """They are run under the study's limits and seed first; plans of a mapping come before."""
    found = study(seed=7, limits=Limits(work=500), redundant_experts=4)
    rows = found.compare({"mine": found.solve("random").plan}, by_name="random", eplb=Eplb(policy="global")).rows
    assert [row.name for row in rows] == ["contiguous", "mine", "by_name", "eplb"]
    mine, by_name, eplb = (row.plan for row in rows[1:])
    assert by_name.physical_to_logical_map.tolist() == mine.physical_to_logical_map.tolist()
    assert (by_name.provenance["seed"], by_name.provenance["limits"]["work"]) == (7, 500)
    assert eplb.provenance["solver"] == "eplb"


def test_a_plan_of_another_size_is_not_compared() -> None:
    """Its figures would be of another machine."""
    other = study(topology=Topology.parse("1x2")).solve().plan
    with pytest.raises(InputError):
        study().compare(other=other)


# Fronts


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what each search for a front was asked, once it is over; fronts are not searched for."""
    told: list[dict[str, Any]] = []

    def search(problem: Any, **asked: Any) -> Front:
        told.append(asked)
        raise StopIteration

    monkeypatch.setattr("solvers.study.front", search)
    return told


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [
        ({}, {}, Limits(time_s=60.0)),
        ({"limits": Limits(time_s=5)}, {}, Limits(time_s=5)),
        ({"limits": Limits(work=3000)}, {}, Limits(work=3000)),
        ({"limits": Limits(gap=0.1)}, {}, Limits(time_s=60.0, gap=0.1)),
        ({"limits": Limits(time_s=5)}, {"limits": Limits()}, Limits(time_s=60.0)),
        ({}, {"limits": Limits(time_s=7)}, Limits(time_s=7)),
    ],
)
def test_limits_of_a_front(
    seen: list[dict[str, Any]], own: dict[str, Any], given: dict[str, Any], expected: Limits
) -> None:
    """As the study says, a minute where it says no time; what is given here wins."""
    with pytest.raises(StopIteration):
        study(**own).front(**given)
    assert seen[0]["limits"] == expected


def test_a_front_request_is_taken_as_it_is(seen: list[dict[str, Any]]) -> None:
    """Points and limits of a study that was made for a front."""
    asked = FrontRequest(topology=FLAT, points=5, limits=Limits(work=10), num_groups=4)
    with pytest.raises(StopIteration):
        Study.of(generate(PARAMS), request=asked, workers=1).front(points=6)
    assert (seen[0]["points"], seen[0]["limits"], seen[0]["num_groups"]) == (6, Limits(work=10), 4)


def test_an_unknown_field_of_a_front_is_refused_with_the_one_that_is_meant() -> None:
    """As for a study."""
    with pytest.raises(InputError) as error:
        study().front(pionts=4)
    (violation,) = error.value.violations
    assert (violation.code, violation.remedy) == ("unknown_field", "Did you mean points?")


def test_a_front_of_many_seeds_is_that_of_all_points() -> None:
    """Searched one after the other here; their events are told."""
    found = study(solver="assignment", limits=Limits(work=3000))
    told: list[Event] = []
    search = partial(found.front, points=3, workers=1)
    both = search(seeds=2, observe=told.append)
    expected = Front.merged([search(seed=0), search(seed=1)], 3)
    assert [point.traffic for point in both.points] == [point.traffic for point in expected.points]
    assert any(event.kind == "incumbent" for event in told)


def test_a_front_of_replicas_tries_other_numbers_than_the_redundant_experts_that_were_asked_for() -> None:
    """They are the most; and under an engine that wants it, no slot of any point is empty."""
    found = study(engine="sglang", redundant_experts=8, limits=Limits(work=6000), solver="annealing")
    points = found.front(against="replicas", points=3, workers=1).points
    assert {point.redundant_experts for point in points} <= {0, 4, 8}
    assert len(points) > 1
    for point in points:
        assert (point.plan.physical_to_logical_map >= 0).all()


def test_a_front_fills_the_start_where_the_engine_wants_it() -> None:
    """A plan that runs elsewhere with empty slots is no point as it is."""
    start = study(redundant_experts=4).solve().plan
    assert (start.physical_to_logical_map < 0).any(), "the case is of no use"
    found = study(engine="sglang", redundant_experts=4, limits=Limits(work=3000), solver="contiguous")
    for point in found.front(start=start, points=3, workers=1).points:
        assert (point.plan.physical_to_logical_map >= 0).all()


def test_no_plan_takes_the_name_of_another() -> None:
    """Neither that of the baseline, which it would replace, nor one of the mapping."""
    found = study()
    plan = found.solve("random").plan
    for plans, named in (({}, {"contiguous": plan}), ({"mine": plan}, {"mine": plan})):
        with pytest.raises(InputError) as error:
            found.compare(plans, **named)  # type: ignore[arg-type]  # mypy takes the mapping for workers
        assert codes(error) == {"name_taken"}


def test_a_source_of_another_kind_is_refused() -> None:
    """Say a list."""
    with pytest.raises(InputError) as error:
        Study.of([1, 2], "1x4")  # type: ignore[list-item]
    assert codes(error) == {"wrong_type"}


def test_a_study_fits_ten_lines() -> None:
    """Its problem and its parts."""
    lines = repr(study()).splitlines()
    assert lines[0] == "Study"
    assert len(lines) <= 10
    assert lines[-1].startswith("  held_out: Trace of")
    assert study()._repr_html_().startswith("<table>")
