"""Damaged files: every reader gives an InputError or a trace that keeps all rules, never another exception."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import full_trace, random_ids
from traces import InputError, LoadCounts, Profile, Trace, load, save

CHANGES = 150  # per reader and kind of damage


def make(kind: str, path: Path) -> bytes:
    """Write one file of each kind; returns its content."""
    if kind.startswith("npz"):
        save(full_trace(1, 60), path.with_suffix(".npz"), compress=kind == "npz-deflated")
        return path.with_suffix(".npz").read_bytes()
    if kind == "jsonl":
        save(full_trace(1, 60), path.with_suffix(".jsonl"))
        return path.with_suffix(".jsonl").read_bytes()
    if kind.startswith("parquet"):
        pytest.importorskip("pyarrow")
        save(full_trace(1, 60), path.with_suffix(".parquet"), compress=kind == "parquet-zstd")
        return path.with_suffix(".parquet").read_bytes()
    if kind in ENGINES:
        return engine_file(kind, path)
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    np.save(buffer, rng.integers(0, 8, (1100, 2)) if kind == "exflow" else rng.random((3, 8)))
    if kind == "eplb-json":
        return json.dumps(rng.random((3, 8)).tolist()).encode()
    if kind == "eplb-csv":
        return "\n".join(",".join(map(str, row)) for row in rng.random((3, 8)).tolist()).encode()
    return buffer.getvalue()


def engine_file(kind: str, path: Path) -> bytes:
    """Return one file of an engine's format."""
    ids = random_ids(1, 60, 3, 8)
    if kind == "llama-csv":
        return b"layer,expert\n" + b"".join(b"%d,%d\n" % (layer, e) for layer in range(3) for e in range(8))
    if kind == "tensorrt":
        from safetensors.numpy import save

        return bytes(save({f"{n}_{layer}": np.arange(8) for n in range(2) for layer in range(3)}))
    lines: list[dict[str, Any]] = []
    if kind == "eplb-stats":
        lines = [
            {"record_type": "eplb_load_stats", "version": 1, "step": 1, "expert_load": [[1, 2]], "p2l_map": [[1, 0]]}
        ]
    elif kind == "megatron":
        for layer in range(3):
            record = {"step": 0, "layer": layer, "rank": 0, "num_tokens": 60, "topk": 2}
            lines.append(record | {"top_indices": ids[:, layer].tolist()})
    elif kind == "policylang":
        lines = [{"num_layers": 3, "num_experts": 8, "top_k": 2, "num_entries": 30}]
        lines += [{"t": t, "l": layer, "e": ids[t, layer].tolist()} for t in range(10) for layer in range(3)]
    if lines:
        return "\n".join(map(json.dumps, lines)).encode() + b"\n"
    arrays: dict[str, Any] = {"P": np.ones((3, 8)), "R": np.ones((2, 8, 8))}
    if kind == "transformers":
        logits = np.random.default_rng(0).random((3, 60, 8))
        arrays = {
            "router_logits": logits,
            "attention_mask": np.ones((6, 10), int),
            "top_k": 2,
            "scoring_func": "softmax",
        }
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz").read_bytes()


ENGINES = ["eplb-stats", "megatron", "tensorrt", "moetuner", "llama-csv", "policylang", "transformers"]
KINDS = ["npz-stored", "npz-deflated", "jsonl", "parquet", "parquet-zstd", "exflow", "eplb", "eplb-json", "eplb-csv"]
KINDS += ENGINES
# Formats that may end anywhere, or at any line: what is there is read.
OPEN_ENDED = ("eplb-csv", "llama-csv", "megatron", "eplb-stats")


