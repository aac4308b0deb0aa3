"""What two-batch overlap was measured to gain, set against what the time model says.

    python benchmarks/overlap.py

The share that is hidden (`placement.time.overlap.HIDDEN`) is fitted on the first row alone. The table is in
``docs/time.md``; a test keeps both together. Routing is synthetic, seed 0: as in the rows of `benchmarks.outcomes` on
SGLang and ATOM.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.outcomes import ALIKE, Setting, bf16, popular
from placement.time.collectives import VECTOR_BYTES, inside_ms
from placement.time.overlap import HIDDEN

ALL_REDUCE = ("nccl_reduce_scatter", "nccl_all_gather")
OVERLAPS = ("none", "two_batch")


def sglang(machine: str, redundant: int, phase: str, tokens: int) -> float:
    """Return what overlap gains in tokens per second, of a plan that was made from loads of before."""
    trace, known = popular(256, 8, 0.4, ALIKE), popular(256, 8, 0.4)
    asked: dict[str, Any] = {"phase": phase, "tokens_per_gpu": tokens, "framework": "sglang"}
    plain, both = (Setting.of(machine, "deepseek-v3", trace, known, overlap=name, **asked) for name in OVERLAPS)
    plan = plain.balanced(redundant)
    return plain.step(plan) / both.step(plan) - 1


def atom() -> float:
    """Return the same of nobody's plan on 8 MI355X."""
    trace = popular(384, 6, 0.79)
    asked: dict[str, Any] = {"phase": "prefill", "tokens_per_gpu": 8192}
    plain, both = (Setting.of("mi355x:1x8", "deepseek-v4-pro", trace, overlap=name, **asked) for name in OVERLAPS)
    steps = [replace(one, time=bf16(one.time)).step(one.contiguous()) for one in (plain, both)]
    return steps[0] / steps[1] - 1


def reduced() -> float:
    """Return the share of two all-reduces per layer that ATOM hid: 567 to 495 ms for 16,384 tokens on 8 GPUs."""
    time = Setting.of("mi355x:1x8", "deepseek-v4-pro", popular(384, 6, 0.4), phase="prefill", tokens_per_gpu=2048).time
    gb = 16_384 * time.model.shape.hidden_size * VECTOR_BYTES / 1e9
    both = sum(inside_ms(time.machine, name, gb, 8)[0] for name in ALL_REDUCE)
    return (567 - 495) / (2 * len(time.model.layout.moe_layers) * both)


def rows() -> list[str]:
    """Return the rows of the table."""
    found = [
        (
            "SGLang, DeepSeek-V3 on 4x8 H100, prefill, 8,192 tokens per GPU (fitted)",
            "+27 to +35 %",
            f"{100 * sglang('h100:4x8', 32, 'prefill', 8192):+.0f} %",
        ),
        (
            "SGLang, DeepSeek-V3, decode on 9x8 H100 (8x8 here), 32 tokens per GPU",
            "-27 %",
            f"{100 * sglang('h100:8x8', 64, 'decode', 32):+.0f} %",
        ),
        ("the same, 256 tokens per GPU", "+25.5 %", f"{100 * sglang('h100:8x8', 64, 'decode', 256):+.0f} %"),
        (
            "ATOM PR 1681, DeepSeek-V4-Pro on 8 MI355X, prefill of 16,384: share of the all-reduces hidden",
            f"{100 * reduced():.0f} %",
            f"{100 * HIDDEN:.0f} %",
        ),
        ("ATOM PR 1210, the same GPUs and model, EP8, 8,192 tokens per GPU", "-12 %", f"{100 * atom():+.0f} %"),
    ]
    return [f"| {' | '.join(row)} |" for row in found]


if __name__ == "__main__":
    print("| case | published | predicted |", "|---|---|---|", *rows(), sep="\n")
