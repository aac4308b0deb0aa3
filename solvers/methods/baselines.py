"""Plans that need no search: what engines do when nobody plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from placement import Problem
from solvers.arrange.conform import conform
from solvers.searching.search import Search

__all__ = ["Contiguous", "Random", "RoundRobin"]


@dataclass(frozen=True, kw_only=True)
class Contiguous:
    """Expert e on GPU ``e // (E / G)``: the engines' linear placement."""

    name: ClassVar[str] = "contiguous"
    summary: ClassVar[str] = "Experts in order, an equal block per GPU: the default of every engine."

    def supports(self, problem: Problem) -> str | None:
        """Every problem is supported."""
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan."""
        gpu = np.arange(problem.num_experts) * problem.num_gpus // problem.num_experts
        search.offer(conform(problem, np.tile(gpu, (problem.num_layers, 1))))


@dataclass(frozen=True, kw_only=True)
class RoundRobin:
    """Expert e on GPU ``e % G``."""

    name: ClassVar[str] = "round_robin"
    summary: ClassVar[str] = "Experts dealt out in turn: vLLM's round_robin placement."

    def supports(self, problem: Problem) -> str | None:
        """Every problem is supported."""
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan."""
        gpu = np.arange(problem.num_experts) % problem.num_gpus
        search.offer(conform(problem, np.tile(gpu, (problem.num_layers, 1))))


@dataclass(frozen=True, kw_only=True)
class Random:
    """A random plan with equal counts."""

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "A random placement with equal counts per GPU: the null case."

    def supports(self, problem: Problem) -> str | None:
        """Every problem is supported."""
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan."""
        rng = np.random.default_rng([search.seed, 0x52414E44])
        dealt = np.arange(problem.num_experts) % problem.num_gpus
        search.offer(conform(problem, np.stack([rng.permutation(dealt) for _ in range(problem.num_layers)])))
