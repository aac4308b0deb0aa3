"""What is asked of a grouping of requests: declared once, read by Python and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt, doc

from solvers.requests.fields import (
    SlotsPerGpu,
    TokensPerGpu,
    check_timed,
    settle_topology,
    time_model_of,
    topology_of_machine,
)
from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations
from traces.support.words import Phase

if TYPE_CHECKING:
    from placement import Topology
    from placement.time import TimeModel
else:  # help texts are made from the fields: the class itself takes long to import
    Topology = object

__all__ = ["GroupRequest"]


@dataclass(frozen=True, kw_only=True)
class GroupRequest:
    """Everything that is asked of a grouping but the trace.

    Attributes
    ----------
    topology : Topology, str or None
        Each GPU is a worker that has requests of its own, and holds experts; None: that of the machine.
    machine, model : str or None
        To tell the time of a forward pass of each way as well: see `AdviceRequest`. Groups and plans are searched for
        by hops and loads all the same.
    phase : {"prefill", "decode"} or None
        Decode by default: requests keep their worker after the prefill, by which they are known.
    tokens_per_gpu : int or None
        Of a timed pass.
    slots_per_gpu : int or None
        As many as hold every expert once by default; slots beyond stay empty.
    imbalance_weight : float or None
        Weight of the busiest GPU's load over the mean, beside the hops, as `Objective` has it: 30 by default, and 0
        for hops alone.
    restarts : int
        Random groupings that the search begins with.
    hold_out : float
        Share of the requests to judge by.
    seed : int

    Raises
    ------
    InputError
        If a field is of another type or out of its range, or has no effect.
    """

    topology: Annotated[
        Topology | str | None,
        doc("4x8: 4 nodes of 8 GPUs; 8+8+4; PRESET:NODES; or a topology file; that of the machine by default."),
    ] = None
    machine: Annotated[
        str | None, doc("GPUs, nodes and GPUs per node, h200:4x8, to tell milliseconds as well; with a model.")
    ] = None
    model: Annotated[str | None, doc("Model by name, such as deepseek-v3, or its config.json; with a machine.")] = None
    phase: Annotated[Phase | None, doc("Phase whose passes are timed; decode by default.")] = None
    tokens_per_gpu: TokensPerGpu = None
    slots_per_gpu: SlotsPerGpu = None
    imbalance_weight: Annotated[float | None, Ge(0), doc("Weight of the busiest GPU's load over the mean.")] = None
    restarts: Annotated[int, Ge(1), Le(10_000), doc("Random groupings that the search begins with.")] = 4
    hold_out: Annotated[float, Gt(0), Lt(1), doc("Share of the requests to judge by.")] = 0.5
    seed: Annotated[int, Ge(0), doc("Seed of the groupings to begin with, and of the bootstrap.")] = 0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        check_timed(self, found)
        if self.machine is not None and self.topology is not None:
            detail = "The machine says how its GPUs form nodes."
            found.add("without_effect", "/topology", detail, "Give the machine or the topology.")
        if self.machine is None and self.topology is None:
            detail = "A plan needs a machine."
            found.add("topology_missing", "/topology", detail, "Give '1x8' or '4x8', say, or machine and model.")
        settle_topology(self, found)
        if self.machine is not None and self.model is not None and self.topology is None:
            try:
                timed = time_model_of(self, "decode")
                assert timed is not None
                own = topology_of_machine(self.machine, lambda: timed)
                object.__setattr__(self, "topology", own)
            except InputError as error:
                found.extend(error)
        found.raise_if_any()

    def time_model(self) -> TimeModel | None:
        """Return the time model, None where nothing is to be timed.

        Raises
        ------
        InputError
            If machine or model are not known.
        """
        return time_model_of(self, "decode")
