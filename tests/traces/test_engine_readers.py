"""One toy trace, written as every engine would: the readers give back what it was made from."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine_files import (
    ENGINE_FILES,
    Toy,
    npy_bytes,
    sglang_records,
    sglang_response,
    sglang_responses,
    sglang_stat,
    text,
    vllm_array,
    vllm_response,
    vllm_responses,
    write_bundle,
)
from tests.torch_files import View, torch_bytes
from traces import InputError, LoadCounts, ModelLayout, Profile, Trace, check, load
from traces.batch import Batch

TOY = Toy()
SHAPE: dict[str, Any] = {"model": ModelLayout.of(TOY.layers, moe_layers=TOY.moe), "top_k": TOY.top_k}


def hints(name: str) -> dict[str, Any]:
    """Return what the caller has to say about a format."""
    return SHAPE if name.startswith("sglang_routed") else {}


def written(path: Path, content: bytes) -> Path:
    """Write a file."""
    path.write_bytes(content)
    return path


def tokens_of(path: Path, step: int = 10, **options: Any) -> tuple[Trace, Any]:
    """Load a trace and join its batches."""
    trace = load(path, **options)
    assert isinstance(trace, Trace)
    parts = list(trace.batches(step))
    names = ("topk_ids", "rows", *trace.columns)
    return trace, Batch(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def refused(code: str, path: Path, **options: Any) -> str:
    """Load and read, which must fail with `code`; returns the message."""

    def read_all() -> None:
        loaded = load(path, **options)
        if isinstance(loaded, Trace):
            list(loaded.batches())

    with pytest.raises(InputError) as error:
        read_all()
    assert code in {violation.code for violation in error.value.violations}, str(error.value)
    return str(error.value)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ENGINE_FILES)
def test_every_schema_gives_the_truth(tmp_path: Path, name: str, seed: int) -> None:
    """Layers, experts, load, and the tokens in order where there are tokens."""
    toy = Toy(seed=seed)
    path = write_bundle(tmp_path / "dump", ENGINE_FILES[name](toy))
    loaded = load(path, **hints(name))
    assert loaded.provenance.format == name.split()[0]
    assert loaded.provenance.source == path.name
    assert (loaded.layer_ids.tolist(), loaded.num_experts) == (list(toy.moe), toy.experts)
    if isinstance(loaded, LoadCounts):
        assert np.array_equal(loaded.load, toy.load)
        return
    assert (loaded.top_k, loaded.num_tokens) == (toy.top_k, len(toy.ids))
    for step in (1, 7, 1000):
        assert np.array_equal(tokens_of(path, step, **hints(name))[1].topk_ids, toy.ids)
    assert np.array_equal(Profile.of(loaded).load, toy.load)


RESPONSES = [name for name in ENGINE_FILES if "routed" in name and name != "vllm_routed_experts"]


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_are_sequences(tmp_path: Path, name: str) -> None:
    """Each has its own id; positions and phases follow from its token counts."""
    _, tokens = tokens_of(write_bundle(tmp_path / "dump", ENGINE_FILES[name](TOY)), **hints(name))
    position = np.concatenate([np.arange(length) for length in TOY.lengths])
    assert np.array_equal(tokens.seq_id, np.repeat(np.arange(len(TOY.lengths)), TOY.lengths))
    assert np.array_equal(tokens.token_pos, position)
    assert np.array_equal(tokens.phase, position >= 3)


def test_a_response_that_starts_late_keeps_its_positions(tmp_path: Path) -> None:
    """Rows from the middle of a sequence on; without token counts, there are no positions."""
    response = sglang_response(TOY.requests()[0], prompt=10)
    response["meta_info"]["prompt_tokens"] += 5
    _, tokens = tokens_of(written(tmp_path / "a", json.dumps(response).encode()), **SHAPE)
    assert np.array_equal(tokens.token_pos, 5 + np.arange(40))
    del response["meta_info"]["prompt_tokens"]
    trace, _ = tokens_of(written(tmp_path / "b", json.dumps(response).encode()), **SHAPE)
    assert trace.columns == {"seq_id"}


@pytest.mark.parametrize("layout", ["one", "list", "lines", "gzip"])
def test_responses_come_in_any_layout(tmp_path: Path, layout: str) -> None:
    """A single response over many lines, a list, lines, and compressed."""
    rows = TOY.requests()[0]
    response = vllm_response(TOY, rows)
    content = {
        "one": json.dumps(response, indent=2).encode(),
        "list": json.dumps([response]).encode(),
        "lines": json.dumps(response).encode() + b"\n",
        "gzip": gzip.compress(json.dumps([response]).encode()),
    }[layout]
    _, tokens = tokens_of(written(tmp_path / "t", content))
    assert np.array_equal(tokens.topk_ids, rows[:, list(TOY.moe)])


def test_several_choices_are_several_sequences(tmp_path: Path) -> None:
    """Choices without the field are counted in a note."""
    first, second = (vllm_response(TOY, rows) for rows in TOY.requests()[:2])
    first["choices"] += [*second["choices"], {"index": 2, "text": "", "routed_experts": None}]
    trace, tokens = tokens_of(written(tmp_path / "t", json.dumps(first).encode()))
    assert tokens.seq_id is not None
    assert np.bincount(tokens.seq_id).tolist() == [40, 7]
    assert "1 choices have no routed_experts." in trace.provenance.notes


@pytest.mark.parametrize("key", ["sglext", "sgl_ext"])
@pytest.mark.parametrize("extension", ["response", "choice", "meta"])
def test_sglang_of_the_openai_kind(tmp_path: Path, extension: str, key: str) -> None:
    """The field is in an extension of the response, of the choice, or in what the choice says of itself."""
    inner = {"routed_experts": sglang_response(TOY.requests()[0])["meta_info"]["routed_experts"]}
    of_choice = {"response": {}, "choice": {key: inner}, "meta": {"meta_info": inner}}[extension]
    response = {"id": "x", "choices": [{"index": 0} | of_choice]} | ({key: inner} if extension == "response" else {})
    trace, tokens = tokens_of(written(tmp_path / "t", json.dumps(response).encode()), **SHAPE)
    assert np.array_equal(tokens.topk_ids, TOY.requests()[0][:, list(TOY.moe)])
    assert trace.engine == "sglang"


def test_sglang_sends_the_routing_of_one_choice_only(tmp_path: Path) -> None:
    """With several choices of a request, a note says what is missing, and how to record it."""
    inner = {"routed_experts": sglang_response(TOY.requests()[0])["meta_info"]["routed_experts"]}
    response = {"choices": [{"index": 0}, {"index": 1}, {"index": 2}], "sglext": inner, "usage": {"prompt_tokens": 3}}
    trace = load(written(tmp_path / "t", json.dumps(response).encode()), **SHAPE)
    assert isinstance(trace, Trace)
    assert trace.num_tokens == len(TOY.requests()[0])
    assert any("2 choices" in note and "n = 1" in note for note in trace.provenance.notes)


def test_streamed_answers_have_the_field_at_their_end(tmp_path: Path) -> None:
    """Lines without the field, or with null in it, come first; the form is told by the first that has it."""
    rows = TOY.requests()[0]
    last = vllm_response(TOY, rows)
    early: list[dict[str, Any]] = [{"choices": [{"index": 0, "token_ids": [1]}]}] * 3
    early.append({"choices": [{"index": 0, "routed_experts": None}]})
    trace, tokens = tokens_of(written(tmp_path / "t", "\n".join(map(json.dumps, [*early, last])).encode()))
    assert trace.provenance.format == "vllm_routed_experts"
    assert np.array_equal(tokens.topk_ids, rows[:, list(TOY.moe)])
    refused("no_routed_experts", written(tmp_path / "u", "\n".join(map(json.dumps, early)).encode()))


NUMBERS = text(np.zeros((2, 3, 2), np.uint8).tobytes())
WHOLE = {"data": NUMBERS, "shape": [2, 3, 2], "start": 0, "dtype": "uint8"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"shape": [2, 3]}, "routed_shape"),
        ({"shape": [2, 3, 3]}, "routed_shape"),
        ({"shape": [2, 3, True]}, "routed_shape"),
        ({"dtype": "uint16"}, "routed_shape"),
        ({"dtype": ""}, "topk_ids_dtype"),
        ({"dtype": "float32"}, "topk_ids_dtype"),
        ({"dtype": "no such"}, "topk_ids_dtype"),
        ({"start": -1}, "value_type"),
        ({"data": "#"}, "bad_base64"),
    ],
)
def test_dynamo_answers_that_are_refused(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    """Bytes that don't fill the shape, and types that are none."""
    answer = {"choices": [{"index": 0}], "nvext": {"routed_experts": WHOLE | change}}
    refused(code, written(tmp_path / "t.json", json.dumps(answer).encode()))


