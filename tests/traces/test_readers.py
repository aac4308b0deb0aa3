"""Formats are told by content; what a file does not state is inferred with a note, or refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traces import InputError, LoadCounts, Profile, Trace, load, save
from traces.formats import READERS

DATA = Path(os.environ.get("MOE_PLACEMENT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
IDS = np.array([[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[4, 1], [5, 6]]])


def trace_of(path: Path, **options: Any) -> Trace:
    """Load a trace."""
    trace = load(path, **options)
    assert isinstance(trace, Trace)
    return trace


def ids_of(trace: Trace) -> list[Any]:
    """All ids, read two tokens at a time."""
    return [token for batch in trace.batches(2) for token in batch.topk_ids.tolist()]


def lines(path: Path, *objects: Any) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(item) + "\n" for item in objects))
    return path


def parquet(path: Path, metadata: dict[str, Any] | None = None, **columns: Any) -> Path:
    """Write Parquet with pyarrow."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata({k: json.dumps(v) for k, v in (metadata or {}).items()}), path)
    return path


def refused(code: str, path: Path, **options: Any) -> str:
    """Load must fail with `code`; returns the message."""

    def read_all() -> None:
        loaded = load(path, **options)
        if isinstance(loaded, Trace):
            list(loaded.batches())

    with pytest.raises(InputError) as error:
        read_all()
    assert code in {violation.code for violation in error.value.violations}, str(error.value)
    return str(error.value)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    """A misnamed file is read by what it holds."""
    save(Trace.of(IDS, num_experts=8), tmp_path / "t.npz")
    (tmp_path / "t.npz").rename(tmp_path / "t.csv")
    assert trace_of(tmp_path / "t.csv").provenance.format == "npz"


def test_what_is_missing_is_inferred_with_notes(tmp_path: Path) -> None:
    """E comes from the largest id, layers count from 0, and both are said."""
    np.savez(tmp_path / "t.npz", topk_ids=IDS)
    trace = trace_of(tmp_path / "t.npz")
    assert (trace.num_experts, trace.layer_ids.tolist()) == (7, [0, 1])
    assert any("inferred as 7" in note for note in trace.provenance.notes)
    assert any("0..1" in note for note in trace.provenance.notes)


def test_caller_states_what_the_file_does_not(tmp_path: Path) -> None:
    """Arguments take the place of inference, without notes."""
    np.savez(tmp_path / "t.npz", topk_ids=IDS)
    trace = trace_of(tmp_path / "t.npz", num_experts=16, layer_ids=[3, 9])
    assert (trace.num_experts, trace.layer_ids.tolist(), trace.provenance.notes) == (16, [3, 9], ())


def test_caller_must_not_contradict_the_file(tmp_path: Path) -> None:
    """Both contradictions are reported at once."""
    save(Trace.of(IDS, num_experts=8, layer_ids=[1, 2]), tmp_path / "t.npz")
    message = refused("num_experts_differ", tmp_path / "t.npz", num_experts=9, layer_ids=[0, 1])
    assert "layer_ids_differ" in message
    assert trace_of(tmp_path / "t.npz", num_experts=8, layer_ids=[1, 2]).num_experts == 8


@pytest.mark.parametrize(
    ("key", "known"), [("seq_ids", "seq_id"), ("gate_weight", "gate_weights"), ("Layer-IDs", "layer_ids")]
)
def test_npz_misspelt_columns_are_refused(tmp_path: Path, key: str, known: str) -> None:
    """A name close to a column that is absent is taken for a mistake."""
    arrays: dict[str, Any] = {"topk_ids": IDS, key: np.arange(3)}
    np.savez(tmp_path / "t.npz", **arrays)
    assert f"Did you mean {known}?" in refused("unknown_column", tmp_path / "t.npz")