def outcome(path: Path) -> str:
    """Load and read everything: ``error``, or ``valid`` after checking the rules independently."""
    try:
        loaded = load(path)
        parts = [] if isinstance(loaded, LoadCounts) else list(loaded.batches(16))
    except InputError:
        return "error"
    if isinstance(loaded, LoadCounts):
        assert np.isfinite(loaded.load).all()
        assert (loaded.load >= 0).all()
    else:
        for batch in parts:
            ids = batch.topk_ids.astype(np.int64)
            assert ids.shape[1:] == (loaded.num_layers, loaded.top_k)
            assert ids.min() >= -1
            assert ids.max() < loaded.num_experts
    return "valid"


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_files_are_valid(tmp_path: Path, kind: str) -> None:
    """The files of the tests below are read when they are whole."""
    path = tmp_path / "file"
    path.write_bytes(make(kind, tmp_path / "source"))
    assert outcome(path) == "valid"


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits(tmp_path: Path, kind: str) -> None:
    """A flipped byte anywhere: an error, or a trace that keeps the rules."""
    content = make(kind, tmp_path / "source")
    path = tmp_path / "file"
    rng = np.random.default_rng(2)
    outcomes = []
    for _ in range(CHANGES):
        damaged = bytearray(content)
        damaged[rng.integers(0, min(len(content), 600) if rng.random() < 0.5 else len(content))] ^= 1 << rng.integers(
            0, 8
        )
        path.write_bytes(damaged)
        outcomes.append(outcome(path))
    assert "error" in outcomes