def test_dynamo_tells_where_the_first_row_is(tmp_path: Path) -> None:
    """Rows of the prompt may have been cut off; `start` is the position of the first that is left."""
    rows = TOY.requests()[0][:12].astype(np.uint8)
    field = {"data": text(rows.tobytes()), "shape": list(rows.shape), "start": 7, "dtype": "uint8"}
    answer = {"choices": [{"index": 0}], "nvext": {"routed_experts": field}}
    answer["usage"] = {"prompt_tokens": 9, "completion_tokens": 11}
    _, tokens = tokens_of(written(tmp_path / "t", json.dumps(answer).encode()))
    assert np.array_equal(tokens.token_pos, np.arange(7, 19))
    assert np.array_equal(tokens.phase, np.arange(7, 19) >= 9)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([[[1, 2], [3, 4]], [[1, 2]]], "routed_shape"),
        ([[[1, 2], [3]]], "routed_shape"),
        ([[1, 2]], "nesting"),
        ([[[1, 2.5]]], "value_type"),
        ([[[True, 2]]], "value_type"),
        ([[[1 << 70, 2]]], "damaged_file"),
        ([], "zero_tokens"),
        ([[]], "routed_shape"),
    ],
)
def test_lmdeploy_answers_that_are_refused(tmp_path: Path, value: Any, code: str) -> None:
    """Lists of several lengths, of other depths, and of what is no integer."""
    refused(code, written(tmp_path / "t.json", json.dumps({"meta_info": {"routed_experts": value}}).encode()))


