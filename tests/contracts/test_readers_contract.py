"""What every reader promises, whatever its format; a new reader joins by adding its example here."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_trace
from tests.engine_files import ENGINE_FILES, Toy, write_bundle
from traces import LoadCounts, ModelLayout, Profile, Trace, save
from traces import load as load_any
from traces.decoding.files import TraceFile
from traces.decoding.sources import open_path
from traces.decoding.unpacking import UnpackLimits
from traces.formats import READERS, Reader
from traces.formats.hints import Hints

TOKENS = 1200
TRACE = random_trace(0, TOKENS, 3, 8, 1, seq_id=np.arange(TOKENS) // 10)


def load(path: Path, **options: Any) -> Trace | LoadCounts:
    """Load an example, with what its format needs from the caller."""
    return load_any(path, **(NEEDED.get(path, {}) | options))


def _saved(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        if suffix == ".parquet":
            pytest.importorskip("pyarrow")
        save(TRACE, folder / f"example{suffix}")
        return folder / f"example{suffix}"

    return write


def _exflow(folder: Path) -> Path:
    np.save(folder / "example.npy", next(TRACE.batches()).topk_ids[:, :, 0])
    return folder / "example.npy"


def _eplb(folder: Path) -> Path:
    (folder / "example.json").write_text(json.dumps(np.ones((3, 8)).tolist()))
    return folder / "example.json"


@functools.cache
def _ids() -> np.ndarray[Any, Any]:
    return next(TRACE.batches(TOKENS)).topk_ids


def _lines(path: Path, objects: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in objects))
    return path


def _eplb_stats(folder: Path) -> Path:
    record = {"record_type": "eplb_load_stats", "version": 1, "step": 1}
    record |= {"expert_load": np.ones((3, 8), int).tolist(), "p2l_map": [list(range(8))] * 3}
    return _lines(folder / "example.jsonl", [record])


def _megatron(folder: Path) -> Path:
    records = [
        {"step": step, "layer": layer, "rank": 0, "num_tokens": 400, "topk": 1}
        | {"top_indices": _ids()[400 * step : 400 * (step + 1), layer].tolist()}
        for step in range(3)
        for layer in range(3)
    ]
    return _lines(folder / "example.jsonl", records)


def _tokens_per_expert(folder: Path) -> Path:
    counts = {"iter": 100, "block": "decoder", "tpe": np.ones((1, 8), int).tolist()}
    return _lines(folder / "example.jsonl", [counts | {"layer": layer} for layer in range(3)])


def _long(folder: Path) -> Path:
    rows = [f"{layer},{expert},1" for layer in range(3) for expert in range(8)]
    (folder / "example.csv").write_text("layer_id,expert_id,count\n" + "\n".join(rows) + "\n")
    return folder / "example.csv"


def _logical_count(folder: Path) -> Path:
    (folder / "example.json").write_text(json.dumps({"logical_count": np.ones((3, 8), int).tolist()}))
    return folder / "example.json"


def _tensorrt(folder: Path) -> Path:
    from safetensors.numpy import save_file

    tensors = {f"0_{layer}": np.ascontiguousarray(_ids()[:, layer]) for layer in range(3)}
    save_file(tensors, folder / "example.safetensors")
    return folder / "example.safetensors"


def _moetuner(folder: Path) -> Path:
    np.savez(folder / "example.npz", P=np.ones((3, 8)), R=np.full((2, 8, 8), 1 / 8))
    return folder / "example.npz"


def _flame(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (folder / "example").mkdir()
    for layer in range(3):
        table = pa.table({"indices": pa.array(_ids()[:, layer].tolist(), pa.list_(pa.int16()))})
        pq.write_table(table, folder / "example" / f"layer_{layer:02}.parquet")
    return folder / "example"


def _llama(folder: Path) -> Path:
    rows = [f"{layer},{expert}" for layer in range(3) for expert in range(8)]
    (folder / "example.csv").write_text("layer,expert\n" + "\n".join(rows) + "\n")
    return folder / "example.csv"


def _policylang(folder: Path) -> Path:
    header = {"model_name": "m", "num_layers": 3, "num_experts": 8, "top_k": 1, "num_entries": 3 * TOKENS}
    entries = [
        {"p": t // 10, "t": t % 10, "l": layer, "e": _ids()[t, layer].tolist(), "s": None}
        for t in range(TOKENS)
        for layer in range(3)
    ]
    return _lines(folder / "example.jsonl", [header, *entries])


def _transformers(folder: Path) -> Path:
    logits = np.zeros((3, TOKENS, 8), np.float32)
    np.put_along_axis(logits, _ids().swapaxes(0, 1), 1, axis=2)
    mask = np.ones((TOKENS // 10, 10), int)
    np.savez(folder / "example.npz", router_logits=logits, attention_mask=mask, top_k=1, scoring_func="softmax")
    return folder / "example.npz"


def _ascend(folder: Path) -> Path:
    (folder / "example").mkdir()
    np.save(folder / "example" / "moe_load_0.npy", np.ones((3, 2, 4), int))
    devices = [{"device_id": 0, "device_expert": [0, 1, 2, 3]}, {"device_id": 1, "device_expert": [4, 5, 6, 7]}]
    layers = [{"layer_id": layer, "device_count": 2, "device_list": devices} for layer in range(3)]
    content = {"moe_layer_count": 3, "layer_list": layers}
    (folder / "example" / "expert_map.json").write_text(json.dumps(content))
    return folder / "example"


def _engine(name: str) -> Callable[[Path], Path]:
    """Write the example as an engine does, whose layers are 0, 1 and 2."""

    def write(folder: Path) -> Path:
        toy = ToyOf(ids=next(TRACE.batches()).topk_ids.astype(np.int64))
        return write_bundle(folder / "engine", ENGINE_FILES[name](toy))

    return write


@dataclass(frozen=True, kw_only=True)
class ToyOf(Toy):
    """The example as a toy: no dense layers, every id twice among the physical ones."""

    layers: int = 3
    moe: tuple[int, ...] = (0, 1, 2)
    experts: int = 8
    top_k: int = 1
    ranks: int = 1
    passes: int = 5
    lengths: tuple[int, ...] = (TOKENS // 4,) * 4
    slots: int = 16
    ids: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", np.tile(np.arange(16) % 8, (3, 1)))


EXAMPLES: dict[str, Callable[[Path], Path]] = {
    "npz": _saved(".npz"),
    "parquet": _saved(".parquet"),
    "jsonl": _saved(".jsonl"),
    "exflow": _exflow,
    "eplb": _eplb,
    "vllm_eplb_stats": _eplb_stats,
    "megatron": _megatron,
    "megatron_tokens_per_expert": _tokens_per_expert,
    "tensorrt_llm": _tensorrt,
    "moetuner": _moetuner,
    "flame": _flame,
    "llama_csv": _llama,
    "counts_csv": _long,
    "policylang": _policylang,
    "transformers": _transformers,
    "vllm_ascend": _ascend,
    "vllm_routed_experts": _engine("vllm_routed_experts"),
    "sglang_routed_experts": _engine("sglang_routed_experts"),
    "lmdeploy_routed_experts": _engine("lmdeploy_routed_experts"),
    "sglang_stat": _engine("sglang_stat"),
    "logical_count": _logical_count,
    "sglang_per_pass": _engine("sglang_per_pass"),
    "sglang_per_token": _engine("sglang_per_token"),
}
# What the caller has to say about a format.
OPTIONS: dict[str, dict[str, Any]] = {"sglang_routed_experts": {"model": ModelLayout.of(3), "top_k": 1}}
NEEDED: dict[Path, dict[str, Any]] = {}  # the same by example
# Formats whose files tell the layers, so that the caller can't name others than 0, 1 and 2.
OWN_LAYERS = {"npz", "parquet", "jsonl", *(name.partition(" ")[0] for name in ENGINE_FILES)}
OWN_LAYERS |= {"megatron", "tensorrt_llm", "llama_csv", "policylang", "logical_count"}


@pytest.fixture(params=READERS, ids=lambda reader: reader.name)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Reader, Path]:
    """Each registered reader with a file of its format."""
    reader: Reader = request.param
    path = EXAMPLES[reader.name](tmp_path)
    NEEDED[path] = OPTIONS.get(reader.name, {})
    return reader, path


def content(trace: Trace, step: int) -> dict[str, Any]:
    """All tokens, read `step` at a time."""
    parts = list(trace.batches(step))
    assert all(len(part) <= step for part in parts)
    names = ("topk_ids", "rows", *sorted(trace.columns))
    return {name: np.concatenate([getattr(part, name) for part in parts]).tolist() for name in names}


def test_names_are_unique_and_have_examples() -> None:
    """Every reader has its own name and is covered below."""
    assert [reader.name for reader in READERS] == list(EXAMPLES)


def test_only_its_own_reader_recognises_a_file(example: tuple[Reader, Path]) -> None:
    """Sniffing is exclusive, so the order of the registry does not matter."""
    reader, path = example
    source = open_path(path, UnpackLimits())
    if isinstance(source, TraceFile):
        assert [other.name for other in READERS if other.sniff(source)] == [reader.name]
    else:
        assert [other.name for other in READERS if other.sniff_bundle and other.sniff_bundle(source)] == [reader.name]


def test_load_and_format_name_agree(example: tuple[Reader, Path]) -> None:
    """Sniffed or named, the same reader opens the file and says so."""
    reader, path = example
    source = open_path(path, UnpackLimits())
    if isinstance(source, TraceFile):
        opened = reader.open(source, Hints(**NEEDED[path]))
    else:
        assert reader.open_bundle is not None
        opened = reader.open_bundle(source, Hints(**NEEDED[path]))
    for loaded in (load(path), load(path, format=reader.name), opened):
        assert loaded.provenance.format == reader.name
        assert loaded.provenance.source == path.name


def test_a_trace_brings_its_engine_along(example: tuple[Reader, Path]) -> None:
    """What the reader declares is known of the trace, of its selections and of its profile."""
    reader, path = example
    for loaded in (load(path), load(path, format=reader.name)):
        parts = [loaded] if isinstance(loaded, LoadCounts) else [loaded, *loaded.split(0.5)]
        assert {part.engine for part in parts} == {reader.engine}
        profile = Profile.of(loaded)
        assert profile.engine == reader.engine
        assert [source.format for source in profile.sources] == [reader.name]


def test_reading_is_repeatable_and_independent_of_batches(example: tuple[Reader, Path]) -> None:
    """Every pass gives the same tokens; rows count from 0; ids and rows are plain integers."""
    _, path = example
    trace = load(path)
    if isinstance(trace, LoadCounts):
        assert np.array_equal(load(path).load, trace.load)  # type: ignore[union-attr]  # counts again, as above
        return
    whole = content(trace, 1 << 20)
    assert content(trace, 7) == content(trace, 500) == whole
    assert whole["rows"] == list(range(TOKENS))
    assert trace.num_tokens == TOKENS


def test_batches_are_fresh_arrays(example: tuple[Reader, Path]) -> None:
    """A batch stays as it is while the next one is read."""
    _, path = example
    trace = load(path)
    if isinstance(trace, LoadCounts):
        assert not trace.load.flags.writeable
        return
    first, *_ = parts = list(trace.batches(100))
    assert not any(np.shares_memory(first.topk_ids, part.topk_ids) for part in parts[1:])
    assert first.topk_ids.flags.writeable


def test_caller_may_name_the_layers(example: tuple[Reader, Path]) -> None:
    """Layer ids are stated by the file, or taken from the caller."""
    reader, path = example
    layers = [0, 1, 2] if reader.name in OWN_LAYERS else [3, 5, 8]
    assert load(path, layer_ids=layers).layer_ids.tolist() == layers


def test_profiles_agree_across_formats(example: tuple[Reader, Path]) -> None:
    """The same tokens give the same load, whatever the file."""
    reader, path = example
    loaded = load(path)
    profile = Profile.of(loaded)
    if isinstance(loaded, LoadCounts):
        assert (profile.affinity is None) == (reader.name != "moetuner")
        assert (profile.load == 1).all() or np.array_equal(profile.load, Profile.of(TRACE).load)
    else:
        assert np.array_equal(profile.load, Profile.of(TRACE).load)
    assert profile.digest.startswith("sha256:")


def test_an_open_trace_holds_no_file(example: tuple[Reader, Path]) -> None:
    """Files are open only while they are read, and closed when reading stops early."""
    _, path = example
    trace = load(path)
    if isinstance(trace, Trace):
        batches = trace.batches(10)
        next(batches)
        del batches
    opened = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not any(link.exists() and link.resolve() == path.resolve() for link in opened)
