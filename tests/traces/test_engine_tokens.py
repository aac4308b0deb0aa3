"""Token traces of engines: one toy trace, written to each schema, ranks and records shuffled, is read as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.builders.traces import random_ids
from traces import InputError, ModelLayout, Profile, Trace, load
from traces.decoding.policylang_lines import entries_of, parse_entries
from traces.formats.policylang import _entry

TOKENS, EXPERTS, TOP_K = 90, 16, 2
LAYERS = [2, 3, 7]
IDS = random_ids(0, TOKENS, len(LAYERS), EXPERTS, TOP_K)
RANK_OF = np.sort(np.random.default_rng(1).integers(0, 3, TOKENS))
STEP_OF = np.random.default_rng(2).integers(0, 4, TOKENS)
Records = list[dict[str, Any]]


def trace_of(path: Path, **options: Any) -> Trace:
    """Load a trace."""
    loaded = load(path, **options)
    assert isinstance(loaded, Trace)
    return loaded


def column(trace: Trace, name: str, step: int = 7) -> npt.NDArray[Any]:
    """Read a column, a few tokens at a time."""
    return np.concatenate([getattr(batch, name) for batch in trace.batches(step)])


def notes_of(trace: Trace) -> str:
    """Return all notes."""
    return " ".join(trace.provenance.notes)


def refused(code: str, path: Path, **options: Any) -> str:
    """Load and read must fail with `code`; returns the message."""

    def read_all() -> None:
        list(trace_of(path, **options).batches())

    with pytest.raises(InputError) as error:
        read_all()
    assert code in {violation.code for violation in error.value.violations}, str(error.value)
    return str(error.value)


def lines(path: Path, objects: Records) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(item) + "\n" for item in objects))
    return path


def expected() -> npt.NDArray[np.integer[Any]]:
    """Return the rows in the order of ranks, and of steps within them."""
    return IDS[np.lexsort((STEP_OF, RANK_OF))]


def router_record(rank: int, step: int, layer: int, ids: npt.NDArray[Any], **fields: Any) -> dict[str, Any]:
    """Return a record of Megatron's tracer."""
    record = {"step": step, "stage": "pre_dispatch", "block": "decoder", "layer": layer, "rank": rank}
    return record | {"num_tokens": len(ids), "topk": ids.shape[1], "top_indices": ids.tolist()} | fields


def rank_records(rank: int) -> Records:
    """Return the records of one rank, layers of a step in any order."""
    order = np.random.default_rng(rank).permutation(len(LAYERS))
    return [
        router_record(rank, step, LAYERS[n], IDS[(rank == RANK_OF) & (step == STEP_OF), n])
        for step in range(4)
        for n in order
    ]


def megatron(folder: Path, change: Callable[[int, Records], Records] = lambda rank, records: records) -> Path:
    """Write the files of three ranks."""
    folder.mkdir()
    for rank in range(3):
        lines(folder / f"router_trace_rank{rank}.jsonl", change(rank, rank_records(rank)))
    return folder


def test_megatron_joins_layers_to_tokens(tmp_path: Path) -> None:
    """Layers come in any order within a step; ranks are the home of their tokens."""
    trace = trace_of(megatron(tmp_path / "run"), num_experts=EXPERTS, layer_base=0)
    assert np.array_equal(column(trace, "topk_ids"), expected())
    assert np.array_equal(column(trace, "source_rank"), RANK_OF)
    assert trace.layer_ids.tolist() == LAYERS
    assert (trace.num_tokens, trace.num_experts, trace.top_k) == (TOKENS, EXPERTS, TOP_K)
    assert column(trace, "rows").tolist() == list(range(TOKENS))