def test_lmdeploy_references_are_named(tmp_path: Path) -> None:
    """Where objects go through Ray, the answer has a name in place of the numbers; among others, it is told."""
    answers = [{"choices": [{"routed_experts": [[[1, 2]]]}]}, {"choices": [{"routed_experts": "key"}]}]
    assert "object 2" in refused(
        "routed_reference", written(tmp_path / "t", "\n".join(map(json.dumps, answers)).encode())
    )


def test_sglang_needs_layers_and_top_k(tmp_path: Path) -> None:
    """Both are asked for at once; wrong ones are refused where they can't be right."""
    path = write_bundle(tmp_path / "dump", sglang_responses(TOY))
    message = refused("top_k_needed", path)
    assert "`num_layers`" in message
    assert "routed_experts" in refused("routed_shape", path, model=ModelLayout.of(7), top_k=3)
    refused("top_k_range", path, model=ModelLayout.of(6), top_k=0)
    whole = ModelLayout.of(6, moe_layers=TOY.moe, top_k=3, num_experts=32)
    assert load(path, model=whole).num_experts == 32


def test_dense_layers_are_told_by_rule_or_by_the_caller(tmp_path: Path) -> None:
    """All-zero layers can't be choices of more than one expert; the caller may name the rest, but not wrongly."""
    path = write_bundle(tmp_path / "dump", vllm_array(TOY))
    assert any("Layers 0, 3 hold filler only" in note for note in load(path).provenance.notes)
    for named in ({"layer_ids": [1, 2, 4, 5]}, {"model": ModelLayout.of(6, moe_layers=TOY.moe)}):
        loaded = load(path, **named)
        assert (loaded.layer_ids.tolist(), loaded.provenance.notes[:-1]) == ([1, 2, 4, 5], ())
    refused("layer_is_dense", path, model=ModelLayout.of(6))
    refused("layer_not_named", path, layer_ids=[1, 2, 4])
    refused("layer_ids_range", path, layer_ids=[1, 2, 4, 6])
    refused("layer_count", path, model=ModelLayout.of(7, first_moe_layer=1))


