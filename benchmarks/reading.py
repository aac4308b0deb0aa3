"""Every streaming format: how fast it is read, relative to counting, and in how much memory.

Run: ``python benchmarks/reading.py [--bytes B] [--rounds N] [--formats NAME ...]``. Targets: with ``--bytes 1e9``, less
than 700 MB at the peak; reading at least a tenth as fast as counting, or a reason below.

Reading is `traces.load` and one pass over all checked batches, on one core; formats that must be scanned for what they
don't state pay for that pass as well, and archives for their unpacking. Counting is `Profile.of` of the same tokens in
memory, on one core. Formats of counts have no tokens: they are given in MB per second.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import math
import statistics
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from _engine_files import ENGINE_FORMATS, ENGINE_WHY
from _harness import Neighbours, Sample, conditions, in_child, interleaved, table

import traces
from tests.torch_files import Pickle

MODEL_LAYERS, FIRST, EXPERTS, TOP_K, SLOTS, SEED = 61, 3, 256, 8, 288, 0
BLOCK = 1024  # tokens that are written over and over
MODEL = traces.ModelLayout.of(MODEL_LAYERS, first_moe_layer=FIRST, num_experts=EXPERTS, top_k=TOP_K)
TARGET_BYTES = 700e6
TARGET_RATIO = 0.1
COUNTED_TOKENS = 65_536
WHY = {
    "jsonl": "numbers are written as text, and the rest of every token is an object that Python parses",
    "vllm responses": "base64 in JSON: each byte is looked at as text, decoded, and checked, in two passes",
    "sglang responses": "base64 in JSON of int32, four times the bytes of an id that is kept, in two passes",
    "per_token": "int32 padded to 8 and dense layers included, folded id by id, in two passes",
    "npz.gz": "unpacking alone is slower; read the plain file if it is read often",
    "npz.zst": "the file is unpacked to a disk first",
    "npz.tar": "the file is copied out of the archive first",
    "npz": "",
    "parquet": "lists are taken apart",
}
Ids = npt.NDArray[np.uint8]


def block() -> Ids:
    """Return (BLOCK, model layers, K) ids; dense layers are zero."""
    rng = np.random.default_rng(SEED)
    ids = np.zeros((BLOCK, MODEL_LAYERS, TOP_K), np.uint8)
    ids[:, FIRST:] = rng.random((BLOCK, MODEL_LAYERS - FIRST, EXPERTS), np.float32).argsort(axis=2)[:, :, :TOP_K]
    return ids


def npy(path: Path, size: int) -> int:
    """Write vLLM's array; returns its tokens, as all of these do."""
    ids = block()
    repeats = max(1, size // ids.nbytes)
    shape = (repeats * BLOCK, MODEL_LAYERS, TOP_K)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for _ in range(repeats):
            file.write(ids.tobytes())
    return shape[0]


def own(path: Path, size: int, suffix: str) -> int:
    """Write one of our own formats."""
    ids = block()[:, FIRST:]
    per_token = {".npz": ids[0].size, ".parquet": ids[0].size, ".jsonl": 3.7 * ids[0].size}[suffix]
    tokens = math.ceil(size / per_token / BLOCK) * BLOCK

    def read(_: int) -> Iterator[traces.Batch]:
        for start in range(0, tokens, BLOCK):
            # Other ids in every block, as distinct as before: else archives would shrink to nothing.
            other = ids ^ np.uint8(start // BLOCK % EXPERTS)
            yield traces.Batch(topk_ids=other, rows=np.arange(start, start + BLOCK))

    trace = traces.Trace(
        layer_ids=np.arange(FIRST, MODEL_LAYERS),
        num_experts=EXPERTS,
        top_k=TOP_K,
        num_tokens=tokens,
        read=read,
        hash_source=lambda: "",
    )
    named = path.with_suffix(suffix)
    traces.save(trace, named, **({"compress": False} if suffix == ".npz" else {}))
    named.rename(path)
    return tokens


def packed(path: Path, size: int, packer: str) -> int:
    """Write an npz in an archive."""
    plain = path.with_suffix(".plain")
    tokens = own(plain, size, ".npz")
    with plain.open("rb") as source:
        if packer == "tar":
            with tarfile.open(path, "w") as archive:
                archive.add(plain, "trace.npz")
        else:
            with gzip.open(path, "wb", 1) if packer == "gz" else zstandard.open(path, "wb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
    plain.unlink()
    return tokens


def responses(path: Path, size: int, engine: str) -> int:
    """Write responses of 1024 tokens, one per line."""
    ids = block()
    if engine == "vllm":
        file = io.BytesIO()
        np.save(file, ids)
        text = base64.b64encode(file.getvalue()).decode()
        answer: dict[str, Any] = {"id": "x", "choices": [{"index": 0, "text": "x", "routed_experts": text}]}
    else:
        text = base64.b64encode(ids.astype("<i4").tobytes()).decode()
        answer = {"text": "x", "meta_info": {"id": "x", "routed_experts": text}}
    line = json.dumps(answer).encode() + b"\n"
    repeats = max(1, size // len(line))
    with path.open("wb") as target:
        for _ in range(repeats):
            target.write(line)
    return repeats * BLOCK


def recorded(path: Path, size: int, kind: str) -> int:
    """Write a dump of SGLang's recorder, every record with storages of its own."""
    ids = block()
    maps = np.tile(np.arange(SLOTS) % EXPERTS, (MODEL_LAYERS, 1))
    physical = np.full((MODEL_LAYERS, BLOCK, TOP_K), -1, np.int32)
    physical[FIRST:] = ids[:, FIRST:].swapaxes(0, 1)
    counts = np.zeros((MODEL_LAYERS, SLOTS), np.int32)
    counts[FIRST:] = 7
    if kind == "stat":
        one = np.zeros((1, MODEL_LAYERS, EXPERTS), np.int32)
        one[:, FIRST:] = 5
        big = np.broadcast_to(one, (max(1, size // one.nbytes), *one.shape[1:]))
        _stat(path, big)
        return 0
    size_of = physical.nbytes + 10 * BLOCK if kind == "per_token" else counts.nbytes + 400
    records = []
    for number in range(max(1, size // size_of)):
        record: dict[str, Any] = {"forward_pass_id": number, "rank": 0, "gatherer_key": "primary"}
        record["global_physical_count"] = counts.view()  # a view of its own is a storage of its own
        if kind == "per_token":
            record |= {"topk_ids_of_layer": physical.view(), "positions": list(range(BLOCK)), "forward_mode": 1}
        records.append(record)
    made = Pickle()
    made.write({"records": records, "last_physical_to_logical_map": maps})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(made.out) + b".")
        for number, base in enumerate(made.storages):
            archive.writestr(f"archive/data/{number}", base.tobytes())
    return len(records) * BLOCK if kind == "per_token" else 0


def _stat(path: Path, big: npt.NDArray[np.int32]) -> None:
    """Write counts without having them in memory: the pickle of a small tensor, with another number of steps."""
    steps, layers, experts = big.shape
    made = Pickle()
    made.out += b"}("
    for key in ("rank", 0, "logical_count"):
        made.write(key)
    made.name("torch._utils", "_rebuild_tensor_v2")
    made.out += b"(("
    made.write("storage")
    made.name("torch", "IntStorage")
    for part in ("0", "cuda:0", big.size):
        made.write(part)
    made.out += b"tQ"
    for item in (0, big.shape, (layers * experts, experts, 1), False):
        made.write(item)
    made.name("collections", "OrderedDict")
    made.out += b")RtRu."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(made.out))
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(steps):
                member.write(np.ascontiguousarray(big[0]).tobytes())


FORMATS: dict[str, Callable[[Path, int], int]] = {
    "npz": partial(own, suffix=".npz"),
    "parquet": partial(own, suffix=".parquet"),
    "jsonl": partial(own, suffix=".jsonl"),
    "npz.gz": partial(packed, packer="gz"),
    "npz.zst": partial(packed, packer="zst"),
    "npz.tar": partial(packed, packer="tar"),
    "vllm array": npy,
    "vllm responses": partial(responses, engine="vllm"),
    "sglang responses": partial(responses, engine="sglang"),
    "stat": partial(recorded, kind="stat"),
    "per_pass": partial(recorded, kind="per_pass"),
    "per_token": partial(recorded, kind="per_token"),
}


FORMATS |= ENGINE_FORMATS
WHY |= ENGINE_WHY


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files in a folder."""
    return sum(part.stat().st_size for part in (path.iterdir() if path.is_dir() else [path]))


def read(path: Path) -> int:
    """Load a file and pass over it; returns its tokens."""
    loaded = traces.load(path, model=MODEL, top_k=TOP_K)
    if isinstance(loaded, traces.LoadCounts):
        return 0
    return sum(map(len, loaded.batches()))


def count(tokens: int) -> int:
    """Count so many tokens that are in memory."""
    ids = np.tile(block()[:, FIRST:], (tokens // BLOCK, 1, 1))
    return traces.Profile.of(traces.Trace.of(ids, num_experts=EXPERTS), workers=1).tokens


def report(samples: dict[str, list[Sample]], tokens: dict[str, int], sizes: dict[str, int], counting: float) -> str:
    """Return the table, and how the targets fared; `counting` in tokens per second."""
    rows, verdicts = [], []
    for name, runs in samples.items():
        elapsed = statistics.median(run.seconds for run in runs)
        peak = max(run.peak_bytes for run in runs)
        ratio = tokens[name] / elapsed / counting
        shown = f"{ratio:.2f}" if tokens[name] else "counts"
        speed, size = f"{sizes[name] / elapsed / 1e6:.0f}", f"{sizes[name] / 1e6:.0f}"
        rows.append([name, size, f"{elapsed:.1f}", speed, shown, f"{peak / 1e6:.0f}"])
        if peak >= TARGET_BYTES:
            verdicts.append(f"{name}: peak of {peak / 1e6:.0f} MB, NOT below {TARGET_BYTES / 1e6:.0f}")
        if tokens[name] and ratio < TARGET_RATIO:
            verdicts.append(f"{name}: {ratio:.2f} of the counting speed; why: {WHY.get(name) or 'UNKNOWN'}")
    head = ["", "MB", "seconds", "MB/s", "reading / counting", "peak MB"]
    return "\n".join([table(head, rows), *(verdicts or ["All targets are met."])])


def main() -> None:
    """Write, read and report each format in turn: the files would not fit together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=3e7, help="bytes of each file (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="passes over each file (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS), metavar="NAME")
    given = parser.parse_args()
    data = f"{MODEL_LAYERS - FIRST} of {MODEL_LAYERS} layers x {EXPERTS}, top-{TOP_K}"
    print(conditions(data, SEED, f"each format on one core, {given.rounds} rounds"))
    neighbours = Neighbours()
    samples: dict[str, list[Sample]] = {}
    tokens: dict[str, int] = {}
    sizes: dict[str, int] = {}
    counted = [in_child(count, (COUNTED_TOKENS,), (BLOCK,), 1).seconds for _ in range(given.rounds)]
    for name in given.formats:
        with tempfile.TemporaryDirectory() as folder:
            path, small = Path(folder) / "large", Path(folder) / "small"
            FORMATS[name](small, 1)
            tokens[name] = FORMATS[name](path, int(given.bytes))
            sizes[name] = size_of(path)
            samples |= interleaved({name: partial(in_child, read, (path,), (small,), 1)}, given.rounds)
        assert {run.result for run in samples[name]} == {tokens[name]}, f"{name}: tokens are missing"
        print(f"{name}: {max(run.peak_bytes for run in samples[name]) / 1e6:.0f} MB at the peak", flush=True)
    print(f"{neighbours}\n\n" + report(samples, tokens, sizes, COUNTED_TOKENS / statistics.median(counted)))


if __name__ == "__main__":
    main()
