"""The capture doctor: each fault gets its code with place and amount, and healthy recordings get none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import load_counts, planted_trace, random_ids
from traces import InputError, Trace, check, save
from traces.doctor.checking import watched
from traces.doctor.diagnosis import CODES, Diagnosis
from traces.held_ranks import held_ranks
from traces.synthetic import Synthetic, generate

TOKENS, LAYERS, EXPERTS, TOP_K = 1200, 4, 16, 4


@pytest.fixture
def ids() -> Any:
    """Routing without a fault, uneven by layer and expert, (1200, 4, 4)."""
    rng = np.random.default_rng(0)
    liking = rng.normal(size=(LAYERS, EXPERTS)) + rng.gumbel(size=(TOKENS, LAYERS, EXPERTS))
    return np.argsort(-liking, axis=2)[:, :, :TOP_K].astype(np.int64)


def diagnosed(ids: Any, num_experts: int = EXPERTS, **columns: Any) -> Diagnosis:
    """Check tokens in sequences of 30."""
    columns = {"seq_id": np.arange(len(ids)) // 30} | columns
    return check(Trace.of(ids, num_experts=num_experts, **columns))


def told(diagnosis: Diagnosis, code: str) -> Any:
    """Return the one finding of a code, and hold it to what a finding is."""
    assert code in CODES
    (found,) = [one for one in diagnosis if one.code == code]
    assert found.detail.endswith(".")
    assert found.remedy.endswith(".")
    assert "--" not in found.detail + found.remedy
    return found


def of_file(path: Path, ids: Any, **arrays: Any) -> Path:
    """Write an `.npz` whose number of experts nobody states, unless it is among the arrays."""
    np.savez(path, topk_ids=ids, seq_id=np.arange(len(ids)) // 30, layer_ids=np.arange(ids.shape[1]), **arrays)
    return path


def test_routing_without_a_fault(ids: Any) -> None:
    """Nothing is told of it, and no line stands before a plan."""
    diagnosis = diagnosed(ids)
    assert (diagnosis.codes, diagnosis.line, diagnosis.as_dict()) == ((), None, {"findings": []})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (16, 1), (60, 4), (64, 8)])
@pytest.mark.parametrize("order", ["by weight", "by id"])
def test_no_false_alarm(tmp_path: Path, seed: int, experts: int, top_k: int, order: str) -> None:
    """Planted structure, hot experts, sorted lists and an unstated number of experts are no faults."""
    trace = planted_trace(seed, 3000, 3, experts, top_k, teams=4, pull=1.5, decline=2 / experts, sequence=40)
    (batch,) = trace.batches(3000)
    ids = batch.topk_ids if order == "by weight" else np.sort(batch.topk_ids, axis=2)
    assert not [one for one in check(of_file(tmp_path / "trace.npz", ids)) if one.severity != "note"]


def test_no_false_alarm_on_generated_traces() -> None:
    """What `traces.synthetic` makes is healthy."""
    trace = generate(Synthetic(num_layers=4, num_experts=16, top_k=2, num_tokens=4000, seed=1))
    assert check(trace).line is None


def test_choices_from_each_group_are_no_zero_experts(tmp_path: Path) -> None:
    """A router that takes one expert of each group, in order, gives every place ids of its own."""
    ids = random_ids(0, 2000, 3, 4, 1).astype(np.int64)
    grouped = np.concatenate([ids, ids[::-1] + 4, np.roll(ids, 7, axis=0) + 8], axis=2)
    assert check(of_file(tmp_path / "trace.npz", grouped)).line is None


def test_rows_of_zeros(ids: Any) -> None:
    """Prompts whose rows were never written: how many, from where, in which phase; the loads leave them out."""
    ids[100:400] = 0
    phase = np.where((np.arange(TOKENS) >= 100) & (np.arange(TOKENS) < 400), 0, 1)
    diagnosis = diagnosed(ids, phase=phase)
    found = told(diagnosis, "all_zero_rows")
    assert found.severity == "error"
    assert "300 of 1,200 rows (25 %) are all zero, from row 100 on; 300 of them in prompt" in found.detail
    assert diagnosis.codes == ("all_zero_rows",)
    assert diagnosis.has_errors


def test_a_buffer_of_zeros(tmp_path: Path) -> None:
    """Where nothing was returned at all, that is told, though the file as such can't be read."""
    path = of_file(tmp_path / "zeros.npz", np.zeros((50, 3, 4), np.uint8))
    found = told(check(path), "all_zero_rows")
    assert "returns no routing" in found.detail