def test_arrays_of_moe_layers_only(tmp_path: Path) -> None:
    """As TensorRT-LLM returns them: told by the model, or by names that are no rows; nothing is shifted."""
    path = written(tmp_path / "r.npy", npy_bytes(TOY.ids.astype(np.int32)))
    model = ModelLayout.of(TOY.layers, moe_layers=TOY.moe, num_experts=TOY.experts)
    for said in ({"model": model}, {"layer_ids": list(TOY.moe)}):
        trace, tokens = tokens_of(path, **said)
        assert trace.layer_ids.tolist() == list(TOY.moe)
        assert np.array_equal(tokens.topk_ids, TOY.ids)
        assert trace.engine == "tensorrt-llm"
    assert load(path).layer_ids.tolist() == [0, 1, 2, 3]
    refused("layer_count", path, model=ModelLayout.of(9, first_moe_layer=1))


def test_top_1_is_ambiguous_without_the_caller(tmp_path: Path) -> None:
    """With one expert per token, all zero may be choices."""
    toy = Toy(top_k=1, moe=(1, 2, 3, 4, 5))
    path = write_bundle(tmp_path / "dump", vllm_array(toy))
    assert "`first_moe_layer`" in refused("ambiguous_layers", path)
    _, tokens = tokens_of(path, model=ModelLayout.of(6, first_moe_layer=1))
    assert np.array_equal(tokens.topk_ids, toy.ids)
    assert np.array_equal(tokens_of(path, layer_ids=range(6))[1].topk_ids, toy.whole)


def test_unwritten_rows_are_refused_or_dropped(tmp_path: Path) -> None:
    """Rows that are all zero were never written; nothing is made up for them."""
    rows = np.concatenate([np.zeros((9, 6, 3), int), TOY.whole, np.zeros((5, 6, 3), int)]).astype(np.uint16)
    path = written(tmp_path / "t.npy", npy_bytes(rows))
    assert "14 of 134 rows" in refused("unwritten_rows", path)
    trace, tokens = tokens_of(path, drop_dummy_rows=True)
    assert np.array_equal(tokens.topk_ids, TOY.ids)
    assert any("on request" in note for note in trace.provenance.notes)


def test_cuda_tensors_and_lists_of_other_kinds(tmp_path: Path) -> None:
    """Tensors may have been on a GPU, and be views of a larger buffer."""
    counts = np.zeros((4, TOY.layers, TOY.experts), np.int32)
    counts[1, list(TOY.moe)] = TOY.load
    view = View(base=counts.ravel(), shape=(2, *counts.shape[1:]), strides=(96, 16, 1), offset=96, device="cuda:3")
    loaded = load(written(tmp_path / "t.pt", torch_bytes({"rank": 0, "logical_count": view})))
    assert isinstance(loaded, LoadCounts)
    assert np.array_equal(loaded.load, TOY.load)
    assert any("1 of 2 steps" in note for note in loaded.provenance.notes)


