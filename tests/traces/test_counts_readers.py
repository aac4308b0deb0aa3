"""Readers of counts: the same made-up counts in every format; layers without counts; counts of one rank only."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.reading import counts_of, refused
from tests.torch_files import torch_bytes
from traces import ModelLayout, Profile, check

LOAD = np.random.default_rng(3).integers(1, 900, (5, 8))  # layers, experts
STEPS = np.stack([LOAD, LOAD * 2, np.zeros_like(LOAD)])


def text(path: Path, content: str) -> Path:
    """Write a file."""
    path.write_text(content)
    return path


def table(counts: Any, *, first: int = 0) -> list[str]:
    """Lines of a long table."""
    return [f"{first + layer},{expert},{counts[layer][expert]}" for layer, expert in np.ndindex(np.shape(counts))]


def saved(folder: Path, kind: str, counts: Any, key: str = "logical_count") -> Path:
    """Write counts (layers, experts) or (steps, layers, experts) as JSON or .pt."""
    path = folder / f"counts.{kind}"
    if kind == "json":
        return text(path, json.dumps({key: np.asarray(counts).tolist(), "note": ["a", {"b": None}]}))
    path.write_bytes(torch_bytes({key: np.asarray(counts)}))
    return path


@pytest.mark.parametrize("kind", ["json", "pt"])
@pytest.mark.parametrize("key", ["logical_count", "activation_freq"])
def test_logical_counts_are_summed_over_steps(tmp_path: Path, kind: str, key: str) -> None:
    """Two axes or three, as JSON or a file of torch.save."""
    assert np.array_equal(counts_of(saved(tmp_path, kind, LOAD, key)).load, LOAD)
    steps = counts_of(saved(tmp_path, kind, STEPS, key))
    assert np.array_equal(steps.load, 3 * LOAD)
    assert any("1 of 3 steps" in note for note in steps.provenance.notes)


def test_logical_count_json_is_read_in_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the chunks are cut, the result is the same."""
    path = text(
        tmp_path / "c.json", json.dumps({"a": "é[", "logical_count": STEPS.tolist(), "b": 12}, ensure_ascii=False)
    )
    for size in (1, 2, 7, 64):
        monkeypatch.setattr("traces.decoding.nested_numbers.CHUNK_BYTES", size)
        assert np.array_equal(counts_of(path, format="logical_count").load, 3 * LOAD)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('{"logical_count": [[1, 2], [3]]}', "load_shape"),
        ('{"logical_count": [[1, 2], []]}', "load_shape"),
        ('{"logical_count": [[[1, 2]], []]}', "load_shape"),
        ('{"logical_count": [[[1, 2]], [[1, 2], [3, 4]]]}', "load_shape"),
        ('{"logical_count": [[[1, 2]], [3, 4]]}', "load_shape"),
        ('{"logical_count": [[[[1, 2]]]]}', "load_shape"),
        ('{"logical_count": [[1, true]]}', "load_shape"),
        ('{"logical_count": [[1, -2]]}', "load_not_finite"),
        ('{"logical_count": [[1, NaN]]}', "not_finite"),
        ('{"logical_count": [[1, 2] [3, 4]]}', "bad_json"),
        ('{"logical_count": [[1, 2]]', "bad_json"),
        ('{"logical_count": [[1, 2]]} {}', "bad_json"),
        ('{"logical_count": [[1, 2]], "logical_count": [[1, 2]]}', "duplicate_key"),
        ('{"logical_count": [[0, 0]]}', "zero_tokens"),
    ],
)
def test_bad_logical_counts_are_refused(tmp_path: Path, content: str, code: str) -> None:
    """Uneven lists, other values, and damage."""
    refused(code, text(tmp_path / "c.json", content))