def test_megatron_stages_are_told(tmp_path: Path) -> None:
    """Layers of a pipeline stage count from 0: a note says so, a model refuses them, and layer_ids names them."""
    path = megatron(tmp_path / "run")
    notes = trace_of(path, num_experts=EXPERTS, layer_base=0).provenance.notes
    assert any("pipeline parallelism" in note for note in notes)
    wanted = [layer + 10 for layer in LAYERS]
    named = trace_of(path, num_experts=EXPERTS, layer_ids=wanted)
    assert named.layer_ids.tolist() == wanted
    assert not any("pipeline parallelism" in note for note in named.provenance.notes)
    model = ModelLayout.of(len(LAYERS) + 40, first_moe_layer=0)
    with pytest.raises(InputError, match="stage counts its layers from 0"):
        load(path, num_experts=EXPERTS, model=model)


def test_megatron_single_file(tmp_path: Path) -> None:
    """The file of one rank is a trace too."""
    trace = trace_of(megatron(tmp_path / "run") / "router_trace_rank1.jsonl", layer_base=0)
    assert trace.num_tokens == (RANK_OF == 1).sum()
    assert set(column(trace, "source_rank")) == {1}


def test_megatron_leaves_out_prediction_blocks_and_other_stages(tmp_path: Path) -> None:
    """Blocks of multi-token prediction route other tokens; both are said."""

    def add(rank: int, records: Records) -> Records:
        mtp = router_record(rank, 0, LAYERS[0], IDS[:5, 0], block="mtp", mtp_idx=0)
        return [mtp, *records[:2], records[0] | {"stage": "post_dispatch"}, *records[2:]]

    trace = trace_of(megatron(tmp_path / "run", add), num_experts=EXPERTS, layer_base=0)
    assert np.array_equal(column(trace, "topk_ids"), expected())
    assert "3 records of multi-token prediction" in notes_of(trace)
    assert "3 records of other stages" in notes_of(trace)


def test_megatron_incomplete_steps_are_left_out_with_a_note(tmp_path: Path) -> None:
    """A step that lacks a layer, as the last one may, or tokens in one."""

    def cut(rank: int, records: Records) -> Records:
        if rank == 0:
            return records[:-1]
        if rank == 1:
            short = records[0]["top_indices"][:-1]
            return [records[0] | {"top_indices": short, "num_tokens": len(short)}, *records[1:]]
        return records

    trace = trace_of(megatron(tmp_path / "run", cut), num_experts=EXPERTS, layer_base=0)
    kept = ~((RANK_OF == 0) & (STEP_OF == 3)) & ~((RANK_OF == 1) & (STEP_OF == 0))
    order = np.lexsort((STEP_OF, RANK_OF))
    assert np.array_equal(column(trace, "topk_ids"), IDS[order[kept[order]]])
    assert trace.num_tokens == kept.sum()
    assert "2 steps lack layers" in notes_of(trace)


def test_megatron_micro_batches_keep_their_order(tmp_path: Path) -> None:
    """In training a layer fires once per micro-batch; the first of every layer belong together."""

    def halved(rank: int, records: Records) -> Records:
        parts: tuple[Records, Records] = ([], [])
        for record in records:
            ids = np.array(record["top_indices"])
            for part, half in zip(parts, (ids[:2], ids[2:]), strict=True):
                part.append(router_record(rank, record["step"], record["layer"], half))
        by_step = [[record for part in parts for record in part if record["step"] == step] for step in range(4)]
        return [record for step in by_step for record in step]

    trace = trace_of(megatron(tmp_path / "run", halved), num_experts=EXPERTS, layer_base=0)
    assert np.array_equal(column(trace, "topk_ids"), expected())


def test_megatron_copies_of_a_rank_are_left_out(tmp_path: Path) -> None:
    """Tensor-parallel ranks record the same tokens; they count once."""
    folder = megatron(tmp_path / "run")
    lines(folder / "router_trace_rank7.jsonl", [record | {"rank": 7} for record in rank_records(2)])
    trace = trace_of(folder, num_experts=EXPERTS, layer_base=0)
    assert trace.num_tokens == TOKENS
    assert "Rank 7 has the same tokens as rank 2" in notes_of(trace)