def test_tokens_of_zeros_in_some_layers(ids: Any) -> None:
    """Single layers that were not written are told with their names."""
    ids[:60, 2] = 0
    assert "In layer(s) 2, up to 60 of 1,200" in told(diagnosed(ids), "all_zero_rows").detail


@pytest.mark.parametrize(("rows", "severity"), [(60, "warning"), (20, "note")])
def test_repeated_rows(ids: Any, rows: int, severity: str) -> None:
    """The same row many times in the tail of a sequence; few of them are a note."""
    ids[500 : 501 + rows] = ids[500]
    found = told(diagnosed(ids), "repeated_rows")
    assert (found.severity, f"{rows} of 1,200 rows" in found.detail) == (severity, True)
    assert "from row 501 on" in found.detail


def test_a_row_that_comes_between_others(ids: Any) -> None:
    """A dummy in every second row is told; the same first row of each sequence is not."""
    first, ids[::2] = ids.copy(), ids[0]
    assert "600 of 1,200 rows (50 %) are the same as row 0" in told(diagnosed(ids), "repeated_rows").detail
    first[::6] = first[0]
    assert diagnosed(first, seq_id=np.arange(TOKENS) // 6).codes == ()


def test_rows_of_a_single_id(ids: Any) -> None:
    """An id that fills whole rows, which readers refuse."""
    ids[100:160] = 5
    found = told(diagnosed(ids), "repeated_rows")
    assert (found.severity, "60 of 1,200 rows (5 %) hold a single id, from row 100" in found.detail) == ("error", True)


def test_rows_of_zeros_with_one_expert_per_token() -> None:
    """With K = 1, in many layers; one hot expert 0 makes such rows too."""
    ids = random_ids(0, 1500, 8, 16, 1).astype(np.int64)
    hot = np.where(np.random.default_rng(1).random(ids.shape) < 0.9, 0, ids)
    assert "all_zero_rows" not in diagnosed(hot).codes
    ids[500:800] = 0
    found = told(diagnosed(ids), "all_zero_rows")
    assert "300 of 1,500 rows" in found.detail
    assert "expert 0 in all of 8 layers" in found.detail


@pytest.mark.parametrize("value", [-1, -100, 99])
def test_rows_without_any_expert(ids: Any, value: int) -> None:
    """Rows of filler are told as that, not as repeats or duplicates besides."""
    ids[600:900] = value
    assert diagnosed(ids).codes == ("ids_beyond_experts" if value == 99 else "filler_values",)


def test_repeats_across_batches(ids: Any) -> None:
    """What a pass sees does not depend on the size of its batches."""
    ids[500:600] = ids[500]
    trace = Trace.of(ids, num_experts=EXPERTS, seq_id=np.arange(TOKENS) // 30)
    looked, diagnosis = watched(trace)
    assert diagnosis() is None
    for _ in looked.batches(7):
        pass
    assert diagnosis() == check(trace)


@pytest.mark.parametrize("rank", [0, 2])
def test_single_rank_of_counts(rank: int) -> None:
    """Counts of the same quarter of the experts in all layers, whichever rank's."""
    load = np.zeros((3, 16))
    load[:, 4 * rank : 4 * rank + 4] = 1 + np.random.default_rng(0).integers(100, 900, (3, 4))
    assert f"rank {rank} of 4" in told(check(load_counts(load)), "single_rank").detail
    assert held_ranks(load) == ((rank,), 4, 4, False)


def test_single_rank_of_experts_in_turn(ids: Any) -> None:
    """One rank's experts where they are dealt out in turn, and -1 for those of other ranks."""
    assert "rank 1 of 4" in told(diagnosed(4 * ids[:, :, :2] + 1, num_experts=64), "single_rank").detail
    own = np.where(ids < 4, ids, -1)
    assert "rank 0 of 4" in told(diagnosed(own), "single_rank").detail
    assert "degenerate_layer" not in diagnosed(own).codes


def test_single_rank_of_tokens(ids: Any) -> None:
    """Tokens that use the first half of the experts only."""
    assert diagnosed(ids, num_experts=32).codes == ("single_rank",)


def test_a_few_cold_experts_are_no_rank() -> None:
    """Unused experts here and there are not the rest of a rank's."""
    load = np.random.default_rng(0).integers(100, 900, (3, 16)).astype(float)
    load[:, [3, 12, 15]] = 0
    assert held_ranks(load) is None
    assert check(load_counts(load)).line is None


def test_a_tenth_of_cold_experts_is_no_rank() -> None:
    """Where every share has most of its experts in use, no rank is missing, however many experts are cold."""
    load = np.random.default_rng(0).integers(100, 900, (1, 256)).astype(float)
    load[0, np.random.default_rng(1).permutation(256)[:40]] = 0
    assert held_ranks(load) is None
    assert "single_rank" not in check(load_counts(load)).codes


def test_unrecorded_layers() -> None:
    """Layers without counts are named; layers before the first one are a note, as only the model tells."""
    load = np.random.default_rng(0).integers(100, 900, (5, 8)).astype(float)
    load[[0, 3]] = 0
    found = told(check(load_counts(load)), "unrecorded_layers")
    assert (found.severity, "Layer(s) 0, 3 have no tokens" in found.detail) == ("warning", True)


def test_layers_that_the_model_has(ids: Any) -> None:
    """With the model, what is not there is certain: dense layers are no finding, others are."""
    from traces import ModelLayout

    trace = Trace.of(ids, num_experts=EXPERTS, layer_ids=[1, 2, 3, 4])
    assert check(trace, model=ModelLayout.of(5, first_moe_layer=1)).codes == ()
    found = told(check(trace, model=ModelLayout.of(7, first_moe_layer=1)), "unrecorded_layers")
    assert (found.severity, "2 of the model's 6" in found.detail) == ("warning", True)
    assert "pipeline stage" in told(check(trace, model=ModelLayout.of(10, first_moe_layer=1)), "single_rank").detail


def test_a_filler_where_nobody_states_the_experts(tmp_path: Path, ids: Any) -> None:
    """255 far above all other ids, several times a token: the trace is read as that of 16 experts."""
    wide = np.concatenate([ids, np.full((TOKENS, LAYERS, 2), 255)], axis=2).astype(np.uint8)
    diagnosis = check(of_file(tmp_path / "trace.npz", wide))
    found = told(diagnosis, "filler_values")
    assert "33 % of the entries are 255, in place(s) 4-5" in found.detail
    assert diagnosis.codes == ("filler_values",)


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (65_535, np.uint16), (2**31 - 1, np.int32)])
def test_fillers_beyond_the_stated_experts(tmp_path: Path, ids: Any, value: int, dtype: Any) -> None:
    """In whatever type they were kept, fillers are told where the reader refuses them."""
    ids[::3, 1, 3] = value
    path = of_file(tmp_path / "trace.npz", ids.astype(dtype), num_experts=EXPERTS)
    found = told(check(path), "filler_values")
    assert (found.severity, str(value) in found.detail) == ("error", True)


