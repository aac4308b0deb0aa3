"""From a trace file to finished matrices: how many pairs per second, in how much memory.

Run: ``python benchmarks/counting.py [--tokens T] [--rounds N]``. Targets: a billion pairs per second on 2 cores
from either format; with ``--tokens 5000000``, less than 600 MB at the peak.

A pair is one increment of a matrix: ``T (L - 1) K^2`` from layer to layer and ``T L K (K - 1) / 2`` within layers, each
unordered pair once. Loads are counted too, but not as pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _harness import Neighbours, Sample, available_cores, conditions, in_child, interleaved, median_ratio, table

import traces
from traces.synthetic import Synthetic, generate

LAYERS, EXPERTS, TOP_K, SEED = 26, 64, 6, 0
WARM_UP_TOKENS = 4_096
CHUNK_TOKENS = 4_096
TARGET_PAIRS = 1e9
TARGET_BYTES = 600e6
BASELINE = "np.bincount, npz"

Counts = npt.NDArray[np.int64]


def num_pairs(tokens: int) -> int:
    """Return the increments of the matrices that so many tokens take."""
    return tokens * ((LAYERS - 1) * TOP_K**2 + LAYERS * TOP_K * (TOP_K - 1) // 2)


def profiled(path: Path, workers: int) -> str:
    """Count a file with the project's own reader and loops; return a digest of the matrices."""
    profile = traces.Profile.of(traces.load(path), workers=workers)
    assert profile.affinity is not None
    assert profile.coactivation is not None
    return digest(profile.load.astype(np.int64), profile.affinity, profile.coactivation)


def bincounted(path: Path) -> str:
    """Count an npz with chunked `np.bincount`; return a digest of the matrices.

    Chunk, layout and the narrow index type are the fastest of those that were tried; the usual int64 indices over
    (T, K, K) take about twice as long.
    """
    with np.load(path) as arrays:
        ids = arrays["topk_ids"]
    pair = np.min_scalar_type(EXPERTS**2 - 1)
    first, second = np.triu_indices(TOP_K, 1)
    load = np.zeros((LAYERS, EXPERTS), np.int64)
    affinity = np.zeros((LAYERS - 1, EXPERTS**2), np.int64)
    together = np.zeros((LAYERS, EXPERTS**2), np.int64)
    for start in range(0, len(ids), CHUNK_TOKENS):
        # (L, K, tokens): long rows, so that the index arithmetic vectorises.
        chunk = np.ascontiguousarray(ids[start : start + CHUNK_TOKENS].transpose(1, 2, 0)).astype(pair)
        for layer in range(LAYERS):
            load[layer] += np.bincount(chunk[layer].ravel(), minlength=EXPERTS)
            rows = chunk[layer] * EXPERTS
            together[layer] += np.bincount((rows[first] + chunk[layer][second]).ravel(), minlength=EXPERTS**2)
            if layer + 1 < LAYERS:
                index = rows[:, np.newaxis] + chunk[layer + 1][np.newaxis]
                affinity[layer] += np.bincount(index.ravel(), minlength=EXPERTS**2)
    square = together.reshape(LAYERS, EXPERTS, EXPERTS)
    coactivation = square + square.transpose(0, 2, 1)
    diagonal = np.arange(EXPERTS)
    coactivation[:, diagonal, diagonal] = load
    return digest(load, affinity.reshape(LAYERS - 1, EXPERTS, EXPERTS), coactivation)


def digest(*matrices: Counts) -> str:
    """Return a digest that is the same for the same matrices."""
    hashed = hashlib.sha256()
    for matrix in matrices:
        hashed.update(f"{matrix.shape}{matrix.dtype}".encode() + np.ascontiguousarray(matrix).tobytes())
    return hashed.hexdigest()