def changed(index: int, **fields: Any) -> Callable[[int, Records], Records]:
    """Return a change of one record of rank 0."""

    def change(rank: int, records: Records) -> Records:
        if rank == 0:
            records[index] = records[index] | fields
        return records

    return change


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("topk_ids_shape", changed(0, num_tokens=10**9)),
        ("topk_ids_shape", changed(0, top_indices=[[1, 2], [3]], num_tokens=2)),
        ("topk_ids_shape", changed(0, topk=0)),
        ("value_type", changed(0, step=-1)),
        ("value_type", changed(0, layer=True)),
        ("value_type", changed(0, top_indices=[[1, 2.5]], num_tokens=1)),
        ("value_type", changed(0, top_indices=[[True, 2]], num_tokens=1)),
        ("damaged_file", changed(0, top_indices=[[1, 1 << 40]], num_tokens=1)),
        ("records_differ", changed(1, rank=5)),
        ("records_differ", changed(1, topk=1, top_indices=[[1]], num_tokens=1)),
        ("step_order", changed(1, step=9)),
        ("block", changed(0, block="encoder")),
        ("duplicate_rank", lambda rank, records: [record | {"rank": 1} for record in records]),
        ("layers_differ", lambda rank, records: [r for r in records if rank or r["layer"] != 3]),
        ("duplicate_record", lambda rank, records: [r for r in records if r["step"] == 1] * 2),
        ("zero_tokens", lambda rank, records: [r | {"block": "mtp"} for r in records]),
    ],
)
def test_megatron_files_that_are_refused(tmp_path: Path, code: str, change: Callable[[int, Records], Records]) -> None:
    """Records that break the schema, ranks twice, pipeline stages, tokens twice."""
    refused(code, megatron(tmp_path / "run", change), layer_base=0)


@pytest.mark.parametrize("bad", [-2, 99])
def test_megatron_ids_out_of_range(tmp_path: Path, bad: int) -> None:
    """Experts that the model has not."""
    folder = megatron(tmp_path / "run", changed(0, top_indices=[[0, 1]] * 8 + [[bad, 3]], num_tokens=9))
    for n in (1, 2):  # the same number of tokens in the other layers
        records = [json.loads(line) for line in (folder / "router_trace_rank0.jsonl").read_text().splitlines()]
        records[n] = records[n] | {"top_indices": [[0, 1]] * 9, "num_tokens": 9}
        lines(folder / "router_trace_rank0.jsonl", records)
    refused("id_out_of_range", folder, num_experts=EXPERTS, layer_base=0)


@pytest.mark.parametrize("base", [0, 1])
def test_megatron_layers_are_counted_from_0_or_from_1(tmp_path: Path, base: int) -> None:
    """The same layers in both countings are the same trace: by the caller's word, or by the model's layers."""

    def counted(rank: int, records: Records) -> Records:
        return [record | {"layer": record["layer"] + base} for record in records]

    path = megatron(tmp_path / "run", counted)
    model = ModelLayout.of(9, moe_layers=LAYERS, num_experts=EXPERTS)
    for said in ({"layer_base": base}, {"model": model}, {"model": model, "layer_base": base}):
        trace = trace_of(path, num_experts=EXPERTS, **said)
        assert trace.layer_ids.tolist() == LAYERS
        assert np.array_equal(column(trace, "topk_ids"), expected())
    assert ("counted from 1" in notes_of(trace)) == bool(base)
    refused("layers_differ", path, num_experts=EXPERTS, model=model, layer_base=1 - base)