def test_entries_that_are_missing(ids: Any) -> None:
    """-1 is how missing entries are written: how many there are is a note."""
    ids[:, :, 3] = -1
    found = told(diagnosed(ids), "filler_values")
    assert (found.severity, "place(s) 3 of every token" in found.detail) == ("note", True)


def test_values_that_are_no_ids(ids: Any) -> None:
    """Below -1 there is nothing to mean."""
    ids[5, 1, 0] = -7
    assert "values from -7" in told(diagnosed(ids), "filler_values").detail


@pytest.mark.parametrize("stated", [True, False])
def test_a_fused_shared_expert(tmp_path: Path, ids: Any, stated: bool) -> None:
    """Id E in the list of every token: an error where E is stated, as readers refuse it; else a warning."""
    wide = np.concatenate([ids, np.full((TOKENS, LAYERS, 1), EXPERTS)], axis=2)
    path = of_file(tmp_path / "trace.npz", wide, **({"num_experts": EXPERTS} if stated else {}))
    diagnosis = check(path)
    found = told(diagnosis, "ids_beyond_experts")
    assert (found.severity, "shared expert" in found.detail) == ("error" if stated else "warning", True)
    assert diagnosis.codes == ("ids_beyond_experts",)


@pytest.mark.parametrize("place", ["first", "copies", "beside one", "zero"])
def test_shared_experts_of_other_kinds(tmp_path: Path, ids: Any, place: str) -> None:
    """Shared experts as id 0, as copies that take turns, beside a single routed one, and ids that tokens list twice."""
    turn = 16 + np.arange(TOKENS)[:, np.newaxis, np.newaxis] % 3 + np.zeros((1, LAYERS, 1), np.int64)
    wide = {
        "first": np.concatenate([np.zeros_like(turn), ids + 1], axis=2),
        "copies": np.concatenate([ids, turn], axis=2),
        "beside one": np.concatenate([ids[:, :, :1], turn], axis=2),
        "zero": np.where(ids >= 12, 12, ids),
    }[place]
    diagnosis = check(of_file(tmp_path / "trace.npz", wide))
    assert {one.code for one in diagnosis if one.severity != "note"} == {"ids_beyond_experts"}
    found = told(diagnosis, "ids_beyond_experts")
    assert {"first": "id 0", "zero": "id(s) 12 twice"}.get(place, "16-18") in found.detail


