"""MoETuner's two integer programmes, a published baseline for load and inter-layer traffic.

References
----------
MoETuner, arXiv 2502.06643; ``docs/methods/moetuner.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from placement import Problem
from solvers.arrange.conform import pack
from solvers.methods.moetuner.clusters import Clusters, balance_exactly, heaviest_first, whole_loads
from solvers.methods.moetuner.mapping import assign_in_turns, busiest_links, link_times, map_exactly, transitions
from solvers.searching.search import Search
from solvers.searching.threads import run_together
from traces import Violations

__all__ = ["MoeTuner"]

Ints = npt.NDArray[np.int64]
MOST_GPUS = 8  # 40,320 permutations per layer


@dataclass(frozen=True, kw_only=True)
class MoeTuner:
    """Clusters of equal size and nearly equal load, then clusters to GPUs so that the busiest link has little to carry.

    Each programme is solved exactly where it is small, and by a heuristic elsewhere; the plan's notes say which. One
    plan is offered, that of the method, even where another one would score better under the problem's own objective.

    Attributes
    ----------
    method : {"auto", "exact", "assignment"}
        "exact": CP-SAT and dynamic programming. "assignment": LPT and linear assignment. "auto": each programme exactly
        if it is within the two limits.
    max_gpus : int
        Most GPUs for the dynamic programme over G! permutations per layer; at most 8.
    max_binaries : int
        Largest first programme that "auto" solves exactly, in binaries ``E G`` per layer.
    """

    method: Literal["auto", "exact", "assignment"] = "auto"
    max_gpus: int = 6
    max_binaries: int = 2048

    name: ClassVar[str] = "moetuner"
    summary: ClassVar[str] = (
        "MoETuner's two programmes (arXiv 2502.06643): balanced clusters, then the busiest link between layers."
    )

    def __post_init__(self) -> None:
        found = Violations()
        if not 1 <= self.max_gpus <= MOST_GPUS:
            detail = f"{self.max_gpus} GPUs have no or too many permutations."
            found.add("option_range", "/options/max_gpus", detail, f"Give 1 to {MOST_GPUS}.")
        if self.max_binaries < 1:
            found.add("option_range", "/options/max_binaries", f"{self.max_binaries} binaries.", "Give at least 1.")
        found.raise_if_any()

    def supports(self, problem: Problem) -> str | None:
        """Transitions between layers, and the same room on every GPU."""
        constraints = problem.constraints
        if problem.profile.affinity is None:
            return "its second programme needs the transitions between layers, which counts per expert don't tell."
        if constraints.pins or constraints.forbidden or constraints.groups:
            return "it knows no pins, exclusions or groups."
        if problem.sizes.survival is not None:
            return "it does not know what has to survive."
        most = -(-problem.num_experts // problem.num_gpus)
        if problem.capacity.min() < most:
            return f"it puts equal counts on all GPUs, up to {most} experts, but some have fewer slots."
        if self.method == "exact" and problem.num_gpus > self.max_gpus:
            return (
                f"{problem.num_gpus} GPUs have too many permutations for the exact method (max_gpus = {self.max_gpus})."
            )
        return None

    def run(self, problem: Problem, search: Search) -> None:
        """Offer the plan of the two programmes."""
        affinity = problem.profile.affinity
        assert affinity is not None
        if problem.objective.execution == "dispatch":
            search.note("Under dispatch, pairs of layers move no bytes: of this method, only the balance counts.")
        clusters = self._clusters(problem, search.part(0.5, 0))
        of_expert = np.stack([layer.of_expert for layer in clusters])
        counts, link_time = transitions(affinity, of_expert, problem.num_gpus), link_times(problem.topology)
        gpu = self._map(counts, link_time, search.part(1.0, 1, work_share=0.5))
        experts = np.tile(np.arange(problem.num_experts), (problem.num_layers, 1))
        where = np.take_along_axis(gpu, of_expert, axis=1)
        search.offer(pack(experts, where, problem.num_gpus, problem.slots_per_gpu))

    def _clusters(self, problem: Problem, search: Search) -> list[Clusters]:
        """Solve the first programme of every layer."""
        G, layers = problem.num_gpus, range(problem.num_layers)
        loads = [whole_loads(row) for row in problem.profile.load]
        small = problem.num_experts * G <= self.max_binaries
        if self.method == "assignment" or (self.method == "auto" and not small):
            search.note("Programme 1 (balanced clusters): heaviest expert first (LPT) with equal sizes; no proof.")
            return [Clusters(heaviest_first(load, G), proven=False) for load in loads]

        def task(layer: int) -> Callable[[], Clusters]:
            def run() -> Clusters:
                at_once = min(1.0, search.workers / (len(loads) - layer))
                part = search.part(at_once, layer, work_share=1 / len(loads))
                return balance_exactly(loads[layer], G, part)

            return run

        clusters = run_together(search, [task(layer) for layer in layers])
        proven = sum(layer.proven for layer in clusters)
        rest = "" if proven == len(loads) else "; the others have the best clusters found within the limit"
        search.note(f"Programme 1 (balanced clusters): CP-SAT, {proven} of {len(loads)} layers proven optimal{rest}.")
        return clusters

    def _map(self, counts: npt.NDArray[np.float64], link_time: npt.NDArray[np.float64], search: Search) -> Ints:
        """Solve the second programme."""
        G = len(link_time)
        gpu = assign_in_turns(counts, link_time, search)
        if self.method != "assignment" and self.max_gpus >= G:
            exact = map_exactly(counts, link_time, search)
            if exact is not None:
                value = busiest_links(counts, link_time, exact)
                search.note(
                    "Programme 2 (clusters to GPUs): dynamic programme over all permutations, proven optimal for these "
                    f"clusters; busiest links {value:.6g}."
                )
                return exact
            why = "the limit ended the dynamic programme"
        else:
            why = "chosen" if self.method == "assignment" else f"{G} GPUs are more than max_gpus = {self.max_gpus}"
        value = busiest_links(counts, link_time, gpu)
        search.note(
            f"Programme 2 (clusters to GPUs): linear assignment in turns ({why}), no proof; busiest links {value:.6g}."
        )
        return gpu