def test_npz_metadata_is_left_out_with_a_note(tmp_path: Path) -> None:
    """Other arrays, even pickled ones, are not touched."""
    np.savez(tmp_path / "t.npz", topk_ids=IDS, task_id=np.arange(3), token_ids=np.arange(3), names=np.array([{}]))
    notes = " ".join(trace_of(tmp_path / "t.npz").provenance.notes)
    assert all(repr(name) in notes for name in ("task_id", "token_ids", "names"))


def test_npz_layout_that_cannot_stream_is_refused(tmp_path: Path) -> None:
    """Column-major arrays come with the remedy."""
    np.savez(tmp_path / "t.npz", topk_ids=np.asfortranarray(IDS))
    assert "ascontiguousarray" in refused("fortran_order", tmp_path / "t.npz")


def test_npz_big_endian_and_compressed(tmp_path: Path) -> None:
    """Byte order and compression make no difference."""
    np.savez_compressed(tmp_path / "t.npz", topk_ids=IDS.astype(">i4"), seq_id=np.array([5, 6, 7], ">i8"))
    trace = trace_of(tmp_path / "t.npz")
    assert ids_of(trace) == IDS.tolist()
    assert [int(s) for b in trace.batches(2) if b.seq_id is not None for s in b.seq_id] == [5, 6, 7]


def test_profile_is_no_trace(tmp_path: Path) -> None:
    """A saved profile points to the right function."""
    Profile.of(Trace.of(IDS, num_experts=8)).save(tmp_path / "p.npz")
    assert "Profile.load_file" in refused("is_a_profile", tmp_path / "p.npz")


def test_file_digest_is_its_sha256(tmp_path: Path) -> None:
    """The digest can be checked with sha256sum."""
    import hashlib

    save(Trace.of(IDS, num_experts=8), tmp_path / "t.npz")
    expected = hashlib.sha256((tmp_path / "t.npz").read_bytes()).hexdigest()
    assert trace_of(tmp_path / "t.npz").digest == f"sha256:{expected}"


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    """A file that changes between passes is an error, not a mix of both."""
    save(Trace.of(IDS, num_experts=8), tmp_path / "t.npz")
    trace = trace_of(tmp_path / "t.npz")
    save(Trace.of(IDS[:2], num_experts=8), tmp_path / "t.npz")
    with pytest.raises(InputError, match="changed"):
        list(trace.batches())


def test_jsonl_without_header(tmp_path: Path) -> None:
    """A first pass finds L, K, E and T; short layers are padded with -1, their weights with 0."""
    path = lines(
        tmp_path / "t.jsonl",
        {"topk_ids": [[0, 1], [2]], "gate_weights": [[0.5, 0.25], [1]], "seq_id": 3},
        {"topk_ids": [[], [4, 1]], "gate_weights": [[], [0.5, 0.5]], "seq_id": 4, "meta_text": "x"},
    )
    path.write_text(path.read_text() + "\n\n")
    trace = trace_of(path)
    assert (trace.num_experts, trace.top_k, trace.num_tokens) == (5, 2, 2)
    assert ids_of(trace) == [[[0, 1], [2, -1]], [[-1, -1], [4, 1]]]
    (batch,) = trace.batches()
    assert batch.gate_weights is not None
    assert batch.gate_weights[0].tolist() == [[0.5, 0.25], [1, 0]]
    assert "'meta_text'" in trace.provenance.notes[-1]