def test_another_model_is_no_filler(ids: Any) -> None:
    """255 among the ids of a larger model is an id of it; far above all others it is a filler."""
    larger = random_ids(3, 1200, 2, 256, 4).astype(np.int64)
    assert diagnosed(larger, num_experts=64).codes[0] == "ids_beyond_experts"
    assert "filler_values" not in diagnosed(larger, num_experts=64).codes


def test_few_tokens_have_no_filler(tmp_path: Path) -> None:
    """A large id that a handful of tokens choose, far above others, is no filler."""
    ids = np.array([[[3, 90]], [[7, 255]], [[200, 2]]])
    assert "filler_values" not in check(of_file(tmp_path / "trace.npz", ids)).codes


@pytest.mark.parametrize("stated", [None, "file", "caller"])
def test_zero_experts(tmp_path: Path, ids: Any, stated: str | None) -> None:
    """Ids from E on, in some lists: certain where E is stated, told by their place where it is not."""
    rng = np.random.default_rng(1)
    ids[:, :, 3] = np.where(rng.random((TOKENS, LAYERS)) < 0.6, rng.integers(16, 22, (TOKENS, LAYERS)), ids[:, :, 3])
    path = of_file(tmp_path / "trace.npz", ids, **({"num_experts": EXPERTS} if stated == "file" else {}))
    found = told(check(path, num_experts=EXPERTS if stated == "caller" else None), "ids_beyond_experts")
    assert (found.severity, "16-21" in found.detail) == ("error" if stated else "warning", True)


def test_zero_experts_that_come_out_as_zero(ids: Any) -> None:
    """Id 0 twice beside others, as vLLM returns LongCat-Flash's zero experts."""
    ids[40:90, 1, 2:] = 0
    ids[40:90, 1, :2] = [3, 7]
    assert "50 times a token lists id 0 twice" in told(diagnosed(ids), "ids_beyond_experts").detail


def test_counts_of_a_shared_expert() -> None:
    """A last column that counts every token, in all layers."""
    rng = np.random.default_rng(0)
    routed = rng.multinomial(6000, rng.dirichlet(np.full(8, 5)), size=3)
    load = np.concatenate([routed, np.full((3, 1), 2000)], axis=1)
    assert "fused with 8 routed ones" in told(check(load_counts(load)), "ids_beyond_experts").detail
    assert told(check(load_counts(load), num_experts=8), "ids_beyond_experts").severity == "error"
    two = np.concatenate([routed, np.full((3, 2), 3000)], axis=1)
    assert "Expert 8-9 has the same load" in told(check(load_counts(two)), "ids_beyond_experts").detail
    assert "lists id 0, in all" in told(check(load_counts(load[:, ::-1])), "ids_beyond_experts").detail


def test_experts_of_some_layers(ids: Any) -> None:
    """Layers with half of the experts are named, with both numbers."""
    small = random_ids(2, TOKENS, 2, 8, TOP_K)
    mixed = np.concatenate([small, ids], axis=1)
    assert "Layer(s) 0-1 use 8 experts, others 16" in told(diagnosed(mixed), "layer_specific_experts").detail


def test_a_layer_with_a_few_experts_less(ids: Any) -> None:
    """Where all experts but the last three of one layer are used, they do not exist."""
    ids[:, 1] = random_ids(4, TOKENS, 1, 13, TOP_K)[:, 0]
    assert "Layer(s) 1 use 13 experts, others 16" in told(diagnosed(ids), "layer_specific_experts").detail


