"""Measure a card's expert kernels in five minutes: grouped GEMM by tokens per expert, in bf16 and fp8, and memory.

    python examples/measure_gpu.py --output my.csv
    moe-placement calibrate my.csv -o my.json

Each row is one layer's experts on one rank: gate and up, activation, down, for experts with given tokens, grouped where
torch has such a kernel, else one after the other. Without a GPU it runs small sizes on the CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn import functional

Run = Callable[[], object]
TILE = 16  # rows that grouped kernels want an expert's tokens rounded up to


def workloads(slots: int, most: int, seed: int) -> Iterator[tuple[str, list[int]]]:
    """Yield tokens per expert slot: even, skewed, and few experts with all tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = 4
    while tokens <= most:
        yield "even", [max(tokens // slots, int(i < tokens)) for i in range(slots)]
        shares = torch.rand(slots, generator=generator).pow(-1.2)
        yield "skewed", (shares / shares.sum() * tokens).round().int().tolist()
        yield "few", [tokens // 2 if i < 2 else 0 for i in range(slots)]
        tokens *= 4


def padded(counts: list[int]) -> list[int]:
    """Return the rows of each expert as a grouped kernel takes them."""
    return [-(-count // TILE) * TILE for count in counts]


def grouped(counts: list[int], hidden: int, width: int, device: str, fp8: bool) -> Run:
    """Return a function that runs the experts of a rank once."""
    rows, slots = padded(counts), len(counts)
    into = torch.randn(slots, hidden, 2 * width, device=device, dtype=torch.bfloat16) / hidden**0.5
    out = torch.randn(slots, width, hidden, device=device, dtype=torch.bfloat16) / width**0.5
    x = torch.randn(max(sum(rows), TILE), hidden, device=device, dtype=torch.bfloat16)
    ends = torch.tensor(rows, device=device).cumsum(0).to(torch.int32)
    multiply = getattr(torch, "_grouped_mm", None) if device == "cuda" and not fp8 else None
    if multiply is not None:
        return lambda: multiply(halved(multiply(x, into, offs=ends)), out, offs=ends)
    if fp8:
        eight = torch.float8_e4m3fn
        ones = torch.ones((), device=device)
        weights = [(column_major(into[i]), column_major(out[i])) for i in range(slots)]

        def scaled(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch._scaled_mm(a.to(eight), b, scale_a=ones, scale_b=ones, out_dtype=torch.bfloat16)

        parts = [(part, *weights[i]) for i, part in enumerate(x.split(rows)) if len(part)] if sum(rows) else []
        return lambda: [scaled(halved(scaled(part, one)), two) for part, one, two in parts]
    parts = [(part, into[i], out[i]) for i, part in enumerate(x.split(rows)) if len(part)] if sum(rows) else []
    return lambda: [halved(part @ one) @ two for part, one, two in parts]


def column_major(x: torch.Tensor) -> torch.Tensor:
    """Return 8-bit weights as scaled multiplication takes them."""
    return x.t().contiguous().to(torch.float8_e4m3fn).t()


def has_fp8(device: str) -> bool:
    """Return whether the device multiplies 8-bit floats."""
    try:
        grouped([TILE], 32, 32, device, fp8=True)()
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


def halved(x: torch.Tensor) -> torch.Tensor:
    """Return the gated activation."""
    gate, up = x.chunk(2, dim=-1)
    return functional.silu(gate) * up


def milliseconds(run: Run, device: str, repeats: int) -> float:
    """Return the median time of a run."""
    for _ in range(3):
        run()
    found = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append((time.perf_counter() - start) * 1e3)
    return sorted(found)[len(found) // 2]


def memory_gb_s(device: str, size: int) -> float:
    """Return the bandwidth of a copy, read and written bytes together."""
    x = torch.empty(size, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * size / milliseconds(lambda: y.copy_(x), device, 10) / 1e6


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("my.csv"))
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--width", type=int, default=1536, help="inside an expert")
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 8, 32], help="experts of a rank")
    parser.add_argument("--tokens", type=int, default=65_536, help="most tokens of a rank")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", help="GPU as moe-placement names it; the device's own name otherwise")
    options = parser.parse_args()
    device = options.device
    name = options.name or (torch.cuda.get_device_name() if device == "cuda" else "cpu")
    kinds = {"bfloat16": False} | ({"fp8": True} if has_fp8(device) else {})
    print(f"{name}: copies {memory_gb_s(device, 1 << (30 if device == 'cuda' else 24)):.0f} GB/s", file=sys.stderr)
    rows = []
    for dtype, fp8 in kinds.items():
        for slots in options.slots:
            for kind, counts in workloads(slots, options.tokens, slots):
                ms = milliseconds(grouped(counts, options.hidden, options.width, device, fp8), device, options.repeats)
                rows.append(
                    {
                        "device": name,
                        "framework": "torch",
                        "kernel_source": "torch_grouped",
                        "moe_dtype": dtype,
                        "num_tokens": max(sum(counts), 1),
                        "hidden_size": options.hidden,
                        "inter_size": options.width,
                        "topk": 1,
                        "num_experts": slots,
                        "moe_ep_size": 1,
                        "distribution": f"{kind} {slots}",
                        "tokens_per_expert": " ".join(map(str, counts)),
                        "latency": f"{ms:.6f}",
                    }
                )
    with options.output.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    print(f"{options.output} written: {len(rows)} rows. Next: moe-placement calibrate {options.output} -o my.json")


if __name__ == "__main__":
    main()