def test_stat_files_of_ranks_are_the_same_sums(tmp_path: Path) -> None:
    """They are taken once, and so is a dump that is there twice; other counts of a rank are refused."""
    (content,) = sglang_stat(TOY).values()
    other = torch_bytes({"rank": 1, "logical_count": np.full((1, 6, 16), 3, np.int32)})
    (twin,) = sglang_stat(TOY, rank=1).values()
    loaded = load(write_bundle(tmp_path / "c", {"r0.pt": content, "r1.pt": twin}))
    assert isinstance(loaded, LoadCounts)
    assert np.array_equal(loaded.load, TOY.load)
    assert any("2 ranks hold the same sums" in note for note in loaded.provenance.notes)
    refused("ranks_differ", write_bundle(tmp_path / "a", {"r0.pt": content, "r1.pt": other}))
    again = load(write_bundle(tmp_path / "b", {"r0.pt": content, "r1.pt": content}))
    assert isinstance(again, LoadCounts)
    assert np.array_equal(again.load, TOY.load)
    assert any("1 dumps have the very counts" in note for note in again.provenance.notes)


@pytest.mark.parametrize("tokens", [False, True])
def test_each_file_is_folded_through_its_own_map(tmp_path: Path, tokens: bool) -> None:
    """Where maps differ, it is said; where ids can't be told apart any more, the trace is refused."""
    changed = TOY.maps.copy()
    changed[0] = changed[0][::-1]  # of a dense layer: it does no harm, but the map did change
    files = sglang_records(TOY, tokens=tokens, maps={1: changed})
    loaded = load(write_bundle(tmp_path / "dump", files))
    assert any("changed while recording" in note for note in loaded.provenance.notes)
    assert any("rebalance during recording" in note for note in loaded.provenance.notes)


@pytest.mark.parametrize("tokens", [False, True])
def test_passes_that_are_twice_or_missing(tmp_path: Path, tokens: bool) -> None:
    """A rank's file given twice is an error; passes that not every rank has are counted in a note."""
    files = sglang_records(TOY, tokens=tokens)
    names = list(files)
    refused("duplicate_pass", write_bundle(tmp_path / "a", files | {"copy.pt": files[names[0]]}))
    assert not any("are not there" in note for note in load(tmp_path / "a" / names[0]).provenance.notes)
    shorter = sglang_records(Toy(passes=3), tokens=tokens)
    loaded = load(write_bundle(tmp_path / "b", files | {names[1]: shorter[names[1]]}))
    assert any("1 of 4 passes are not there for all of the 3 ranks" in note for note in loaded.provenance.notes)


def test_per_token_columns(tmp_path: Path) -> None:
    """Rank, position and phase of each token, in the order of passes and ranks."""
    path = write_bundle(tmp_path / "dump", ENGINE_FILES["sglang_per_token"](TOY))
    _, tokens = tokens_of(path)
    assert np.array_equal(tokens.source_rank, np.concatenate([[rank] * len(part) for _, rank, part in TOY.shares()]))
    assert np.array_equal(tokens.token_pos, np.arange(len(TOY.ids)))
    assert np.array_equal(tokens.phase, np.concatenate([[int(p > 11)] * len(part) for p, _, part in TOY.shares()]))


def test_copies_of_a_rank_are_left_out(tmp_path: Path) -> None:
    """Tensor-parallel ranks record the same tokens in every pass: they count once, with a note for each rank."""
    single = load(written(tmp_path / "one.pt", recording_of_rank(0)))
    files = {f"expert_distribution_recorder_1_{rank}.pt": recording_of_rank(rank) for rank in range(3)}
    trace, tokens = tokens_of(write_bundle(tmp_path / "dump", files))
    assert isinstance(single, Trace)
    assert trace.num_tokens == single.num_tokens
    assert set(tokens.source_rank.tolist()) == {0}
    assert sum("very tokens of another rank" in note for note in trace.provenance.notes) == 2


def recording_of_rank(rank: int) -> bytes:
    """Return a recording of all tokens, as any of the tensor-parallel ranks writes it."""
    alone = replace(TOY, ranks=1)
    records = []
    for number, _, part in alone.shares():
        padded = np.full((alone.layers, len(part), 8), -1, np.int32)
        padded[:, :, : alone.top_k] = alone.physical[part].swapaxes(0, 1)
        records.append(
            {
                "forward_pass_id": number,
                "rank": rank,
                "positions": part.tolist(),
                "forward_mode": 1 + (number > 11),
                "topk_ids_of_layer": padded,
            }
        )
    return torch_bytes({"records": records, "last_physical_to_logical_map": alone.maps})