def test_a_degenerate_layer(ids: Any) -> None:
    """A layer whose tokens nearly all choose the same experts, or the same one, where they choose one."""
    chosen = ids.copy()
    chosen[:-2, 2] = np.arange(3, 3 + TOP_K)
    found = told(diagnosed(chosen), "degenerate_layer")
    assert f"In layer(s) 2 nearly all tokens choose the same {TOP_K} experts: 3-{2 + TOP_K} of layer 2" in found.detail
    assert found.severity == "warning"
    alone = ids[:, :, :1].copy()
    alone[:-2, 2] = 5
    assert (
        "one expert takes nearly all tokens: expert 5 of layer 2" in told(diagnosed(alone), "degenerate_layer").detail
    )


def test_an_expert_in_every_list_is_a_note(ids: Any) -> None:
    """Of several experts per token, one has at most its share of the load, and the others can be placed around it."""
    ids[:, 2, 0] = 0
    ids[:, 2, 1:] = 1 + np.random.default_rng(0).random((TOKENS, EXPERTS - 1)).argsort(axis=1)[:, : TOP_K - 1]
    found = told(diagnosed(ids), "degenerate_layer")
    assert (found.severity, "expert 0 of layer 2 is in 100 %" in found.detail) == ("note", True)
    assert diagnosed(ids).codes == ("degenerate_layer",)


def test_a_degenerate_layer_of_counts() -> None:
    """Of counts, one expert has nearly all of a layer's load."""
    load = np.random.default_rng(0).integers(100, 900, (3, 8)).astype(float)
    load[1] = [3, 0, 99_900, 5, 1, 0, 2, 1]
    assert "expert 2 of layer 1" in told(check(load_counts(load)), "degenerate_layer").detail


