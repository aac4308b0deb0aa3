"""What is asked of a plan, or of a front of plans: declared once, read by Python, the command line and REST alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, Unit, doc

from placement.problem.constraints import Constraints
from placement.problem.objective import Objective
from solvers.requests.fields import (
    MAX_SLOTS,
    ExpertBytes,
    HoldOutOf,
    RedundantExperts,
    SlotsPerGpu,
    check_plan,
    settle_engine,
    settle_topology,
)
from solvers.requests.served import Timed
from solvers.searching.limits import Limits
from traces.support.declared import check_declared
from traces.support.errors import InputError, Violations
from traces.support.kinds import check_names

if TYPE_CHECKING:
    from placement import Plan, Topology
else:  # help texts are made from the fields: the classes themselves take long to import
    Plan = Topology = object

__all__ = ["Against", "FrontRequest", "Request", "asked_of", "request_of"]

TOPOLOGY = "4x8: 4 nodes of 8 GPUs; 8+8+4; PRESET:NODES such as hgx_h100:4; or a topology file."
Against = Literal["imbalance", "replicas", "bytes_moved", "survival"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that is asked of a plan but the trace.

    Attributes
    ----------
    topology : Topology, str or None
        Shorthand such as ``4x8`` is parsed. None: that of the machine that `time` names.
    engine : str or None
        Engine to plan for, ``sglang`` or ``sglang:static`` say. None: the engine that recorded the trace, where its
        format tells; else nobody's, and tokens go straight from layer to layer unless `objective` says otherwise.
    slots_per_gpu, redundant_experts, expert_bytes, objective, constraints
        See `placement.Problem`.
    time : Timed
        Machine and model, if milliseconds per forward pass are to be minimised; hop costs and weights otherwise.
    hold_out : float or None
        Share to hold out; 0 fits on everything. None: 0.5 if the source has tokens or several dumps, else 0.
    hold_out_by : {"sequence", "time", "source"} or None
        Of what the share is; see `traces.Trace.split`. None: of sequences; of counts, the last dumps over time.
    pass_tokens : tuple of int
        Tokens of a forward pass, for the balance per pass of the comparison; 64, 256 and 2,048 if it is empty.
    baseline : str or None
        Solver whose plan stands beside the one that is found. None: the engine's own layout when nobody plans.
    solver : str
        Name; see `solvers.names`.
    options : mapping
        Parameters of the solver.
    limits : Limits
        Of each seed's search.
    seed, seeds : int
        First seed, and how many: the best plan of all of them counts.
    start : Plan or None
        Plan to start from; the result is never worse.

    Raises
    ------
    InputError
        If a field is of another type or out of its range.
    """

    topology: Annotated[Topology | str | None, doc(TOPOLOGY)] = None
    engine: Annotated[
        str | None, doc("Engine to plan for, as in sglang or sglang:static: how tokens travel, replicas, its file.")
    ] = None
    slots_per_gpu: SlotsPerGpu = None
    redundant_experts: RedundantExperts = None
    expert_bytes: ExpertBytes = None
    objective: Objective = field(default_factory=Objective)
    constraints: Constraints = field(default_factory=Constraints)
    time: Timed = field(default_factory=Timed)
    limits: Limits = field(default_factory=Limits)
    solver: Annotated[str, doc("Method; see `solvers`.")] = "auto"
    options: Annotated[Mapping[str, Any], doc("Parameters of the solver.")] = field(default_factory=dict, hash=False)
    hold_out: Annotated[
        float | None, Ge(0), Lt(1), doc("Share to hold out; 0.5 by default where there are tokens or several dumps.")
    ] = None
    hold_out_by: HoldOutOf = None
    pass_tokens: Annotated[
        tuple[int, ...],
        Unit("tokens"),
        doc("Tokens of a forward pass, for balance per pass as engines log it; 64, 256 and 2,048 by default."),
    ] = ()
    baseline: Annotated[
        str | None, doc("Solver to compare with; by default the engine's own layout when nobody plans.")
    ] = None
    seed: Annotated[int, Ge(0), doc("Seed of the search.")] = 0
    seeds: Annotated[int, Ge(1), Le(100_000), doc("Search with so many seeds and keep the best plan.")] = 1
    start: Annotated[Plan | None, doc("Plan to start from.")] = None

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        settle_topology(self, found, needed=not self.time)
        try:
            from placement.replay.passes import settled_pass_tokens

            settled_pass_tokens(self.pass_tokens)
        except InputError as error:
            found.extend(error)
        check_plan(self.start, "/start", found)
        settle_engine(self, found)
        if self.time and not found.found:
            settle_timed(self, found)
        found.raise_if_any()

    @property
    def machine(self) -> Topology:
        """The topology, parsed."""
        assert not isinstance(self.topology, str)
        assert self.topology is not None
        return self.topology