@pytest.mark.parametrize("header", [True, False])
def test_jsonl_long_lines_are_read_like_short_ones(tmp_path: Path, header: bool) -> None:
    """What the compiled loop takes and what it leaves to the JSON parser come out alike, weights included."""
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile(np.arange(64), (40, 30, 1)), axis=2)[:, :, :4]
    weights = rng.random((40, 30, 4)).round(3)
    lines = ['{"format": "moe-placement-trace", "version": 1, "num_experts": 64, "top_k": 4}'] if header else []
    for row in range(40):
        listed: list[Any] = ids[row].tolist()
        if row % 3 == 0:  # a layer with fewer ids makes it a ragged list
            listed[5] = listed[5][:2]
        given = [layer[: len(chosen)] for layer, chosen in zip(weights[row].tolist(), listed, strict=True)]
        token = {"meta_note": '"topk_ids": [[1]]', "topk_ids": listed, "seq_id": row, "gate_weights": given}
        lines.append(json.dumps(token if row % 2 else dict(reversed(token.items()))))
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    trace = trace_of(tmp_path / "t.jsonl", num_experts=64)
    (batch,) = trace.batches()
    expected, weighted = ids.copy(), weights.astype(np.float32)
    expected[::3, 5, 2:], weighted[::3, 5, 2:] = -1, 0
    assert batch.topk_ids.tolist() == expected.tolist()
    assert batch.gate_weights is not None
    assert np.array_equal(batch.gate_weights, weighted)
    assert np.asarray(batch.seq_id).tolist() == list(range(40))
    for row, damage in ((1, "1.5"), (1, "true"), (1, "9" * 19)):
        broken = lines.copy()
        broken[row + header] = broken[row + header].replace(f"[[{ids[row, 0, 0]},", f"[[{damage},", 1)
        assert broken != lines
        (tmp_path / "t.jsonl").write_text("\n".join(broken))
        with pytest.raises(InputError, match=f"line {row + 1 + header}"):
            list(trace_of(tmp_path / "t.jsonl", num_experts=64).batches())


def test_jsonl_header_is_enough(tmp_path: Path) -> None:
    """A full header saves the first pass, and the count of tokens is checked."""
    header = {"format": "moe-placement-trace", "version": 1, "num_experts": 9, "top_k": 3, "layer_ids": [2, 5]}
    path = lines(tmp_path / "t.jsonl", {**header, "num_tokens": 1}, {"topk_ids": [[0], [1]]})
    trace = trace_of(path)
    assert (trace.num_experts, trace.top_k, trace.layer_ids.tolist(), trace.num_tokens) == (9, 3, [2, 5], 1)
    refused("token_count", lines(tmp_path / "u.jsonl", {**header, "num_tokens": 2}, {"topk_ids": [[0], [1]]}))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"topk_ids": [[0], [1]], "seq": 1}', "unknown_column"),
        ('{"topk_ids": [[0], [1]], "topk_ids": [[0], [1]]}', "duplicate_key"),
        ('{"topk_ids": [[0], [NaN]]}', "not_finite"),
        ('{"topk_ids": [[0], [1.0]]}', "value_type"),
        ('{"topk_ids": [[0], [true]]}', "value_type"),
        ('{"topk_ids": [[0], [null]]}', "value_type"),
        ('{"topk_ids": [[0], ["1"]]}', "value_type"),
        ('{"topk_ids": [[0], [1e99999]]}', "value_type"),
        ('{"topk_ids": [[0], [99999999999999999999]]}', "value_range"),
        ('{"topk_ids": [0, 1]}', "nesting"),
        ('{"topk_ids": [[0]]}', "topk_ids_shape"),
        ('{"topk_ids": [[0], [1]], "seq_id": 1}', "column_missing"),
        ('{"topk_ids": [[0], [1]], "gate_weights": [[1]]}', "column_shape"),
        ('{"topk_ids": [[0], [1', "bad_json"),
        ('{"seq_id": 1}', "topk_ids_missing"),
        ("[[0], [1]]", "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("\n{}", "blank_line"),
        ("\udcff", "bad_json"),
        ('{"topk_ids": [[0], [-2]]}', "id_out_of_range"),
        ('{"topk_ids": [[0], [3, 3]]}', "duplicate_expert"),
    ],
)
def test_jsonl_errors_name_the_line(tmp_path: Path, line: str, code: str) -> None:
    """Each broken rule of a line has a code, and the line's number or row."""
    path = tmp_path / "t.jsonl"
    good = '{"topk_ids": [[0, 7], [1, 2]]}\n'
    path.write_bytes((good * 2 + line).encode(errors="surrogateescape"))
    message = refused(code, path)
    assert "line 3" in message or "row 2" in message


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"format": "x"}, {"top_k": "3"}, {"num_experts": -1}, {"layer_ids": 3}, {"topk": 3}]
)
def test_jsonl_bad_header_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """The header has a version, counts, and no other fields."""
    header = {"format": "moe-placement-trace", "version": 1, "num_experts": 9, "top_k": 3, "layer_ids": [2, 5]} | change
    with pytest.raises(InputError) as error:
        load(lines(tmp_path / "t.jsonl", header, {"topk_ids": [[0], [1]]}))
    assert "line 1" in str(error.value)