@pytest.mark.parametrize(
    "titles",
    [
        "layer,expert,count",
        "layer_id,expert_id,count",
        "Layer Index,Expert Index,Times Activated",
        "moe_layer,expert,n",
        "layer,expert,tokens_per_expert",
        "layer,logical_expert,expert_load",
        "l,e,anything",
    ],
)
def test_a_long_table_is_read_whatever_its_titles(tmp_path: Path, titles: str) -> None:
    """Lines may come in any order."""
    lines = table(LOAD)
    np.random.default_rng(0).shuffle(lines)
    loaded = counts_of(text(tmp_path / "c.csv", "\n".join([titles, *lines])))
    assert loaded.provenance.format == "counts_csv"
    assert np.array_equal(loaded.load, LOAD)


def test_columns_of_a_long_table_come_in_any_order(tmp_path: Path) -> None:
    """Steps are summed, ranks are kept as sources, others are left out with a note."""
    lines = [
        f"m,{rank},{step},{LOAD[layer, expert] + rank},{expert},{layer + 3}"
        for rank in range(2)
        for step in range(3)
        for layer, expert in np.ndindex(LOAD.shape)
    ]
    path = text(tmp_path / "c.csv", "\n".join(["model,rank,step,tokens,expert_id,layer_id", *lines]) + "\n")
    loaded = counts_of(path)
    assert loaded.layer_ids.tolist() == [3, 4, 5, 6, 7]
    assert loaded.source_load is not None
    assert np.array_equal(loaded.source_load, np.stack([3 * LOAD, 3 * (LOAD + 1)]))
    assert np.array_equal(Profile.of(loaded).source_load, loaded.source_load)  # type: ignore[arg-type]
    assert any("'model'" in note for note in loaded.provenance.notes)
    assert any("summed over column 'step'" in note for note in loaded.provenance.notes)


def test_a_long_table_without_titles_is_read_or_refused_as_ambiguous(tmp_path: Path) -> None:
    """It is one if every layer has a line for each expert; it never is a matrix of three experts then."""
    lines = table(LOAD)
    assert np.array_equal(counts_of(text(tmp_path / "a.csv", "\n".join(lines))).load, LOAD)
    path = text(tmp_path / "b.csv", "\n".join(lines[:-2]))
    assert "layer,expert,count" in refused("ambiguous_format", path)
    assert counts_of(path, format="counts_csv").load.shape == (5, 8)
    assert counts_of(path, format="eplb").load.shape == (38, 3)
    matrix = text(tmp_path / "m.csv", "\n".join(f"{5000 + row},{row},7" for row in range(6)))
    assert counts_of(matrix).load.shape == (6, 3)
    assert counts_of(text(tmp_path / "f.csv", "1.5,2,3\n2,3,4\n")).load.shape == (2, 3)


def test_a_long_table_that_lacks_lines_says_so(tmp_path: Path) -> None:
    """Pairs without a line have no tokens; lines that repeat are summed; both are told."""
    path = text(tmp_path / "c.csv", "layer,expert,count\n0,0,5\n0,1,7\n1,1,2\n1,1,3\n")
    loaded = counts_of(path, num_experts=4)
    assert loaded.load.tolist() == [[5, 7, 0, 0], [0, 5, 0, 0]]
    notes = " ".join(loaded.provenance.notes)
    assert "5 pairs of layer and expert have no line" in notes
    assert "1 lines repeat" in notes
    refused("id_out_of_range", path, num_experts=1)


def test_a_long_table_counts_layers_from_0_or_as_the_model(tmp_path: Path) -> None:
    """Layers 0..n-1 of a model with n MoE layers are those; other numbers are taken as they are."""
    model = ModelLayout.of(8, first_moe_layer=3, num_experts=8)
    for first in (0, 3):
        path = text(tmp_path / "c.csv", "\n".join(["layer,expert,count", *table(LOAD, first=first)]))
        assert counts_of(path, model=model).layer_ids.tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("0,0,-1", "load_not_finite"),
        ("0,0,nan", "load_not_finite"),
        ("0,0.5,1", "csv_line"),
        ("0,-1,1", "csv_line"),
        ("0,0", "csv_line"),
        ("0,0,1,1", "csv_line"),
        ("0,x,1", "csv_line"),
        ("5000,0,1", "id_out_of_range"),
        ("0,0,0", "zero_tokens"),
    ],
)
def test_bad_long_tables_are_refused(tmp_path: Path, lines: str, code: str) -> None:
    """Negative, missing, fractional and text entries."""
    assert "c.csv" in refused(code, text(tmp_path / "c.csv", f"layer,expert,count\n{lines}\n"))