def test_megatron_asks_what_layers_are_counted_from(tmp_path: Path) -> None:
    """Without layer 0 and a model nothing tells, and layers are not guessed; layer 0 tells that they count from 0."""
    path = megatron(tmp_path / "run")
    assert "`layer_base`" in refused("layer_base_needed", path)
    assert trace_of(path, layer_ids=[1, 2, 6]).layer_ids.tolist() == [1, 2, 6]
    refused("option_unused", path, layer_ids=[1, 2, 6], layer_base=1)
    refused("layer_base_range", path, layer_base=2)
    zero = megatron(tmp_path / "zero", lambda _, records: [r | {"layer": r["layer"] - LAYERS[0]} for r in records])
    assert trace_of(zero).layer_ids.tolist() == [0, 1, 5]
    refused("layer_base_differs", zero, layer_base=1)


def raw_tensors(folder: Path, change: Callable[[int, dict[str, Any]], None] = lambda rank, tensors: None) -> Path:
    """Write TensorRT-LLM's raw files of three ranks, and counts beside them."""
    folder.mkdir()
    (folder / "meta_info.json").write_text(json.dumps({"num_experts": EXPERTS, "num_experts_per_token": TOP_K}))
    for rank in (2, 0, 1):
        tensors: dict[str, Any] = {}
        for step in range(4):
            for n, layer in enumerate(LAYERS):
                ids = IDS[(rank == RANK_OF) & (step == STEP_OF), n]
                tensors[f"{50 + step}_{layer}"] = np.ascontiguousarray(ids)
        counts = {key: np.bincount(ids.ravel(), minlength=EXPERTS) for key, ids in tensors.items()}
        together = {key: np.ones((EXPERTS, EXPERTS), np.int64) for key in tensors}
        change(rank, tensors)
        save_file(tensors, folder / f"rank{rank}_raw.safetensors")
        save_file(counts, folder / f"rank{rank}.safetensors")
        save_file(together, folder / f"cooccurrence_rank{rank}.safetensors")
    return folder


def test_tensorrt_raw_files_are_tokens(tmp_path: Path) -> None:
    """Where the experts of every token were recorded, they are read, not the counts."""
    trace = trace_of(raw_tensors(tmp_path / "s"))
    assert np.array_equal(column(trace, "topk_ids"), expected())
    assert np.array_equal(column(trace, "source_rank"), RANK_OF)
    assert (trace.layer_ids.tolist(), trace.num_experts, trace.num_tokens) == (LAYERS, EXPERTS, TOKENS)
    assert "3 other files were left out: 'cooccurrence_rank0.safetensors', " in notes_of(trace)


def test_tensorrt_broken_files_are_named(tmp_path: Path) -> None:
    """A rank's file that is broken is named, not left out, even if all of them are; a note names other files."""
    folder = raw_tensors(tmp_path / "s")
    (folder / "log.txt").write_text("started")
    assert "'log.txt'" in notes_of(trace_of(folder))
    whole = (folder / "rank1_raw.safetensors").read_bytes()
    for damaged in (whole[:40], b"not tensors", whole[:-8]):
        (folder / "rank1_raw.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match=r"s/rank1_raw\.safetensors"):
            load(folder)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(b"not tensors")
    with pytest.raises(InputError, match="damaged_file") as caught:
        load(folder)
    assert len(caught.value.violations) == 9


def test_tensorrt_uneven_iterations_are_left_out(tmp_path: Path) -> None:
    """A layer with other tokens than the rest can't be joined in that iteration."""

    def shorten(rank: int, tensors: dict[str, Any]) -> None:
        tensors["51_3"] = np.ascontiguousarray(tensors["51_3"][:-1])

    trace = trace_of(raw_tensors(tmp_path / "s", shorten))
    order = np.lexsort((STEP_OF, RANK_OF))
    assert np.array_equal(column(trace, "topk_ids"), IDS[order[STEP_OF[order] != 1]])
    assert "3 iterations of a rank lack tokens" in notes_of(trace)


def test_tensorrt_copies_of_a_rank_are_left_out(tmp_path: Path) -> None:
    """Without data-parallel attention every rank has all tokens; they count once."""
    folder = raw_tensors(tmp_path / "s")
    (folder / "rank3_raw.safetensors").write_bytes((folder / "rank1_raw.safetensors").read_bytes())
    trace = trace_of(folder)
    assert np.array_equal(column(trace, "topk_ids"), expected())
    assert trace.num_tokens == TOKENS
    assert "Rank 3 has the same tokens as rank 1" in notes_of(trace)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("topk_ids_shape", np.zeros((4, 3), np.int64)),
        ("id_out_of_range", np.full((0, 0), 99)),
        ("layer_missing", None),
    ],
)
def test_tensorrt_raw_files_that_are_refused(tmp_path: Path, code: str, value: Any) -> None:
    """Another top-k, experts that the model has not, a missing layer."""

    def change(rank: int, tensors: dict[str, Any]) -> None:
        if value is None and rank == 0:
            del tensors["51_3"]
        elif rank == 0:
            tensors["51_3"] = value if value.size else np.full_like(tensors["51_3"], 99)

    refused(code, raw_tensors(tmp_path / "s", change))


