"""Balance per forward pass, as engines log it: the mean over passes of a ratio, not the ratio of sums over a trace.

A pass is stood in for by so many consecutive tokens of the trace. Within one, few experts have most of the tokens, and
which these are changes from pass to pass: over a whole trace that evens out, in an engine it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import Violations

__all__ = [
    "MAX_PASS_TOKENS",
    "MAX_SIZES",
    "PASS_TOKENS",
    "PassFigures",
    "Passes",
    "refuse_long_passes",
    "settled_pass_tokens",
]

PASS_TOKENS = (64, 256, 2048)  # a decode batch, a large one, a chunk of prefill
MAX_PASS_TOKENS = 1_000_000
MAX_SIZES = 16
Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class PassFigures:
    """Balance of the GPUs in forward passes of one size, mean over passes.

    Attributes
    ----------
    pass_tokens : int
        Consecutive tokens of a pass, of all ranks together.
    passes : int
        Whole passes with an assignment; the tokens that are left at the end make none.
    balancedness_vllm : float or None
        Of a pass: sum over layers of the mean load by the sum of the maxima, as ``log_balancedness`` of vLLM logs it.
        None where there is no pass.
    utilization_sglang : float or None
        Of a pass: mean over layers of the mean load by the largest, as SGLang's recorder logs it.
    imbalance_trtllm : float or None
        Of a pass: mean over layers of (largest - mean) / mean, the imbalance of TensorRT-LLM.
    """

    pass_tokens: int
    passes: int
    balancedness_vllm: float | None
    utilization_sglang: float | None
    imbalance_trtllm: float | None


def settled_pass_tokens(pass_tokens: Sequence[int], pointer: str = "/pass_tokens") -> tuple[int, ...]:
    """Return the sizes of passes that are asked for, each once; those of `PASS_TOKENS` where none is.

    Raises
    ------
    InputError
        If one is no whole number of 1 to 1,000,000 tokens, or there are more than 16.
    """
    found = Violations()
    given: Sequence[Any] = pass_tokens
    for number, size in enumerate(given):
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= MAX_PASS_TOKENS:
            detail = f"{size!r:.40} is no number of tokens between 1 and {MAX_PASS_TOKENS:,}."
            found.add("pass_tokens_range", f"{pointer}/{number}", detail, "Give the tokens of a forward pass.")
    if len(pass_tokens) > MAX_SIZES:
        detail = f"{len(pass_tokens)} sizes of passes."
        found.add("pass_tokens_range", pointer, detail, f"Give at most {MAX_SIZES}.")
    found.raise_if_any()
    return tuple(dict.fromkeys(int(size) for size in pass_tokens)) or PASS_TOKENS


def refuse_long_passes(pass_tokens: Sequence[int], tokens: int, what: str) -> None:
    """Refuse sizes of passes, as they are asked for, of which so many tokens make none.

    Raises
    ------
    InputError
    """
    found = Violations()
    for number, size in enumerate(pass_tokens):
        if size > tokens:
            detail = f"{what} holds {tokens:,} tokens, which make no pass of {size:,}."
            found.add("pass_tokens_range", f"/pass_tokens/{number}", detail, "Give smaller passes, or more tokens.")
    found.raise_if_any()


@dataclass
class _Size:
    """Sums over the passes of one size; `load` is that of the pass that has begun, (L, G)."""

    tokens: int
    load: Ints
    passes: int = 0
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


class Passes:
    """Cuts a stream of tokens into passes of several sizes, and adds up the figures of each.

    Parameters
    ----------
    sizes : tuple of int
        Tokens per pass.
    layers, gpus : int
    """

    def __init__(self, sizes: tuple[int, ...], layers: int, gpus: int) -> None:
        self.position = 0
        self._sizes = [_Size(size, np.zeros((layers, gpus), np.int64)) for size in sizes]

    def bounds(self, count: int) -> npt.NDArray[np.int64]:
        """Return where the next `count` tokens are cut, from 0 to `count`: no cell lies in two passes of any size."""
        start, stop = self.position, self.position + count
        cuts = [
            np.arange(start // size.tokens + 1, (stop - 1) // size.tokens + 1) * size.tokens for size in self._sizes
        ]
        return np.unique(np.concatenate([[start, stop], *cuts])).astype(np.int64) - start

    def add(self, bounds: npt.NDArray[np.int64], loads: Ints) -> None:
        """Take in the next tokens.

        Parameters
        ----------
        bounds : (C + 1,) int64
            As `bounds` returned them.
        loads : (C, L, G) integers
            Assignments of each cell.
        """
        ends = self.position + bounds[1:]
        for size in self._sizes:
            number = (ends - 1) // size.tokens
            starts = np.flatnonzero(np.r_[True, np.diff(number) != 0])
            groups = np.add.reduceat(loads, starts, axis=0, dtype=np.int64)
            groups[0] += size.load
            whole = len(groups) if ends[-1] % size.tokens == 0 else len(groups) - 1
            size.load = groups[whole] if whole < len(groups) else np.zeros_like(size.load)
            _count(size, groups[:whole])
        self.position = int(ends[-1])

    def figures(self) -> tuple[PassFigures, ...]:
        """Return the means over the passes so far."""
        found = []
        for size in self._sizes:
            vllm, sglang, trtllm = (float(value) / size.passes if size.passes else None for value in size.sums)
            found.append(
                PassFigures(
                    pass_tokens=size.tokens,
                    passes=size.passes,
                    balancedness_vllm=vllm,
                    utilization_sglang=sglang,
                    imbalance_trtllm=trtllm,
                )
            )
        return tuple(found)


def _count(size: _Size, loads: Ints) -> None:
    """Add the figures of whole passes (P, L, G); layers without an assignment are left out of a pass."""
    largest, mean = loads.max(axis=2), loads.mean(axis=2)
    there = largest > 0
    layers = there.sum(axis=1)
    some = layers > 0
    largest, mean, there, layers = largest[some], mean[some], there[some], layers[some]
    evenness = np.divide(mean, largest, out=np.zeros(mean.shape), where=there)
    excess = np.divide(largest, mean, out=np.ones(mean.shape), where=there) - 1
    size.passes += len(layers)
    size.sums += [
        (mean.sum(axis=1) / largest.sum(axis=1)).sum(),
        (evenness.sum(axis=1) / layers).sum(),
        (excess.sum(axis=1) / layers).sum(),
    ]