def test_parquet_nested_and_ragged(tmp_path: Path) -> None:
    """Nested lists give L and K themselves; short ones are padded."""
    path = parquet(tmp_path / "t.parquet", topk_ids=[[[0, 1], [2]], [[3], [4, 5]]], seq_id=[1, 2], meta_x=["a", "b"])
    trace = trace_of(path)
    assert ids_of(trace) == [[[0, 1], [2, -1]], [[3, -1], [4, 5]]]
    assert "'meta_x'" in " ".join(trace.provenance.notes)


def test_parquet_flat_lists_fold_by_metadata_or_caller(tmp_path: Path) -> None:
    """A flat list needs the number of layers from somewhere."""
    flat = IDS.reshape(3, 4).tolist()
    stated = parquet(tmp_path / "a.parquet", {"num_experts": 8, "top_k": 2, "layer_ids": [1, 2]}, topk_ids=flat)
    assert trace_of(stated).provenance.notes == ()
    bare = parquet(tmp_path / "b.parquet", topk_ids=flat)
    assert ids_of(trace_of(bare, layer_ids=[1, 2])) == ids_of(trace_of(stated)) == IDS.tolist()
    assert "layer_ids" in refused("layout_unknown", bare)


@pytest.mark.parametrize(
    ("columns", "code", "place"),
    [
        ({"topk_ids": [[[0], [1]], None]}, "null", "row 1"),
        ({"topk_ids": [[[0], [1]], [[0], None]]}, "null", "row 1"),
        ({"topk_ids": [[[0], [1]], [[0], [None]]]}, "null", "row 1"),
        ({"topk_ids": [[[0], [1]], [[0], [1]]], "seq_id": [1, None]}, "null", "row 1"),
        ({"topk_ids": [[[0], [1]], [[0]]]}, "topk_ids_shape", "row 1"),
        ({"topk_ids": [[[0.5], [1.0]]]}, "topk_ids_dtype", "topk_ids"),
        ({"topk_ids": [[["a"], ["b"]]]}, "column_dtype", "topk_ids"),
        ({"topk_ids": [1, 2]}, "nesting", "topk_ids"),
        ({"topk_ids": [[[[1]]]]}, "nesting", "topk_ids"),
        ({"topk_ids": [[[0], [1]]], "seq": [1]}, "unknown_column", "seq"),
        ({"topk_ids": [[[0], [1]]], "phase": [7]}, "phase_range", "row 0"),
        ({"topk_ids": [[[0], [1]]], "seq_id": [0.5]}, "column_dtype", "seq_id"),
        ({"topk_ids": [[[0], [1]]], "gate_weights": [[[0.5], []]]}, "column_shape", "gate_weights"),
        ({"ids": [[[0], [1]]]}, "topk_ids_missing", ""),
    ],
)
def test_parquet_errors_name_column_and_row(tmp_path: Path, columns: dict[str, Any], code: str, place: str) -> None:
    """Each broken rule has a code and a place."""
    assert place in refused(code, parquet(tmp_path / "t.parquet", **columns))