def flame(folder: Path, row_group: int = 17, **changes: Any) -> Path:
    """Write one Parquet file per layer, with row groups of their own."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder.mkdir()
    for n, layer in reversed(list(enumerate(LAYERS))):
        arrays = {
            "indices": pa.array(IDS[:, n].tolist(), pa.list_(pa.int16())),
            "scores": pa.array(np.full((TOKENS, TOP_K), 0.25).tolist(), pa.list_(pa.float16())),
        }
        if n == 1:
            arrays |= {name: value for name, value in changes.items() if value is not None}
            arrays = {name: value for name, value in arrays.items() if changes.get(name, 0) is not None}
        pq.write_table(pa.table(arrays), folder / f"layer_{layer:02}.parquet", row_group_size=row_group + 3 * n)
    return folder


def test_flame_layers_are_read_in_step(tmp_path: Path) -> None:
    """One file per layer, whatever their row groups; the number in the name is the layer."""
    trace = trace_of(flame(tmp_path / "t"))
    assert np.array_equal(column(trace, "topk_ids"), IDS)
    assert (column(trace, "gate_weights") == 0.25).all()
    assert trace.layer_ids.tolist() == LAYERS
    assert "counts layers from 1" in notes_of(trace)
    assert trace_of(tmp_path / "t", layer_ids=[1, 2, 6]).layer_ids.tolist() == [1, 2, 6]
    model = ModelLayout.of(8, moe_layers=[1, 2, 6])
    assert trace_of(tmp_path / "t", model=model).layer_ids.tolist() == [1, 2, 6]
    assert np.array_equal(column(trace_of(tmp_path / "t" / "layer_03.parquet"), "topk_ids"), IDS[:, 1:2])


def test_flame_without_scores_in_a_layer(tmp_path: Path) -> None:
    """Scores are only read where all layers have them."""
    trace = trace_of(flame(tmp_path / "t", scores=None))
    assert trace.columns == frozenset()
    assert np.array_equal(column(trace, "topk_ids"), IDS)


def test_flame_files_that_are_refused(tmp_path: Path) -> None:
    """Layers of different tokens, a layer twice, long lists, ids and scores of other types, nulls."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    fine = IDS[:, 1].tolist()
    for number, (code, indices) in enumerate(
        [
            ("topk_ids_shape", pa.array([*fine[:-1], [1, 2, 3]])),
            ("null", pa.array([*fine[:-1], None])),
            ("topk_ids_dtype", pa.array(np.array(fine, float).tolist())),
            ("id_out_of_range", pa.array([*fine[:-1], [-7, 3]])),
            ("duplicate_expert", pa.array([*fine[:-1], [3, 3]])),
        ]
    ):
        refused(code, flame(tmp_path / str(number), indices=indices))
    folder = flame(tmp_path / "t")
    (folder / "copy_3.parquet").write_bytes((folder / "layer_03.parquet").read_bytes())
    refused("duplicate_layer", folder)
    (folder / "copy_3.parquet").unlink()
    pq.write_table(pa.table({"indices": pa.array(fine[:5])}), folder / "layer_03.parquet")
    refused("token_count", folder)