def test_duplicate_prompts(ids: Any) -> None:
    """Whole sequences that occur again, also where their rows come in turns."""
    ids[600:900] = ids[:300]
    found = told(diagnosed(ids), "duplicate_prompts")
    assert (found.severity, "10 of 40 sequences" in found.detail) == ("warning", True)
    turn = np.arange(TOKENS).reshape(40, 30).T.ravel()
    assert told(diagnosed(ids[turn], seq_id=turn // 30), "duplicate_prompts") == found


def test_duplicate_prompts_with_other_answers(ids: Any) -> None:
    """Where the phase is known, a prompt is a duplicate whatever was generated from it."""
    ids.reshape(40, 30, LAYERS, TOP_K)[1:5, :10] = ids[:10]
    phase = (np.arange(TOKENS) % 30 >= 10).astype(np.uint8)
    assert "4 of 40 sequences" in told(diagnosed(ids, phase=phase), "duplicate_prompts").detail
    assert "duplicate_prompts" not in diagnosed(ids).codes


def test_too_few_tokens(ids: Any) -> None:
    """How many tokens there are for each expert, and how many it takes."""
    found = told(diagnosed(ids[:60]), "too_few_tokens")
    assert (found.severity, "60 tokens are 15.0 for each of 16" in found.detail) == ("warning", True)
    assert "at least 400 tokens" in found.remedy
    assert told(diagnosed(ids[:200]), "too_few_tokens").severity == "note"


def test_shares_are_no_few_tokens() -> None:
    """Loads that were scaled say nothing of their noise."""
    assert check(load_counts(np.random.default_rng(0).dirichlet(np.ones(8), 3))).codes == ()


@pytest.mark.parametrize(("passes", "severity"), [(1000, "warning"), (640, "note")])
def test_a_full_buffer(passes: int, severity: str) -> None:
    """A ring whose passes are all used may have lost the first ones."""
    load = np.random.default_rng(0).integers(100, 900, (3, 8))
    found = told(check(load_counts(load, full_buffer=passes)), "wrapped_buffer")
    assert (found.severity, f"All {passes:,} passes" in found.detail) == (severity, True)


def test_mixed_phases(ids: Any) -> None:
    """Prefill and decode that use other experts; alike, they are no finding."""
    phase = (np.arange(TOKENS) % 2).astype(np.uint8)
    assert "mixed_phases" not in diagnosed(ids, phase=phase).codes
    ids[1::2] = (ids[1::2] + 5) % EXPERTS
    found = told(diagnosed(ids, phase=phase), "mixed_phases")
    assert "600 prefill and 600 decode tokens" in found.detail
    assert "`phase`" in found.remedy


def test_phases_of_other_sequences_are_not_mixed() -> None:
    """Sequences have topics: prefill and decode of a few other ones differ by that alone."""
    rng = np.random.default_rng(3)
    topic = np.repeat(1.5 * rng.normal(size=(12, 2, 32)), 100, axis=0)
    ids = np.argsort(-(topic + rng.gumbel(size=topic.shape)), axis=2)[:, :, :4].astype(np.int64)
    sequence = np.arange(1200) // 100
    columns = {"seq_id": sequence, "phase": (sequence % 3 == 0).astype(np.uint8)}
    assert "mixed_phases" not in diagnosed(ids, num_experts=32, **columns).codes


def test_other_faults_are_refused_as_ever(ids: Any) -> None:
    """What is no fault of a capture is an error of the reader's, with its place."""
    ids[7, 1] = [4, 4, 2, 3]
    with pytest.raises(InputError, match=r"row 7, layer 1, k 1.*chosen twice"):
        diagnosed(ids)


def test_unwritten_rows_of_engines(tmp_path: Path, ids: Any) -> None:
    """A file of vLLM's that the reader refuses is diagnosed."""
    whole = np.concatenate([np.zeros((TOKENS, 1, TOP_K), np.uint8), ids], axis=1).astype(np.uint8)
    whole[:400] = 0
    np.save(tmp_path / "routed.npy", whole)
    diagnosis = check(tmp_path / "routed.npy")
    assert "400 of 1,200 rows" in told(diagnosis, "all_zero_rows").detail
    assert [one.code for one in diagnosis if one.severity != "note"] == ["all_zero_rows"]


def test_worst_first_and_one_line(ids: Any) -> None:
    """Errors stand before warnings and notes, and one line names what is not a note."""
    ids[:300] = 0
    ids[500:520] = ids[500]
    ids[600:680] = ids[600]
    diagnosis = diagnosed(ids[:, 1:], layer_ids=[1, 2, 3], seq_id=np.arange(TOKENS))
    assert [one.severity for one in diagnosis] == ["error", "warning", "note"]
    assert diagnosis.line is not None
    assert "zeros; repeated rows: `moe-placement check`" in diagnosis.line


def test_options_of_files_have_no_effect_on_traces(ids: Any, tmp_path: Path) -> None:
    """How to read a file is refused of what is no file; of a saved trace it counts."""
    trace = Trace.of(ids, num_experts=EXPERTS)
    with pytest.raises(InputError, match="`top_k` says how to read a file"):
        check(trace, top_k=4)
    save(trace, tmp_path / "trace.jsonl")
    assert check(tmp_path / "trace.jsonl", top_k=4).codes == ()


@pytest.mark.parametrize(
    ("ranks", "told_of"),
    [
        ((2,), "those of 0-1 are not there"),
        ((0, 1, 3), "those of 2 are not there"),
        ((0,), "Only rank 0's file is there"),
        ((0, 2, 4), None),
        ((), None),
    ],
)
def test_files_of_some_ranks(ranks: tuple[int, ...], told_of: str | None) -> None:
    """Formats with a file per rank say whose files were read; every other rank may be all that record."""
    load = np.random.default_rng(0).integers(100, 900, (3, 8))
    diagnosis = check(load_counts(load, ranks=ranks))
    if told_of is None:
        assert diagnosis.codes == ()
    else:
        assert told_of in told(diagnosis, "single_rank").detail
        assert diagnosis.line is not None
        assert diagnosis.line.startswith("The recording has")


@pytest.mark.parametrize("form", ["counts_csv", "llama_csv"])
def test_counts_of_experts_beyond_the_stated_ones(tmp_path: Path, form: str) -> None:
    """Long tables are diagnosed where readers refuse them."""
    pairs = [(layer, expert) for layer in range(2) for expert in range(9)]
    rows = {
        "counts_csv": [
            "layer,expert,count",
            *(f"{layer},{expert},{200 + 7 * expert * layer}" for layer, expert in pairs),
        ],
        "llama_csv": ["layer,expert", *(f"{layer},{expert}" for layer, expert in pairs for _ in range(200 + expert))],
    }[form]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    assert told(check(tmp_path / "t.csv", num_experts=8), "ids_beyond_experts").severity == "error"