def write_traces(folder: Path, tokens: int) -> dict[str, Path]:
    """Write one synthetic trace in both formats."""
    paths = {"npz": folder / f"trace{tokens}.npz", "parquet": folder / f"trace{tokens}.parquet"}
    params = Synthetic(num_layers=LAYERS, num_experts=EXPERTS, top_k=TOP_K, num_tokens=tokens, seed=SEED)
    traces.save(generate(params), paths["npz"], compress=False)
    written = traces.load(paths["npz"])
    assert isinstance(written, traces.Trace)
    traces.save(written, paths["parquet"])
    return paths


def variants(paths: dict[str, Path], small: dict[str, Path]) -> dict[str, Callable[[], Sample]]:
    """Return what is compared, each in a process of its own that first counts the small trace."""
    compared: dict[str, Callable[[], Sample]] = {
        BASELINE: partial(in_child, bincounted, (paths["npz"],), (small["npz"],), 1)
    }
    for cores in range(1, min(available_cores(), 2) + 1):
        for name in paths:
            arguments, warm_up = (paths[name], cores), (small[name], cores)
            compared[f"Profile.of, {name}, {_plural(cores)}"] = partial(in_child, profiled, arguments, warm_up, cores)
    return compared


def report(samples: dict[str, list[Sample]], tokens: int) -> str:
    """Return the table, and how the targets fared."""
    pairs = num_pairs(tokens)
    elapsed = {name: [sample.seconds for sample in runs] for name, runs in samples.items()}
    peak = {name: max(sample.peak_bytes for sample in runs) for name, runs in samples.items()}
    rate = {name: pairs / statistics.median(runs) for name, runs in elapsed.items()}
    rows = []
    for name, runs in elapsed.items():
        ratio, least, greatest = median_ratio(elapsed[BASELINE], runs)
        spread = f"{ratio:.2f} ({least:.2f} to {greatest:.2f})"
        median = statistics.median(runs)
        cpu = statistics.median(sample.cpu_seconds for sample in samples[name])
        speed = f"{rate[name] / 1e9:.2f} ({pairs / min(runs) / 1e9:.2f})"
        rows.append([name, f"{median:.2f}", f"{cpu:.2f}", speed, spread, f"{peak[name] / 1e6:.0f}"])
    lines = [table(["", "seconds", "CPU s", "billion pairs/s (best)", "bincount / this", "peak MB"], rows)]
    for name in [name for name in samples if name != BASELINE]:
        memory = f"peak below {TARGET_BYTES / 1e6:.0f} MB: {_verdict(peak[name] < TARGET_BYTES)}"
        speed = f"; >= 1 billion pairs/s: {_verdict(rate[name] >= TARGET_PAIRS)}" if name.endswith("2 threads") else ""
        lines.append(f"{name}: {memory}{speed}")
    return "\n".join(lines)


def _plural(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _verdict(met: bool) -> str:
    return "yes" if met else "NO"


def main() -> None:
    """Write the traces to a temporary folder, measure, check that all matrices agree, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="tokens of the trace (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    given = parser.parse_args()
    if given.tokens < 1 or given.rounds < 1:
        parser.error("--tokens and --rounds start at 1")
    data = f"synthetic, {given.tokens:,} tokens, {LAYERS} x {EXPERTS}, top-{TOP_K}, {num_pairs(given.tokens):,} pairs"
    print(conditions(data, SEED, f"every variant bound to as many cores as threads, {given.rounds} rounds"))
    with tempfile.TemporaryDirectory() as folder:
        small = write_traces(Path(folder), WARM_UP_TOKENS)
        paths = write_traces(Path(folder), given.tokens)
        sizes = ", ".join(f"{name} {path.stat().st_size / 1e6:.0f} MB" for name, path in paths.items())
        print(f"files: {sizes} (npz uncompressed, Parquet as written by default)")
        # Not reported: compiles the loops if they are not cached yet, which would count as memory.
        interleaved(variants(small, small), 1)
        neighbours = Neighbours()
        samples = interleaved(variants(paths, small), given.rounds)
        noise = str(neighbours)
    results = {sample.result for runs in samples.values() for sample in runs}
    assert len(results) == 1, "the matrices differ between variants"
    print(f"all variants give the same matrices; {noise}\n")
    print(report(samples, given.tokens))


if __name__ == "__main__":
    main()
