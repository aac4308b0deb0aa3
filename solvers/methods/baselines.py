"""Plans that need no search: what engines do when nobody plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.engines.engine import Layout
from placement.engines.layout import default_slots
from solvers.arrange.conform import conform
from solvers.arrange.in_order import in_order
from solvers.searching.search import Search
from traces import InputError

__all__ = ["Contiguous", "Random", "RoundRobin"]


@dataclass(frozen=True, kw_only=True)
class Contiguous:
    """Experts in order: the layout that an engine has before anybody plans.

    Attributes
    ----------
    layout : {"contiguous", "modulo", "overlapping"}
        What spare slots hold; see `placement.engines.layout.default_slots`. ``contiguous``: nothing. ``modulo``: slot s
        of a layer holds expert ``s % E``, as in vLLM. ``overlapping``: the experts that follow, as in TensorRT-LLM.
    """

    layout: Layout = "contiguous"

    name: ClassVar[str] = "contiguous"
    summary: ClassVar[str] = "Experts in order, an equal block per GPU: what happens when nobody plans."

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            detail = f"{self.layout!r} is not one of {list(get_args(Layout))}."
            raise InputError.of("unknown_choice", "/options/layout", detail, "Choose one of them.")

    def supports(self, problem: Problem) -> str | None:
        """Every problem with the contiguous layout; layouts that fill spare slots need a problem that lets them."""
        if self.layout == "contiguous":
            return None
        if not problem.is_free:
            return f"the {self.layout!r} layout knows no pins, exclusions, groups, uneven slots or budgets of replicas."
        if problem.constraints.distinct_replicas:
            for gpu, held in enumerate(self._row(problem).reshape(problem.num_gpus, -1)):
                if len(np.unique(held)) < len(held):
                    return f"the {self.layout!r} layout puts two replicas of an expert on GPU {gpu}."
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan."""
        filled = self.layout != "contiguous"
        search.offer(np.tile(self._row(problem), (problem.num_layers, 1)) if filled else in_order(problem, search))

    def _row(self, problem: Problem) -> npt.NDArray[np.int32]:
        slots = default_slots(self.layout, problem.num_experts, problem.num_gpus, problem.slots_per_gpu)
        return np.array(slots, dtype=np.int32)


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
        search.offer(conform(problem, np.tile(gpu, (problem.num_layers, 1)), search))


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
        search.offer(conform(problem, np.stack([rng.permutation(dealt) for _ in range(problem.num_layers)]), search))
