"""What is asked of a simulation of policies: declared once, read by Python and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le, doc

from solvers.requests.fields import (
    RedundantExperts,
    SlotsPerGpu,
    TokensPerGpu,
    check_plan,
    settle_engine,
    settle_topology,
)
from traces.support.declared import check_declared
from traces.support.errors import Violations
from traces.support.words import CutBy, Phase

if TYPE_CHECKING:
    from placement import Plan, Topology
else:  # help texts are made from the fields: the classes themselves take long to import
    Plan = Topology = object

__all__ = ["PolicyRequest"]


@dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    """Everything that is asked of a simulation but the series.

    Attributes
    ----------
    topology : Topology, str or None
        That of the machine by default; one of both is needed.
    machine : str or None
        GPUs and nodes, ``h200:4x8``; None: H200s in the nodes of the topology, which the notes say.
    model : str or None
        Name of a preset, or the path of a ``config.json``. None: the preset of the same layers and experts, else
        experts as large as DeepSeek-V3's, which the notes say.
    phase : {"prefill", "decode"}
        Decode by default: most passes of an engine, which its intervals count, are of that kind.
    tokens_per_gpu : int or None
        Of a forward pass: 4,096 in prefill and 128 in decode by default.
    engine, slots_per_gpu, redundant_experts
        See `solvers.Request`.
    plan : Plan or None
        The plan that runs at first; None: the engine's own layout when nobody plans.
    windows : int or None
    by : {"tokens", "source"} or None
        See `traces.Series.of`.
    window_passes : int
        Forward passes that a window stands for: what is recorded is a sample of them.
    horizon_windows : int
        Windows for which a new plan is expected to be good, at most.
    alpha : float
        Rate of false alarms of the test for drift.
    stall_ms : float or None
        What a re-plan stops the engine for, beside its transfers; 910 ms by default.
    seed : int

    Raises
    ------
    InputError
        If a field is of another type or out of its range, or there is neither topology nor machine.
    """

    topology: Annotated[
        Topology | str | None, doc("4x8: 4 nodes of 8 GPUs; 8+8+4; or a topology file; that of the machine by default.")
    ] = None
    machine: Annotated[
        str | None, doc("GPUs, nodes and GPUs per node: h200:4x8; H200s in the nodes of the topology by default.")
    ] = None
    model: Annotated[
        str | None, doc("Model by name, or the path of its config.json; the known one of these layers by default.")
    ] = None
    phase: Annotated[Phase, doc("Phase whose passes are timed.")] = "decode"
    tokens_per_gpu: TokensPerGpu = None
    engine: Annotated[str | None, doc("Engine that serves, as in sglang: its layout, how tokens travel.")] = None
    slots_per_gpu: SlotsPerGpu = None
    redundant_experts: RedundantExperts = None
    plan: Annotated[Plan | None, doc("Plan that runs at first; the engine's own layout by default.")] = None
    windows: Annotated[
        int | None, Ge(2), Le(1000), doc("Windows in time; by default one per dump or source, or 10 of one trace.")
    ] = None
    by: Annotated[
        CutBy | None,
        doc("How tokens are cut: runs of consecutive tokens, or one source per window, in turn; source if there are."),
    ] = None
    window_passes: Annotated[
        int, Ge(1), Le(1_000_000_000), doc("Forward passes that a window stands for, as between two re-plans.")
    ] = 1000
    horizon_windows: Annotated[
        int, Ge(1), Le(1000), doc("Windows for which a new plan is expected to be good, at most.")
    ] = 3
    alpha: Annotated[float, Ge(0.001), Le(0.5), doc("Rate of false alarms of the test for drift.")] = 0.05
    stall_ms: Annotated[
        float | None, Ge(0), doc("What a re-plan stops the engine for, beside its transfers; 910 ms by default.")
    ] = None
    seed: Annotated[int, Ge(0), doc("Seed of permutations and splits.")] = 0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        if self.topology is None and self.machine is None:
            detail = "Plans need a machine."
            found.add("topology_missing", "/topology", detail, "Give '4x8', say, or the machine 'h200:4x8'.")
        settle_topology(self, found)
        check_plan(self.plan, "/plan", found)
        for name in ("slots_per_gpu", "redundant_experts") if self.plan is not None else ():
            if getattr(self, name) is not None:
                detail = "The plan that runs says how many slots there are."
                found.add("without_effect", f"/{name}", detail, "Leave it out.")
        choice = settle_engine(self, found)
        if choice is not None and choice.engine.execution != "dispatch":
            detail = "Its tokens go straight from layer to layer, and plans here balance loads alone."
            found.add("execution", "/engine", detail, "Name an engine that dispatches, or leave it out.")
        found.raise_if_any()

    def of_series(self) -> PolicyRequest:
        """Return the same for a series that is cut already, as was asked."""
        return replace(self, windows=None, by=None)