@pytest.mark.parametrize("kind", ["npz-stored", "npz-deflated", "parquet", "parquet-zstd"])
def test_flipped_data_never_goes_unnoticed(tmp_path: Path, kind: str) -> None:
    """Formats with checksums: what loads without an error has the ids that were saved."""
    content = make(kind, tmp_path / "source")
    path = tmp_path / "file"
    (original,) = full_trace(1, 60).batches()
    rng = np.random.default_rng(3)
    unharmed = 0
    for _ in range(CHANGES):
        damaged = bytearray(content)
        damaged[rng.integers(0, len(content))] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        if outcome(path) == "valid":
            unharmed += 1
            trace = load(path)
            assert isinstance(trace, Trace)
            ids = np.concatenate([batch.topk_ids for batch in trace.batches()])
            assert np.array_equal(ids, original.topk_ids)
    assert unharmed < CHANGES


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_files(tmp_path: Path, kind: str) -> None:
    """A file that ends early is an error wherever the format can tell; text formats may end at a line or number."""
    content = make(kind, tmp_path / "source")
    path = tmp_path / "file"
    for end in sorted(
        {*range(1, 200, 7), *range(200, len(content) - 1, max(1, len(content) // CHANGES)), len(content) - 2}
    ):
        path.write_bytes(content[:end])
        assert outcome(path) == "error" or kind in OPEN_ENDED, end


@pytest.mark.parametrize("kind", KINDS)
def test_overwritten_parts(tmp_path: Path, kind: str) -> None:
    """Runs of zeros, of 0xff and of random bytes, and parts that are missing."""
    content = make(kind, tmp_path / "source")
    path = tmp_path / "file"
    rng = np.random.default_rng(4)
    outcomes = []
    for number in range(CHANGES):
        start = int(rng.integers(0, len(content)))
        length = int(rng.integers(1, 40))
        filling = (bytes(length), b"\xff" * length, rng.bytes(length), b"")[number % 4]
        path.write_bytes(content[:start] + filling + content[start + length :])
        outcomes.append(outcome(path))
    assert outcomes.count("error") > CHANGES // 4


def npy_bytes(descr: str, shape: str, data: bytes = b"", fortran: str = "False", version: bytes = b"\x01\x00") -> bytes:
    """Make an array file with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
        npy_bytes("'|u1'", "(1000000000000, 3, 2)"),
        npy_bytes("'|u1'", "(4611686018427387904, 4611686018427387904, 4)"),
        npy_bytes("'|u1'", "(0, 4611686018427387904, 1)"),
        npy_bytes("'|u1'", "(4611686018427387904, 3, 0)"),
        npy_bytes("'|u1'", "(4611686018427387904, 0, 3)"),
        npy_bytes("'|u1'", "(1, 2, -3)"),
        npy_bytes("'|u1'", "(1, 1, True)", b"\x00"),
        npy_bytes("'|u1'", "6", bytes(6)),
        npy_bytes("'|u1'", "(1, 3, 2)", bytes(5)),
        npy_bytes("'|u1'", "(1, 3, 2)", bytes(7)),
        npy_bytes("'|u1'", "(1, 3, 2)", bytes(6), fortran="True"),
        npy_bytes("'|O'", "(1, 3, 2)", bytes(48)),
        npy_bytes("'<f4'", "(1, 3, 2)", bytes(24)),
        npy_bytes("'|b1'", "(1, 3, 2)", bytes(6)),
        npy_bytes("[('a', 'O')]", "(1, 3, 2)", bytes(48)),
        npy_bytes("'<U999999999'", "(1, 3, 2)"),
        npy_bytes("__import__('os').system('true')", "(1, 3, 2)"),
        npy_bytes("(" * 5000 + ")" * 5000, "(1, 3, 2)"),
        npy_bytes("'|u1'", "(1, 3, 2)", bytes(6), version=b"\x09\x00"),
    ],
)
def test_hostile_array_headers(tmp_path: Path, member: bytes) -> None:
    """Headers with absurd shapes, objects, code or lies about the size are refused without reading the data."""
    path = tmp_path / "t.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("topk_ids.npy", member)
    assert outcome(path) == "error"


def test_pickled_ids_are_never_loaded(tmp_path: Path) -> None:
    """Object arrays are refused by their header; nothing is unpickled."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "sprung").touch, ())

    np.savez(tmp_path / "t.npz", topk_ids=np.array([[[Trap()]]], dtype=object))
    with pytest.raises(InputError, match="never loaded"):
        load(tmp_path / "t.npz")
    np.savez(tmp_path / "p.npz", header=np.array([Trap()], dtype=object), load=np.ones(2))
    with pytest.raises(InputError, match="never loaded"):
        Profile.load_file(tmp_path / "p.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    """Only what NumPy writes is read."""
    with zipfile.ZipFile(tmp_path / "t.npz", "w", method) as archive:
        archive.writestr("topk_ids.npy", npy_bytes("'|u1'", "(1, 3, 2)", bytes(6)))
    with pytest.raises(InputError, match="deflated"):
        load(tmp_path / "t.npz")


def test_members_that_occur_twice_are_refused(tmp_path: Path) -> None:
    """Two arrays of one name leave open which one counts."""
    member = npy_bytes("'|u1'", "(1, 3, 1)", bytes(3))
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("topk_ids.npy", member)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("topk_ids.npy", member)
    with pytest.raises(InputError, match="twice"):
        load(tmp_path / "t.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"seq_id": np.zeros(2, int)},
        {"seq_id": np.zeros(3)},
        {"gate_weights": np.zeros((3, 2))},
        {"gate_weights": np.full((3, 2, 2), np.nan)},
        {"gate_weights": np.zeros((3, 2, 2), int)},
        {"layer_ids": np.arange(3)},
        {"layer_ids": np.array([1, 0])},
        {"layer_ids": np.array([0.0, 1.0])},
        {"num_experts": np.array(2)},
        {"num_experts": np.array([8, 8])},
        {"num_experts": np.array(8.0)},
        {"num_experts": np.array(True)},
        {"topk_ids": np.zeros((0, 2, 2), int)},
        {"topk_ids": np.zeros((3, 2, 2), int)},
        {"topk_ids": np.full((3, 2, 1), -1)},
        {"topk_ids": np.full((3, 2, 1), 1 << 40)},
        {"topk_ids": np.arange(6).reshape(3, 2)},
    ],
)
def test_inconsistent_arrays(tmp_path: Path, arrays: dict[str, Any]) -> None:
    """Wrong shapes, types, values and zero tokens are errors before or while reading."""
    np.savez(tmp_path / "t.npz", **({"topk_ids": np.tile([0, 3], (3, 2, 1))} | arrays))
    assert outcome(tmp_path / "t.npz") == "error"


def test_damaged_profiles(tmp_path: Path) -> None:
    """A profile that is cut off or flipped is an error, or the profile that was saved."""
    profile = Profile.of(full_trace(1, 60))
    profile.save(tmp_path / "p.npz")
    content = (tmp_path / "p.npz").read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / "file.npz"
    for number in range(CHANGES):
        damaged = bytearray(content)
        place = int(rng.integers(1, len(content)))
        damaged[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged if number % 2 else content[:place])
        try:
            again = Profile.load_file(path)
        except InputError:
            continue
        assert np.array_equal(again.load, profile.load)
        assert again.sources == profile.sources