@pytest.mark.parametrize(
    "metadata", [{"top_k": "x"}, {"num_experts": -3}, {"layer_ids": {"a": 1}}, {"layer_ids": [1, "b"]}]
)
def test_parquet_bad_metadata_is_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    """Metadata are integers."""
    refused("metadata_type", parquet(tmp_path / "t.parquet", metadata, topk_ids=[[[0], [1]]]))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    path = parquet(tmp_path / "t.parquet", topk_ids=[[[0], [1]]])
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert "moe-placement[parquet]" in refused("missing_extra", path)


def test_npy_with_many_rows_is_exflow(tmp_path: Path) -> None:
    """No model has over a thousand layers, so rows are tokens; ids get the axis of top-1."""
    ids = np.random.default_rng(0).integers(0, 8, (1500, 3))
    np.save(tmp_path / "t.npy", ids)
    trace = trace_of(tmp_path / "t.npy")
    assert (trace.provenance.format, trace.top_k, trace.num_tokens) == ("exflow", 1, 1500)
    assert ids_of(trace) == ids[:, :, np.newaxis].tolist()


@pytest.mark.parametrize(
    ("array", "format_name"),
    [(np.full((3, 8), 0.5), "eplb"), (np.full((3, 8), 5000), "eplb"), (np.array([[0, -1], [1, 1]]), "exflow")],
)
def test_npy_is_told_where_certain(tmp_path: Path, array: np.ndarray[Any, Any], format_name: str) -> None:
    """Floats and large values are counts; negative values are missing ids."""
    np.save(tmp_path / "t.npy", array)
    assert load(tmp_path / "t.npy").provenance.format == format_name


def test_npy_is_refused_where_uncertain(tmp_path: Path) -> None:
    """A small integer matrix may be either; `format` decides."""
    np.save(tmp_path / "t.npy", np.ones((4, 8), int))
    assert "`format`: exflow or eplb" in refused("ambiguous_format", tmp_path / "t.npy")
    assert isinstance(load(tmp_path / "t.npy", format="eplb"), LoadCounts)
    assert isinstance(load(tmp_path / "t.npy", format="exflow"), Trace)


@pytest.mark.parametrize("shape", [(5,), (5, 2, 2), (2, 2, 2, 2), (), (0, 3)])
def test_npy_of_other_axes_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Three axes of floats may be counts of steps, or logits; of integers, they are vLLM's."""
    np.save(tmp_path / "t.npy", np.zeros(shape))
    message = refused("npy_axes", tmp_path / "t.npy")
    assert ("router_logits" in message) == (len(shape) == 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [("w.json", "[[1, 2.5, 3], [4, 5, 6]]"), ("w.csv", "1,2.5,3\n4,5,6\n"), ("w.csv", "1, 2.5, 3\r\n4, 5, 6")],
)
def test_eplb_text(tmp_path: Path, name: str, text: str) -> None:
    """JSON and CSV give the same loads."""
    (tmp_path / name).write_text(text)
    counts = load(tmp_path / name, layer_ids=[3, 4])
    assert isinstance(counts, LoadCounts)
    assert counts.load.tolist() == [[1, 2.5, 3], [4, 5, 6]]
    assert counts.layer_ids.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[[1, 2], [3]]", "load_shape"),
        ("[[1, NaN]]", "load_not_finite"),
        ("[[1, -1]]", "load_not_finite"),
        ('[[1, "2"]]', "load_shape"),
        ("[1, 2]", "load_shape"),
        ("[[1, 2]", "damaged_file"),
        ("[]", "load_shape"),
        ("[[]]", "num_experts_range"),
        ("1,2\n3,x\n", "load_text"),
        ("1,2,3\n\n3,4,5\n", "load_text"),
    ],
)
def test_eplb_bad_text_is_refused(tmp_path: Path, text: str, code: str) -> None:
    """Ragged, non-finite and non-numeric matrices are no loads."""
    (tmp_path / "w").write_text(text)
    refused(code, tmp_path / "w")