def test_titles_that_say_nothing_are_refused(tmp_path: Path) -> None:
    """The remedy names the columns."""
    assert "layer, expert and count" in refused("csv_titles", text(tmp_path / "c.csv", "a,b,c\n0,0,1\n5,1,2\n"))


@pytest.mark.parametrize(
    "titles", ["token_id,layer,expert", "token,layer,expert", "position,layer,expert", "step,layer,expert"]
)
def test_a_table_of_tokens_is_none_of_counts(tmp_path: Path, titles: str) -> None:
    """The number of a token or of a step is never taken for a count, even where lines are those of a whole grid."""
    lines = [f"{layer},{expert},{expert % 3}" for layer, expert in np.ndindex(4, 8)]
    assert "layer, expert and count" in refused("csv_titles", text(tmp_path / "c.csv", "\n".join([titles, *lines])))


@pytest.mark.parametrize(
    ("titles", "what"),
    [
        ("layer_id,physical_expert_id,logical_expert_id,count", "expert"),
        ("layer,expert,prefill_count,decode_count", "count"),
        ("layer,expert,total,count", "count"),
    ],
)
def test_columns_that_may_each_be_meant_are_refused(tmp_path: Path, titles: str, what: str) -> None:
    """Of two columns for one thing, none is chosen without a word."""
    path = text(tmp_path / "c.csv", f"{titles}\n0,0,0,1\n0,1,1,2\n")
    assert f"may each be the {what}" in refused("csv_titles", path)


def test_numbers_of_experts_in_the_first_row_are_no_layer(tmp_path: Path) -> None:
    """A matrix that was saved with the titles of its columns has as many layers as it has rows of loads."""
    rows = [",".join(map(str, row)) for row in ([*range(8)], *LOAD.tolist())]
    assert "titles" in refused("load_text", text(tmp_path / "c.csv", "\n".join(rows)))
    assert counts_of(text(tmp_path / "d.csv", "\n".join(rows[1:]))).load.shape == LOAD.shape


@pytest.mark.parametrize(
    ("titles", "numbered", "said"),
    [
        ("", True, "first column numbers"),
        ("1,2,3,4,5,6,7,8", False, "first row numbers"),
        (",0,1,2,3,4,5,6,7", True, "titles"),
        ("layer,expert_0,expert_1,expert_2,expert_3,expert_4,expert_5,expert_6,expert_7", True, "titles"),
    ],
)
def test_numbers_of_rows_and_columns_are_no_loads(tmp_path: Path, titles: str, numbered: bool, said: str) -> None:
    """Nor is a column of layers, and titles around it are told as that."""
    rows = [",".join(map(str, [layer] * numbered + row)) for layer, row in enumerate(LOAD.tolist())]
    assert said in refused("load_text", text(tmp_path / "c.csv", "\n".join([titles, *rows] if titles else rows)))


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize("titled", [True, False])
def test_tables_with_semicolons_or_tabs(tmp_path: Path, mark: str, titled: bool) -> None:
    """As spreadsheets write them, long or as a matrix."""
    lines = [*["layer,expert,count"] * titled, *table(LOAD)]
    long = text(tmp_path / "c.csv", "\n".join(lines).replace(",", mark))
    assert np.array_equal(counts_of(long).load, LOAD)
    rows = text(tmp_path / "m.csv", "\n".join(mark.join(map(str, row)) for row in LOAD.tolist()))
    assert np.array_equal(counts_of(rows).load, LOAD)


def test_numbers_in_quotes(tmp_path: Path) -> None:
    """As writers that quote every cell have them."""
    lines = [",".join(f'"{cell}"' for cell in line.split(",")) for line in ["layer,expert,count", *table(LOAD)]]
    assert np.array_equal(counts_of(text(tmp_path / "c.csv", "\n".join(lines))).load, LOAD)