HEADER = {"model_name": "m", "num_layers": 3, "num_experts": EXPERTS, "top_k": TOP_K, "num_entries": TOKENS * 3}


def entries(seed: int = 3) -> Records:
    """Return one line per token and layer: prompts of 30 tokens, lines of a prompt in any order."""
    rows: Records = []
    for prompt in range(3):
        part = [
            {
                "p": prompt,
                "t": t,
                "l": layer,
                "e": IDS[30 * prompt + t, n].tolist(),
                "s": [0.5, 0.25],
                "ph": "prefill" if t < 20 else "decode",
            }
            for t in range(30)
            for n, layer in enumerate(LAYERS)
        ]
        np.random.default_rng(seed).shuffle(part)
        rows += part
    return rows


def test_policylang_lines_are_joined(tmp_path: Path) -> None:
    """Tokens come in the order of prompts and positions, with sequence, phase and scores."""
    trace = trace_of(lines(tmp_path / "t.jsonl", [HEADER, *entries()]))
    assert np.array_equal(column(trace, "topk_ids"), IDS)
    assert column(trace, "seq_id").tolist() == [t // 30 for t in range(TOKENS)]
    assert column(trace, "token_pos").tolist() == [t % 30 for t in range(TOKENS)]
    assert column(trace, "phase").tolist() == [int(t % 30 >= 20) for t in range(TOKENS)]
    assert (column(trace, "gate_weights") == [0.5, 0.25]).all()
    assert (trace.num_tokens, trace.layer_ids.tolist()) == (TOKENS, LAYERS)


def test_policylang_tokens_that_lack_layers(tmp_path: Path) -> None:
    """Such tokens are left out with a note."""
    rows = [row for row in entries() if not (row["p"] == 1 and row["t"] == 4 and row["l"] == 3)]
    trace = trace_of(lines(tmp_path / "t.jsonl", [HEADER | {"num_entries": len(rows)}, *rows]))
    assert np.array_equal(column(trace, "topk_ids"), np.delete(IDS, 34, axis=0))
    assert trace.num_tokens == TOKENS - 1
    assert "1 tokens lack layers" in notes_of(trace)


@pytest.mark.parametrize(
    ("code", "header", "change"),
    [
        ("token_count", {}, lambda rows: rows[:-1]),
        ("prompt_order", {}, lambda rows: [rows[-1], *rows[:-1]]),
        ("duplicate_record", {}, lambda rows: [rows[0], *rows[:-1]]),
        ("topk_ids_shape", {}, lambda rows: [rows[0] | {"e": [1, 2, 3]}, *rows[1:]]),
        ("topk_ids_shape", {}, lambda rows: [rows[0] | {"e": None}, *rows[1:]]),
        ("value_type", {}, lambda rows: [rows[0] | {"e": [1, -2]}, *rows[1:]]),
        ("value_type", {}, lambda rows: [rows[0] | {"t": 1 << 80}, *rows[1:]]),
        ("column_shape", {}, lambda rows: [rows[0] | {"s": [0.5]}, *rows[1:]]),
        ("phase_range", {}, lambda rows: [rows[0] | {"ph": "idle"}, *rows[1:]]),
        ("column_missing", {}, lambda rows: [rows[0] | {"ph": None}, *rows[1:]]),
        ("id_out_of_range", {"num_experts": 4}, lambda rows: rows),
        ("layer_missing", {"num_layers": 2}, lambda rows: rows),
        ("header_type", {"top_k": "two"}, lambda rows: rows),
        ("prompt_too_long", {"top_k": 1 << 30}, lambda rows: rows),
        ("zero_tokens", {"num_entries": 0}, lambda rows: []),
    ],
)
def test_policylang_files_that_are_refused(
    tmp_path: Path, code: str, header: dict[str, Any], change: Callable[[Records], Records]
) -> None:
    """Lines and headers that break the schema, tokens twice, prompts apart."""
    refused(code, lines(tmp_path / "t.jsonl", [HEADER | header, *change(entries())]))


def padded(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Lay tokens out as 5 sequences of 24 positions, left-padded by 6; returns (L, 120, ...) and the mask."""
    mask = np.ones((5, 24), np.int64)
    mask[:, :6] = 0
    laid = np.zeros((len(LAYERS), 120, *values.shape[2:]), values.dtype)
    laid[:, mask.ravel() == 1] = values.swapaxes(0, 1)
    return laid, mask


def logits_of_ids() -> npt.NDArray[np.float32]:
    """Return logits (T, L, E) whose largest are IDS, in their order."""
    logits = np.random.default_rng(4).random((TOKENS, len(LAYERS), EXPERTS)).astype(np.float32)
    for k in range(TOP_K):
        np.put_along_axis(logits, IDS[:, :, k : k + 1], 10.0 - k, axis=2)
    return logits


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_transformers_logits_and_indices(tmp_path: Path, save: Callable[..., None]) -> None:
    """The largest logits of a softmax router are the experts; padding is left out, sequences are numbered."""
    logits, mask = padded(logits_of_ids())
    save(tmp_path / "l.npz", router_logits=logits, attention_mask=mask, top_k=TOP_K, model_type="olmoe")
    indices, _ = padded(IDS)
    save(tmp_path / "i.npz", router_indices=indices, attention_mask=mask.astype(bool), num_experts=EXPERTS)
    for name in ("l", "i"):
        trace = trace_of(tmp_path / f"{name}.npz", layer_ids=LAYERS)
        assert np.array_equal(column(trace, "topk_ids"), IDS)
        assert column(trace, "seq_id").tolist() == [t // 18 for t in range(TOKENS)]
        assert column(trace, "token_pos").tolist() == [t % 18 for t in range(TOKENS)]
        assert (trace.num_experts, trace.num_tokens) == (EXPERTS, TOKENS)
        assert "30 of 120 positions are padding" in notes_of(trace)
        assert Profile.of(trace).tokens == TOKENS


def test_transformers_selection_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long layers are read in parts; a single position at a time gives the same."""
    monkeypatch.setattr("traces.formats.transformers.selection.PART_BYTES", 1)
    logits, mask = padded(logits_of_ids())
    np.savez(tmp_path / "l.npz", router_logits=logits, attention_mask=mask, scoring_func="softmax")
    assert np.array_equal(column(trace_of(tmp_path / "l.npz", top_k=TOP_K), "topk_ids"), IDS)


@pytest.mark.parametrize(
    ("code", "arrays"),
    [
        ("router_unknown", {"model_type": "deepseek_v3"}),
        ("router_unknown", {"model_type": "olmoe", "scoring_func": "sigmoid"}),
        ("router_unknown", {"model_type": None}),
        ("attention_mask_missing", {"attention_mask": None}),
        ("column_shape", {"attention_mask": np.ones((5, 23), int)}),
        ("column_shape", {"attention_mask": np.ones((5, 24))}),
        ("column_range", {"attention_mask": np.full((5, 24), 2)}),
        ("zero_tokens", {"attention_mask": np.zeros((5, 24), int)}),
        ("top_k_range", {"top_k": None}),
        ("top_k_range", {"top_k": 0}),
        ("top_k_range", {"top_k": EXPERTS + 1}),
        ("top_k_range", {"num_experts_per_tok": TOP_K + 1}),
        ("num_experts_differ", {"num_experts": EXPERTS - 1}),
        ("layer_ids_shape", {"layer_ids": np.arange(2)}),
        ("topk_ids_dtype", {"router_logits": np.zeros((3, 120, 16), int)}),
        ("topk_ids_shape", {"router_logits": np.zeros((3, 5, 24, 16))}),
        ("logit_not_finite", {"router_logits": np.full((3, 120, 16), np.nan)}),
        ("logit_not_finite", {"router_logits": np.full((3, 120, 16), -np.inf)}),
        ("topk_ids_missing", {"router_indices": np.zeros((3, 120, 2), int)}),
    ],
)
def test_transformers_captures_that_are_refused(tmp_path: Path, code: str, arrays: dict[str, Any]) -> None:
    """Routers that don't choose by logits alone, padding that can't be told, broken shapes and numbers."""
    logits, mask = padded(logits_of_ids())
    given = {"router_logits": logits, "attention_mask": mask, "top_k": TOP_K, "model_type": "olmoe"} | arrays
    kept: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    np.savez(tmp_path / "l.npz", **kept)
    message = refused(code, tmp_path / "l.npz")
    assert code != "router_unknown" or "router_indices" in message


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_the_largest_logits_are_chosen(tmp_path: Path, dtype: str) -> None:
    """The compiled choice is that of a sort, the largest first and the first of equal ones, whatever the type."""
    logits = np.random.default_rng(0).integers(-40, 40, (3, 50, 17)).astype(dtype)
    mask = np.random.default_rng(1).random((5, 10)) < 0.8
    arrays: dict[str, Any] = {
        "router_logits": logits,
        "attention_mask": mask.astype(int),
        "top_k": 4,
        "scoring_func": "softmax",
    }
    np.savez(tmp_path / "l.npz", **arrays)
    trace = load(tmp_path / "l.npz")
    assert isinstance(trace, Trace)
    found = np.concatenate([batch.topk_ids for batch in trace.batches(7)])
    wanted = np.argsort(-logits.astype(float), axis=2, kind="stable")[:, mask.ravel(), :4]
    assert np.array_equal(found, wanted.swapaxes(0, 1))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), form=st.sampled_from(["usual", "other field", "spaces", "no scores", "some phases"]))
