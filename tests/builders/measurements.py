"""Tables of measurements of a kernel that is known."""

from __future__ import annotations

import csv
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from placement.time import ExpertKernel, FittedError
from traces.model.shape import ModelShape

__all__ = ["rows_of", "written"]

TRUTH = ExpertKernel(
    gpu="h200",
    name="mine",
    phase="any",
    dtype="bfloat16",
    floor_ms=0.4,
    ms_per=MappingProxyType({"launch": 0.1, "weights": 0.2, "tile64": 1.5}),
    error=FittedError(median=0, p90=0, left_out="", rows=0),
    source="",
)
SHAPE = ModelShape(hidden_size=4096, expert_input=4096, intermediate_size=1536, num_experts=64, top_k=8)


def rows_of(seed: int, noise: float = 0.0) -> list[dict[str, Any]]:
    """Return a table of a known kernel: tokens of each expert, and the time that it takes."""
    rng = np.random.default_rng(seed)
    rows = []
    for ranks in (4, 8, 16):
        for skew in ("even", "steep"):
            for tokens in (16, 64, 256, 1024, 4096):
                for _ in range(3):
                    shares = rng.dirichlet(np.full(64 // ranks, 9.0 if skew == "even" else 0.4))
                    counts = rng.multinomial(tokens * 8, shares)
                    ms = float(TRUTH.rank_ms(counts, tokens, SHAPE)) * np.exp(noise * rng.normal())
                    rows.append(
                        {
                            "device": "NVIDIA H200",
                            "kernel_source": "mine",
                            "moe_dtype": "bfloat16",
                            "num_tokens": tokens * ranks,
                            "hidden_size": 4096,
                            "inter_size": 1536,
                            "topk": 8,
                            "num_experts": 64,
                            "moe_ep_size": ranks,
                            "distribution": skew,
                            "tokens_per_expert": " ".join(map(str, counts)),
                            "latency": ms,
                        }
                    )
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a CSV table."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path