@pytest.mark.parametrize("key", ["{}", "layer_{}", "model.layers.{}"])
def test_an_object_with_an_entry_per_layer_is_refused(tmp_path: Path, key: str) -> None:
    """It may hold counts, or ids: what to write instead is told."""
    content = {key.format(layer): row for layer, row in enumerate(LOAD.tolist())}
    assert "logical_count" in refused("by_layer", text(tmp_path / "c.json", json.dumps(content)))


@pytest.mark.parametrize("title", ["", "Unnamed: 0", "index"])
def test_a_column_that_numbers_the_lines_is_left_out(tmp_path: Path, title: str) -> None:
    """As data frames are saved with; with a note."""
    lines = [f"{number},{line}" for number, line in enumerate(table(LOAD))]
    loaded = counts_of(text(tmp_path / "c.csv", "\n".join([f"{title},layer,expert,count", *lines])))
    assert np.array_equal(loaded.load, LOAD)
    assert any("left out" in note for note in loaded.provenance.notes)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (0, 2, 1), (0, 1, 2, 3), (1, 2, 3, 0)])
@pytest.mark.parametrize("scale", [1, 1000, 0.37])
def test_columns_without_titles_in_another_order_are_refused(
    tmp_path: Path, order: tuple[int, ...], scale: float
) -> None:
    """Counts before experts, experts before layers, or a fourth column: no matrix of three or four experts."""
    rows = [(layer, expert, LOAD[layer, expert] * scale, 7 * (layer + expert)) for layer, expert in np.ndindex(5, 8)]
    path = text(tmp_path / "c.csv", "\n".join(",".join(f"{row[column]:g}" for column in order) for row in rows))
    assert "titles" in refused("ambiguous_format", path)
    if order != (1, 0, 2):
        refused("ambiguous_format", path, format="counts_csv")
    assert counts_of(path, format="eplb").load.shape == (40, len(order))


def test_counts_with_a_point_make_no_matrix(tmp_path: Path) -> None:
    """Without titles, too: layers and experts are whole, and there is a line for each."""
    lines = [f"{layer},{expert},{LOAD[layer, expert]}.0" for layer, expert in np.ndindex(LOAD.shape)]
    assert np.array_equal(counts_of(text(tmp_path / "c.csv", "\n".join(lines))).load, LOAD)


def matrix(folder: Path, counts: Any) -> Path:
    """Write a matrix as JSON, a row per layer."""
    return text(folder / "m.json", json.dumps(np.asarray(counts).tolist()))


@pytest.mark.parametrize("most", [3, 60, 900, 30_000])
@pytest.mark.parametrize("dtype", ["int64", "uint16"])
def test_counts_of_three_axes_are_no_choices_of_experts(tmp_path: Path, most: int, dtype: str) -> None:
    """An expert twice, more ids than a model has, or more than its tokens can have chosen: asked, not guessed."""
    steps = np.random.default_rng(5).integers(0, most, (10, 4, 8)).astype(dtype)
    np.save(tmp_path / "c.npy", steps)
    assert "(steps, layers, experts)" in refused("ambiguous_format", tmp_path / "c.npy")
    loaded = counts_of(tmp_path / "c.npy", format="eplb")
    assert np.array_equal(loaded.load, steps.sum(axis=0))
    assert any("10 steps" in note for note in loaded.provenance.notes)
    np.save(tmp_path / "d.npy", steps * 1.0)
    assert "eplb" in refused("npy_axes", tmp_path / "d.npy")
    np.save(tmp_path / "e.npy", -1.0 - steps)
    refused("load_not_finite", tmp_path / "e.npy", format="eplb")