def test_policylang_is_parsed_alike_by_both_parsers(data: st.DataObject, form: str) -> None:
    """What the compiled loop takes is what the JSON parser makes of it."""
    number = st.integers(0, 10**12)
    scores = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-9, 10**20)
    lines = []
    for _ in range(data.draw(st.integers(1, 4))):
        ids = data.draw(st.lists(number, min_size=1, max_size=3))
        line = {"p": data.draw(number), "t": data.draw(number), "l": data.draw(number), "e": ids}
        line["s"] = None if form == "no scores" else [data.draw(scores) for _ in ids]
        line["ph"] = data.draw(st.sampled_from(["prefill", "decode", None]))
        line |= {"x": 1} if form == "other field" else {}
        keys = data.draw(st.permutations(list(line)))
        lines.append({key: line[key] for key in keys if key not in ("p", "ph") or form != "some phases"})
    marks = (" , ", " :\t") if form == "spaces" else None
    text = "".join(json.dumps(line, separators=marks) + "\n" for line in lines).encode()
    fast = parse_entries(text, 3)
    slow = entries_of([_entry(line, "place", 3) for line in lines])
    assert (fast is None) == (form == "other field")
    if fast is not None:
        for name in ("prompt", "token", "layer", "has_scores", "phase"):
            assert np.array_equal(getattr(fast, name), getattr(slow, name))
        width = slow.ids.shape[1]
        assert np.array_equal(fast.ids[:, :width], slow.ids)
        assert (fast.ids[:, width:] == -1).all()
        if slow.scores is not None:
            assert fast.scores is not None
            assert np.array_equal(fast.scores[:, : slow.scores.shape[1]], slow.scores)
