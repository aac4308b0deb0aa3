"""What is asked of a grouping of requests: declared once, read by Python and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt, doc

from solvers.fields import SlotsPerGpu
from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations

if TYPE_CHECKING:
    from placement import Topology
else:  # help texts are made from the fields: the class itself takes long to import
    Topology = object

__all__ = ["GroupRequest"]


@dataclass(frozen=True, kw_only=True)
class GroupRequest:
    """Everything that is asked of a grouping but the trace.

    Attributes
    ----------
    topology : Topology or str
        Each GPU is a worker that has requests of its own, and holds experts.
    slots_per_gpu : int or None
        As many as hold every expert once by default; slots beyond stay empty.
    restarts : int
        Random groupings that the search begins with.
    hold_out : float
        Share of the requests to judge by.
    seed : int

    Raises
    ------
    InputError
        If a field is of another type or out of its range.
    """

    topology: Annotated[
        Topology | str, doc("4x8: 4 nodes of 8 GPUs; 8+8+4; PRESET:NODES such as hgx_h100:4; or a topology file.")
    ]
    slots_per_gpu: SlotsPerGpu = None
    restarts: Annotated[int, Ge(1), Le(10_000), doc("Random groupings that the search begins with.")] = 4
    hold_out: Annotated[float, Gt(0), Lt(1), doc("Share of the requests to judge by.")] = 0.5
    seed: Annotated[int, Ge(0), doc("Seed of the groupings to begin with, and of the bootstrap.")] = 0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        from placement import Topology as ATopology

        if isinstance(self.topology, str):
            try:
                object.__setattr__(self, "topology", ATopology.parse(self.topology))
            except InputError as error:
                found.extend(error)
        elif not isinstance(self.topology, ATopology):
            detail = f"{type(self.topology).__name__} is no Topology."
            found.add("wrong_type", "/topology", detail, "Give '4x8', say, or a placement.Topology.")
        found.raise_if_any()