def test_padding_of_batches_is_left_out(tmp_path: Path) -> None:
    """Rows without any expert are padding, which a note counts."""
    ids = np.full((TOY.layers, 20, 8), -1, np.int32)
    ids[:, 3:15, : TOY.top_k] = TOY.physical[:12].swapaxes(0, 1)
    record = {"forward_pass_id": 1, "rank": 0, "topk_ids_of_layer": ids, "forward_mode": 3}
    content = torch_bytes({"records": [record], "last_physical_to_logical_map": TOY.maps})
    trace, tokens = tokens_of(written(tmp_path / "t.pt", content))
    assert np.array_equal(tokens.topk_ids, TOY.ids[:12])
    assert trace.columns == {"source_rank"}
    assert any("8 rows without any expert" in note for note in trace.provenance.notes)


def test_a_fused_shared_expert_of_per_token(tmp_path: Path) -> None:
    """Id P, once in every list, is read as none, and told; in some lists only, it is refused, but for the doctor."""
    ids = np.full((TOY.layers, 12, 8), -1, np.int32)
    ids[:, :, : TOY.top_k] = TOY.physical[:12].swapaxes(0, 1)
    ids[list(TOY.moe), :, TOY.top_k] = TOY.slots
    record = {"forward_pass_id": 1, "rank": 0, "topk_ids_of_layer": ids, "forward_mode": 1}
    top = {"last_physical_to_logical_map": TOY.maps}
    path = written(tmp_path / "t.pt", torch_bytes({"records": [record]} | top))
    trace, tokens = tokens_of(path)
    assert (trace.top_k, trace.num_experts) == (TOY.top_k, TOY.experts)
    assert np.array_equal(tokens.topk_ids, TOY.ids[:12])
    assert f"Id {TOY.slots}, above" in " ".join(trace.provenance.notes)
    assert [one.severity for one in check(path) if one.code == "ids_beyond_experts"] == ["note"]
    ids[TOY.moe[1], 5, TOY.top_k] = -1
    path = written(tmp_path / "u.pt", torch_bytes({"records": [record]} | top))
    assert "`ids_beyond_experts` none" in refused("id_out_of_range", path)
    _, tokens = tokens_of(path, ids_beyond_experts="none", num_experts=TOY.experts, top_k=TOY.top_k)
    assert np.array_equal(tokens.topk_ids, TOY.ids[:12])
    assert [one.severity for one in check(path) if one.code == "ids_beyond_experts"] == ["error"]


