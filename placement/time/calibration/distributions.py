"""What the tables' distributions are: the tokens of each expert of the rank that was timed.

The names (``uniform``, ``balanced``, ``power_law_1.2``, ``power_law_1.2_eplb``) say little. This module holds what was
found out about the collector that made the tables, each point checked against their numbers, see docs/time.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.time.calibration.kernels.draws import draw_busiest

__all__ = ["DRAWS", "Rule", "Workload", "histograms", "rule_of"]

Rule = Literal["largest", "smallest", "ranks"]
RULES: tuple[Rule, ...] = ("largest", "smallest", "ranks")
DRAWS = 100
NEAREST = 8
POWER_LAW = re.compile(r"power_law_(\d+(?:\.\d+)?)(_eplb)?$")


def rule_of(framework: str, version: str, gpu: str) -> Rule:
    """Return how a table's counts were corrected to the pairs of a pass.

    ``largest``: missing tokens go to the largest experts, which may get more than there are (collector of 2025).
    ``smallest``: nobody gets more than the tokens there are; what is over and what is missing goes to the smallest.
    ``ranks``: the same, but every rank in turn (since April 2026). Where a table's date leaves two possible, the one
    under which its recorded tokens per rank, or its smallest passes, are what they are.
    """
    framework = framework.lower()
    if framework == "sglang":
        if version.startswith("0.5.6"):
            return "largest"
        return "smallest" if version == "0.5.10" and gpu in ("h200", "b200") else "ranks"
    if framework == "trtllm" and version == "1.3.0rc10" and gpu != "rtx-pro-6000":
        return "smallest"
    return "ranks"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a row of a table says of its tokens.

    Attributes
    ----------
    distribution : str
    tokens : int
        Of all ranks together.
    experts, top_k, ranks, slots : int
        E, K, EP size, and S of all ranks.
    rule : Rule
    decode : bool
        Whether uniform counts below one are single tokens on the first experts.
    """

    distribution: str
    tokens: int
    experts: int
    top_k: int
    ranks: int
    slots: int
    rule: Rule
    decode: bool = False


@lru_cache(maxsize=50_000)
def _drawn(workload: Workload, draws: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    match = POWER_LAW.match(workload.distribution)
    assert match is not None
    counts, rows = draw_busiest(
        workload.tokens,
        workload.experts,
        workload.top_k,
        workload.ranks,
        workload.slots,
        float(match[1]),
        RULES.index(workload.rule),
        match[2] is not None,
        draws,
        np.random.default_rng(workload.tokens),
    )
    return counts.astype(np.int32), rows


def histograms(
    workload: Workload, received: int | None = None, draws: int = DRAWS
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]] | None:
    """Return likely tokens per expert slot of the timed rank, (draws, C), and the distinct tokens it gets, (draws,).

    Parameters
    ----------
    workload : Workload
    received : int, optional
        Distinct tokens that the rank had, where the table records it: only the draws nearest to it are returned, at
        least `NEAREST` of them.
    draws : int

    Returns
    -------
    tuple, or None
        None for a distribution that is not known.
    """
    width = workload.slots // workload.ranks
    if workload.distribution == "uniform":
        each = workload.tokens * workload.top_k // workload.experts
        counts = np.full(width, each)
        if each == 0:
            counts[: min(width, workload.tokens * workload.top_k // workload.ranks)] = 1 if workload.decode else 0
        return counts[None], np.array([workload.tokens])
    if workload.distribution == "balanced":
        return _strided(workload, width)
    if POWER_LAW.match(workload.distribution) is None:
        return None
    counts, rows = _drawn(workload, draws)
    if received is not None:
        away = np.abs(rows - received)
        near = away <= np.sort(away)[NEAREST - 1]  # of equally near ones all: any choice would be another draw
        return counts[near], np.full(int(near.sum()), received)
    return counts, rows


def _strided(workload: Workload, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first rank's counts where token t uses every (E/K)-th expert from t on."""
    tokens, experts, top_k = workload.tokens, workload.experts, workload.top_k
    stride = -(-experts // top_k)
    first = np.arange(tokens) if tokens >= stride else np.arange(tokens) * stride / tokens
    chosen = ((first[:, None] + np.arange(top_k) * stride) % experts).astype(np.int64)
    counts = np.bincount(chosen[chosen < width], minlength=width)
    return counts[None], np.array([(chosen < width).any(axis=1).sum()])