def test_a_matrix_has_a_row_per_moe_layer_or_per_layer_of_the_model(tmp_path: Path) -> None:
    """LMDeploy's statistics have a row for every layer of the model: those of dense layers are dropped."""
    model = ModelLayout.of(7, first_moe_layer=2, num_experts=8)
    whole = np.concatenate([np.zeros((2, 8), int), LOAD])
    for counts in (LOAD, whole):
        loaded = counts_of(matrix(tmp_path, counts), model=model)
        assert loaded.layer_ids.tolist() == [2, 3, 4, 5, 6]
        assert np.array_equal(loaded.load, LOAD)
        assert loaded.unrecorded == ()
    assert counts_of(matrix(tmp_path, whole), layer_ids=[2, 3, 4, 5, 6]).layer_ids.tolist() == [2, 3, 4, 5, 6]
    refused("layer_not_named", matrix(tmp_path, np.ones((7, 8), int)), model=model)
    refused("layer_count", matrix(tmp_path, whole[1:]), model=model)


def no_counts(folder: Path, kind: str) -> Path:
    """Write counts of layers 0..5 without any in layers 0 and 3."""
    counts = np.concatenate([0 * LOAD[:1], LOAD[:2], 0 * LOAD[:1], LOAD[2:4]])
    if kind == "csv":
        return text(folder / "c.csv", "\n".join(["layer,expert,count", *table(counts)]))
    if kind == "npy":
        file = io.BytesIO()
        np.save(file, counts * 10_000)
        (folder / "c.npy").write_bytes(file.getvalue())
        return folder / "c.npy"
    if kind == "matrix":
        return matrix(folder, counts)
    if kind == "vllm":
        record = {"record_type": "eplb_load_stats", "version": 1, "step": 1, "p2l_map": [list(range(8))] * 6}
        return text(folder / "c.jsonl", json.dumps(record | {"expert_load": counts.tolist()}))
    if kind == "ascend":
        (folder / "c.pt").write_bytes(torch_bytes(counts))
        return folder / "c.pt"
    if kind == "megatron":
        records = [{"iter": 1, "block": "decoder", "layer": n, "tpe": [row.tolist()]} for n, row in enumerate(counts)]
        return text(folder / "rank0.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    return saved(folder, kind, counts[np.newaxis])


@pytest.mark.parametrize("kind", ["json", "pt", "matrix", "npy", "csv", "vllm", "ascend", "megatron"])
@pytest.mark.parametrize("with_model", [False, True])
def test_layers_without_counts_are_missing_in_the_recording(tmp_path: Path, kind: str, with_model: bool) -> None:
    """One rule for every reader: left out, told, and kept for the export."""
    model = {"model": ModelLayout.of(6)} if with_model else {}
    loaded = counts_of(no_counts(tmp_path, kind), **model)
    assert loaded.layer_ids.tolist() == [1, 2, 4, 5]
    assert loaded.unrecorded == (0, 3)
    assert loaded.load.all()
    notes = [note for note in loaded.provenance.notes if "missing in the recording" in note]
    assert len(notes) == 1
    assert "Layers 0, 3 have no counts" in notes[0]
    assert Profile.of(loaded).sources[0].unrecorded == (0, 3)


@pytest.mark.parametrize(("held", "said"), [((0, 8), "one rank"), ((16, 24), "one rank"), ((0, 24), "3 of 4 ranks")])
def test_counts_of_some_ranks_only_are_warned_of(tmp_path: Path, held: tuple[int, int], said: str) -> None:
    """The same share of experts has no counts in all layers."""
    counts = np.zeros((4, 32), int)
    counts[:, held[0] : held[1]] = np.random.default_rng(0).integers(1, 99, (4, held[1] - held[0]))
    counts[2, held[0]] = 0
    line = check(counts_of(matrix(tmp_path, counts))).line
    assert line is not None
    assert said in line
    assert f"{held[0]}-" in line


def test_experts_that_a_router_leaves_out_are_no_missing_rank(tmp_path: Path) -> None:
    """Single experts without tokens happen, and so does a layer that uses few."""
    counts = np.random.default_rng(0).integers(1, 99, (4, 32))
    counts[:, [3, 17, 18]] = 0
    counts[0, 8:] = 0
    assert "single_rank" not in check(counts_of(matrix(tmp_path, counts))).codes


def megatron(folder: Path, ranks: dict[int, Any]) -> Path:
    """Write counts (iterations, layers, micro-batches, experts) of each rank."""
    folder.mkdir(exist_ok=True)
    for rank, parts in ranks.items():
        records = [
            {"iter": 100 * (step + 1), "block": "decoder", "layer": layer, "tpe": np.asarray(row).tolist()}
            for step, rows in enumerate(parts)
            for layer, row in enumerate(rows)
        ]
        records.append({"iter": 100, "block": "mtp", "mtp_idx": 0, "layer": 1, "tpe": [[50, 50]]})
        text(folder / f"rank{rank}.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    return folder


PARTS = np.random.default_rng(5).integers(1, 99, (4, 2, 3, 2, 4))  # ranks, iterations, layers, micro-batches, experts


def test_megatron_data_parallel_ranks_add_up(tmp_path: Path) -> None:
    """Where a rank counts all experts, the ranks are sources; a copy of expert tensor parallelism counts once."""
    path = megatron(tmp_path / "tokens_per_expert", dict(enumerate(PARTS)) | {4: PARTS[0]})
    loaded = counts_of(path, num_experts=4, layer_ids=range(3))
    assert np.array_equal(loaded.load, PARTS.sum(axis=(0, 1, 3)))
    assert loaded.source_load is not None
    assert np.array_equal(loaded.source_load, PARTS.sum(axis=(1, 3)))
    notes = " ".join(loaded.provenance.notes)
    assert "Rank 4 has the same counts as rank 0" in notes
    assert "multi-token prediction" in notes
    assert "`num_experts`" in refused("ranks_ambiguous", path)


def test_megatron_pipeline_stages_are_not_summed(tmp_path: Path) -> None:
    """Each counts its layers from 0, so that of several ranks somebody has to say which layers they have."""
    path = megatron(tmp_path / "tokens_per_expert", dict(enumerate(PARTS)))
    assert "pipeline stage" in refused("layers_unknown", path, num_experts=4)
    assert "one stage only" in refused("layers_differ", path, model=ModelLayout.of(6, num_experts=4))
    stage = megatron(tmp_path / "stage", {0: PARTS[0], 1: PARTS[1]})
    assert counts_of(stage, num_experts=4, layer_ids=[3, 4, 5]).layer_ids.tolist() == [3, 4, 5]


def test_megatron_expert_parallel_ranks_stand_side_by_side(tmp_path: Path) -> None:
    """Rank r holds share r mod EP; a rank alone is warned of."""
    path = megatron(tmp_path / "tokens_per_expert", dict(enumerate(PARTS)))
    sums = PARTS.sum(axis=(1, 3))
    whole = counts_of(path, num_experts=16, layer_ids=range(3))
    assert np.array_equal(whole.load, np.concatenate(sums, axis=1))
    assert whole.source_load is None
    half = counts_of(path, model=ModelLayout.of(3, num_experts=8))
    assert np.array_equal(half.load, np.concatenate([sums[0] + sums[2], sums[1] + sums[3]], axis=1))
    alone = counts_of(megatron(tmp_path / "one", {3: PARTS[3]}), num_experts=16)
    assert np.array_equal(alone.load[:, 12:], sums[3])
    assert "12-15" in str(check(alone).line)
    refused("num_experts_differ", path, num_experts=6, layer_ids=range(3))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tpe": [[1, 2], [3]]}, "load_shape"),
        ({"tpe": []}, "load_shape"),
        ({"tpe": [1, 2]}, "load_shape"),
        ({"tpe": [[1, -2]]}, "load_not_finite"),
        ({"tpe": [[1, 1.5]]}, "value_type"),
        ({"layer": "0"}, "value_type"),
        ({"block": "encoder"}, "block"),
    ],
)
def test_bad_megatron_counts_are_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """File, line and field are named."""
    record = {"iter": 1, "block": "decoder", "layer": 0, "tpe": [[1, 2]]}
    path = text(tmp_path / "rank0.jsonl", f"{json.dumps(record)}\n{json.dumps(record | {'layer': 1} | changes)}\n")
    assert "rank0.jsonl#line 2" in refused(code, path)