def recording(**changes: Any) -> bytes:
    """Return a file of one record, with changed fields; None takes a field out."""
    ids = np.zeros((2, 3, 8), np.int32) - 1
    ids[1, :, :2] = [[0, 1], [1, 2], [3, 0]]
    record: dict[str, Any] = {"forward_pass_id": 1, "rank": 0, "topk_ids_of_layer": ids}
    top = {"last_physical_to_logical_map": changes.pop("map", np.array([[0, 1, 2, 3]] * 2))}
    record = {key: value for key, value in (record | changes).items() if value is not None}
    return torch_bytes({"records": [record]} | top)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"forward_pass_id": None}, "record_schema"),
        ({"forward_pass_id": -1}, "record_schema"),
        ({"forward_pass_id": "1"}, "record_schema"),
        ({"rank": True}, "record_schema"),
        ({"gatherer_key": 3}, "record_schema"),
        ({"topk_ids_of_layer": np.zeros((2, 3, 8), np.float32)}, "record_schema"),
        ({"topk_ids_of_layer": np.zeros((3, 3, 8), np.int32)}, "record_schema"),
        ({"topk_ids_of_layer": np.zeros((2, 24), np.int32)}, "record_schema"),
        ({"topk_ids_of_layer": [[1]]}, "record_schema"),
        ({"topk_ids_of_layer": np.full((2, 3, 8), 4, np.int32)}, "id_out_of_range"),
        ({"topk_ids_of_layer": np.full((2, 3, 8), -2, np.int32)}, "id_out_of_range"),
        ({"topk_ids_of_layer": np.full((2, 3, 8), -1, np.int32)}, "zero_tokens"),
        ({"topk_ids_of_layer": np.zeros((2, 0, 8), np.int32)}, "zero_tokens"),
        ({"topk_ids_of_layer": np.zeros((2, 3, 2), np.int32)}, "duplicate_expert"),
        ({"map": np.array([[0, 1, 2, -1]] * 2)}, "record_schema"),
        ({"map": np.array([[0, 1, 2, 1 << 40]] * 2)}, "record_schema"),
        ({"map": np.zeros((2, 4), np.float32)}, "record_schema"),
        ({"map": np.zeros((2, 0), np.int64)}, "record_schema"),
        ({"map": [[0]]}, "record_schema"),
        ({"map": np.array([[0, 0, 1, 1]] * 2)}, "duplicate_expert"),
    ],
)
def test_recordings_of_other_schemas(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """Every field is checked, and the error names file and record or row."""
    assert "t.pt" in refused(code, written(tmp_path / "t.pt", recording(**changes)))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"records": {}, "last_physical_to_logical_map": TOY.maps}, "record_schema"),
        ({"records": [], "last_physical_to_logical_map": TOY.maps}, "zero_tokens"),
        ({"records": [1], "last_physical_to_logical_map": TOY.maps}, "record_schema"),
        ({"logical_count": np.zeros((2, 3), np.int32), "rank": 0}, "zero_tokens"),
        ({"logical_count": np.zeros(3, np.int32), "rank": 0}, "record_schema"),
        ({"logical_count": np.zeros((2, 3, 4), np.int32), "rank": 0}, "zero_tokens"),
        ({"logical_count": np.zeros((2, 3, 40_000), np.int32), "rank": 0}, "record_schema"),
        ({"logical_count": np.full((2, 3, 4), -1), "rank": 0}, "load_not_finite"),
        ({"logical_count": np.full((2, 3, 4), np.nan), "rank": 0}, "load_not_finite"),
        ({"logical_count": np.full((2, 3, 4), np.inf), "rank": 0}, "load_not_finite"),
        ({"logical_count": np.ones((2, 3, 4), bool), "rank": 0}, "record_schema"),
        ({"logical_count": np.ones((2, 3, 4)), "rank": "0"}, "record_schema"),
        ({"logical_count": [1], "rank": 0}, "record_schema"),
    ],
)
def test_dumps_of_other_schemas(tmp_path: Path, value: dict[str, Any], code: str) -> None:
    """Shapes, types and values are checked."""
    assert "t.pt" in refused(code, written(tmp_path / "t.pt", torch_bytes(value)))


def test_files_of_other_kinds_in_a_folder_are_refused(tmp_path: Path) -> None:
    """Nothing in a bundle is passed over."""
    files = sglang_records(TOY, tokens=True)
    refused("not_torch", write_bundle(tmp_path / "a", files | {"z.json": b"{}"}))
    refused("record_schema", write_bundle(tmp_path / "b", files | sglang_stat(TOY)))
    smaller = Toy(slots=16)
    others = {"other.pt": next(iter(sglang_records(smaller, tokens=True).values()))}
    refused("ranks_differ", write_bundle(tmp_path / "c", files | others))