@dataclass(frozen=True, kw_only=True)
class FrontRequest(Request):
    """Everything that is asked of a front but the trace: many plans at once.

    Attributes
    ----------
    against : {"imbalance", "replicas", "bytes_moved", "survival"}
        What traffic is weighed against.
    points : int
        Searches, and most points.
    num_groups : int or None
        Expert groups of the router, for hierarchical EPLB.
    limits : Limits
        Time and work are those of all searches of a seed together; 60 s by default.
    """

    topology: Annotated[Topology | str, doc(TOPOLOGY)] = field()  # no machine stands in
    against: Annotated[Against, doc("What traffic is weighed against.")] = "imbalance"
    time: Timed = field(default_factory=Timed, init=False)  # a front weighs hop costs against each other
    points: Annotated[int, Ge(3), Le(64), doc("Searches, and most points.")] = 9
    num_groups: Annotated[
        int | None, Ge(1), Le(MAX_SLOTS), doc("Expert groups of the router (DeepSeek-V3: 8), for EPLB.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "limits", self.limits.of_front())
        if self.against == "bytes_moved" and self.start is None:
            detail = "Bytes moved are counted from the plan that runs now."
            raise InputError.of("start_missing", "/start", detail, "Give that plan as start.")


def settle_timed(request: Request, found: Violations) -> None:
    """Write the machine's topology out where none is given; report one of other nodes, and weights."""
    time, objective = request.time, request.objective
    try:
        own = time.topology(request.engine)
    except InputError as error:
        found.extend(error)
        return
    if request.topology is None:
        object.__setattr__(request, "topology", own)
    elif own.gpus_per_node != request.machine.gpus_per_node:
        sizes = list(request.machine.gpus_per_node)
        detail = f"{time.machine} has nodes of {list(own.gpus_per_node)} GPUs, the topology of {sizes}."
        found.add("nodes_differ", "/time/machine", detail, "Leave the topology out: it follows from the machine.")
    names = ("traffic_weight", "imbalance_weight", "load_spread_weight", "activated_weight")
    for name in names:
        if getattr(objective, name) not in (None, getattr(Objective(), name)):
            detail = f"Time says what counts: {name} has no effect."
            found.add("without_effect", f"/objective/{name}", detail, "Leave it out, or name no machine.")


def asked_of(request: Request | None, topology: Topology | str | None, asked: Mapping[str, Any]) -> Request:
    """Return a request that was given whole, or by its fields.

    Raises
    ------
    InputError
        If it was given in both ways, or in neither.
    """
    if request is None:
        if topology is None and not asked.get("time"):
            detail = "A plan needs a machine."
            raise InputError.of("topology_missing", "/topology", detail, "Give one, such as '1x8' or '4x8'.")
        made: Request = request_of(Request, topology=topology, **asked)
        return made
    if topology is not None or asked:
        detail = "A request says everything already."
        raise InputError.of("request_twice", "/request", detail, "Give the request or its fields, not both.")
    return request


def request_of(kind: type[Request], **asked: Any) -> Any:
    """Return a request from its fields; unknown ones are refused with the name that is meant, most likely.

    Raises
    ------
    InputError
    """
    check_names(asked, kind, "a request")
    return kind(**asked)