def test_eplb_ragged_rows_name_the_line(tmp_path: Path) -> None:
    """The first row of another length is named: by its line in CSV, by its index in JSON."""
    for text, place in (("1,2,3\n4,5,6\n7,8\n", "w#line 3"), ("[[1, 2], [3, 4], [5]]", "w#/2")):
        (tmp_path / "w").write_text(text)
        assert place in refused("load_shape", tmp_path / "w")


@pytest.mark.parametrize(
    ("encoding", "word"),
    [("utf-16", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32"), ("utf-8-sig", "EF BB BF")],
)
def test_text_in_another_encoding_says_so(tmp_path: Path, encoding: str, word: str) -> None:
    """Text as PowerShell writes it, and a mark that JSON has no place for, are named with the remedy."""
    (tmp_path / "run").mkdir()
    text = '{"topk_ids": [[0, 1]]}\n'.encode(encoding)
    data = b"\xfe\xff" + text if encoding == "utf-16-be" else text
    for path in (tmp_path / "t.jsonl", tmp_path / "run" / "router_trace_rank0.jsonl"):
        path.write_bytes(data)
    (tmp_path / "run" / "other").write_text("other")
    for source in (tmp_path / "t.jsonl", tmp_path / "run"):
        message = refused("text_encoding", source)
        assert word in message
        assert "UTF-8" in message


@pytest.mark.parametrize("value", [1e308, 5e-324])
def test_eplb_loads_out_of_range_name_the_row(tmp_path: Path, value: float) -> None:
    """A layer whose sum overflows, or whose shares lose precision, is refused where it is read."""
    np.save(tmp_path / "w.npy", np.array([[1.0] * 8, [value] * 8]))
    assert "w.npy#row 1" in refused("load_range", tmp_path / "w.npy")


def test_eplb_experts_must_agree(tmp_path: Path) -> None:
    """The caller's E is checked against the columns."""
    (tmp_path / "w.csv").write_text("1,2,3\n3,4,5\n")
    refused("num_experts_differ", tmp_path / "w.csv", num_experts=4)


def test_formats_are_listed_on_request(tmp_path: Path) -> None:
    """Unknown content and unknown names list what there is."""
    (tmp_path / "t").write_text("hello")
    assert all(reader.name in refused("unknown_format", tmp_path / "t") for reader in READERS)
    assert "eplb" in refused("unknown_format", tmp_path / "t", format="pickle")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    """Folders, missing and empty files, and pipes are refused at once."""
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    message = refused("empty_file", tmp_path)  # a folder is read as a whole
    assert "not_a_file" in message
    refused("file_missing", tmp_path / "nowhere")
    refused("empty_file", tmp_path / "empty")
    refused("not_a_file", tmp_path / "pipe")
    refused("cannot_read", tmp_path / "empty" / "below")
    (tmp_path / "loop").symlink_to("loop")
    refused("cannot_read", tmp_path / "loop")
    refused("cannot_read", tmp_path / ("n" * 300))
    refused("not_a_file", Path("/dev/zero"))
    assert "empty" in refused("is_a_folder", Path())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    """Missing rights are said."""
    (tmp_path / "t.npz").write_bytes(b"PK")
    (tmp_path / "t.npz").chmod(0)
    refused("cannot_read", tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("name", "shape", "experts", "sequences"),
    [("deepseek_v2_lite", (25_028, 26, 6), 64, 173), ("gpt_oss_20b", (49_661, 24, 4), 32, 150)],
)
def test_real_traces(name: str, shape: tuple[int, int, int], experts: int, sequences: int) -> None:
    """Recorded traces load with their metadata noted."""
    path = DATA / f"{name}.npz"
    if not path.exists():
        pytest.skip("recorded traces are not here; set MOE_PLACEMENT_DATA to their folder")
    trace = trace_of(path)
    assert ((trace.num_tokens, trace.num_layers, trace.top_k), trace.num_experts) == (shape, experts)
    profile = Profile.of(trace)
    assert profile.load.sum() == np.prod(shape)
    assert len({int(s) for b in trace.batches() if b.seq_id is not None for s in b.seq_id}) == sequences