TWO = [{"routed_experts": text(npy_bytes(rows))} for rows in (TOY.whole, TOY.whole[:, 1:])]


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ({"choices": [{"routed_experts": "###"}]}, "bad_base64"),
        ({"choices": [{"routed_experts": 5}]}, "routed_form"),
        ({"choices": [{"routed_experts": "ä"}]}, "bad_base64"),
        ({"choices": [{"routed_experts": text(b"no array")}]}, "damaged_file"),
        ({"choices": [{"routed_experts": text(npy_bytes(np.zeros((2, 3))))}]}, "topk_ids_dtype"),
        ({"choices": [{"routed_experts": text(npy_bytes(np.zeros((2, 3), int)))}]}, "routed_shape"),
        ({"choices": [{"routed_experts": text(npy_bytes(np.zeros((2, 3, 0), int)))}]}, "routed_shape"),
        ({"choices": [{"routed_experts": text(npy_bytes(np.zeros((0, 3, 2), int)))}]}, "zero_tokens"),
        ({"choices": [{"routed_experts": text(npy_bytes(np.zeros((9, 3, 2), int)))}]}, "zero_tokens"),
        ({"choices": [TWO[0], TWO[1]]}, "routed_shape"),
        ({"choices": [{"routed_experts": None}]}, "no_routed_experts"),
    ],
)  # fmt: skip
def test_responses_of_other_schemas(tmp_path: Path, response: dict[str, Any], code: str) -> None:
    """Every field is checked, and the error names the response."""
    assert "t.json" in refused(code, written(tmp_path / "t.json", json.dumps(response).encode()))


def test_responses_that_are_cut_off(tmp_path: Path) -> None:
    """A list without its end, and a last line without its brace."""
    (content,) = vllm_responses(TOY).values()
    assert "object 4" in refused("bad_json", written(tmp_path / "t", content[:-5]))
    (content,) = sglang_responses(TOY).values()
    refused("bad_json", written(tmp_path / "t", content[:-1]), **SHAPE)


def test_more_rows_than_tokens_are_refused(tmp_path: Path) -> None:
    """Numbers without their shape may fit another one: the response's own token counts tell."""
    response = sglang_response(TOY.requests()[0], prompt=10)
    path = written(tmp_path / "a", json.dumps(response).encode())
    assert "top-1, but the response has" in refused("routed_shape", path, **(SHAPE | {"top_k": 1}))


def test_another_top_k_than_the_models_is_told(tmp_path: Path) -> None:
    """A fused shared expert makes one more: it is diagnosed, and a note, not the fault of an option nobody gave."""
    path = written(tmp_path / "a", *vllm_responses(TOY).values())
    trace = load(path, model=ModelLayout.of(TOY.layers, moe_layers=TOY.moe, num_experts=64, top_k=TOY.top_k - 1))
    assert f"the model top-{TOY.top_k - 1}" in " ".join(trace.provenance.notes)


def test_failed_requests_and_raw_streams(tmp_path: Path) -> None:
    """What a server answers to a request that failed has no rows; a raw stream is named for what it is."""
    (lines,) = vllm_responses(TOY).values()
    answers = lines + b"\n" + json.dumps({"object": "error", "message": "too long"}).encode() + b"\n"
    assert len(tokens_of(written(tmp_path / "a", answers))[1].topk_ids) == len(TOY.ids)
    stream = written(tmp_path / "b", b'data: {"choices": [{"index": 0}]}\n\ndata: [DONE]\n\n')
    assert "server-sent events" in refused("unknown_format", stream)


def test_the_ranks_whose_files_were_read(tmp_path: Path) -> None:
    """A file of one rank is told as that by the doctor."""
    for tokens in (True, False):
        files = sglang_records(TOY, tokens=tokens)
        name = sorted(files)[2]
        assert load(written(tmp_path / f"{tokens}.pt", files[name])).provenance.ranks == (2,)
        assert load(write_bundle(tmp_path / str(tokens), files)).provenance.ranks == (0, 1, 2)


def test_a_full_ring_with_an_idle_pass(tmp_path: Path) -> None:
    """A ring whose last pass is used is full, also where a pass had no tokens."""
    counts = np.ones((9, 2, 4), np.int32)
    counts[3] = 0
    for last, full in ((1, 9), (0, None)):
        counts[8] = last
        path = written(tmp_path / f"{last}.pt", torch_bytes({"logical_count": counts}))
        assert load(path).provenance.full_buffer == full
        path.with_suffix(".json").write_text(json.dumps({"logical_count": counts.tolist()}))
        assert load(path.with_suffix(".json")).provenance.full_buffer == full
