"""What is asked of a plan for several domains: declared once, read by Python and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, doc

from placement.problem.constraints import Constraints
from placement.problem.objective import Objective
from solvers.requests.fields import ExpertBytes, RedundantExperts, SlotsPerGpu, TokensPerGpu, check_timed, time_model_of
from solvers.requests.request import Request
from solvers.searching.limits import Limits
from traces.support.declared import check_declared
from traces.support.errors import Violations
from traces.support.words import Phase

if TYPE_CHECKING:
    from placement import Topology
    from placement.time import TimeModel
else:  # help texts are made from the fields: the class itself takes long to import
    Topology = object

__all__ = ["MAX_DOMAINS", "MixtureRequest", "Over"]

MAX_DOMAINS = 64  # sources of one trace, or traces sent to a service: each has a profile and a search of its own

Over = Literal["worst", "weighted", "quantile"]


@dataclass(frozen=True, kw_only=True)
class MixtureRequest:
    """Everything that is asked of a plan for several domains but their traces.

    Attributes
    ----------
    over : {"worst", "weighted", "quantile"}
        What is minimised over the domains: the cost of the worst one; the mean by `weights`; or the cost that domains
        of so much weight stay below.
    quantile : float or None
        With ``quantile``: how much weight.
    weights : tuple of float
        Of the domains in their order; by their tokens where it is empty. Under ``worst`` they are where the search
        begins, and what the pooled plan is made for.
    rounds : int
        Searches for the mixture, each with other weights; one is enough for ``weighted``.
    limits : Limits
        Of each search. There is one per round, one per domain, and one for the pooled plan.
    machine, model : str or None
        To tell the time of a forward pass of each domain as well: see `AdviceRequest`. Plans are searched for and
        compared by the objective all the same.
    phase : {"prefill", "decode"} or None
    tokens_per_gpu : int or None
        Of a timed pass.
    pools : bool
        Whether to judge pools of GPUs for domains, or groups of them, as well; needs machine and model.
    hold_out : float or None
        Share of each domain's sequences to judge by; 0.5 by default.
    topology, engine, slots_per_gpu, redundant_experts, expert_bytes, objective, constraints, solver, options, seed
        See `Request`.

    Raises
    ------
    InputError
        If a field is of another type or out of its range, or has no effect.
    """

    topology: Annotated[
        Topology | str, doc("4x8: 4 nodes of 8 GPUs; 8+8+4; PRESET:NODES such as hgx_h100:4; or a topology file.")
    ]
    over: Annotated[Over, doc("What is minimised: the worst domain, the weighted mean, or a quantile.")] = "worst"
    quantile: Annotated[
        float | None, Gt(0), Lt(1), doc("With quantile: the weight of the domains that stay below.")
    ] = None
    weights: Annotated[
        tuple[float, ...], doc("Weight of each domain, in their order; by their tokens by default.")
    ] = ()
    rounds: Annotated[int, Ge(1), Le(1000), doc("Searches for the mixture, each with other weights.")] = 6
    engine: Annotated[
        str | None, doc("Engine to plan for, as in sglang or sglang:static: how tokens travel, replicas, its file.")
    ] = None
    slots_per_gpu: SlotsPerGpu = None
    redundant_experts: RedundantExperts = None
    expert_bytes: ExpertBytes = None
    objective: Objective = field(default_factory=Objective)
    constraints: Constraints = field(default_factory=Constraints)
    limits: Limits = field(default_factory=Limits)
    solver: Annotated[str, doc("Method; see `solvers`.")] = "auto"
    options: Annotated[Mapping[str, Any], doc("Parameters of the solver.")] = field(default_factory=dict, hash=False)
    machine: Annotated[
        str | None, doc("GPUs, nodes and GPUs per node, h200:4x8, to tell milliseconds as well; with a model.")
    ] = None
    model: Annotated[str | None, doc("Model by name, such as deepseek-v3, or its config.json; with a machine.")] = None
    phase: Annotated[Phase | None, doc("Phase whose passes are timed; prefill by default.")] = None
    tokens_per_gpu: TokensPerGpu = None
    pools: Annotated[bool, doc("Judge pools of GPUs for domains as well; with machine and model.")] = False
    hold_out: Annotated[
        float | None, Gt(0), Lt(1), doc("Share of each domain's sequences to judge by; 0.5 by default.")
    ] = None
    seed: Annotated[int, Ge(0), doc("Seed of the searches and of the bootstrap.")] = 0

    def __post_init__(self) -> None:
        found = Violations()
        check_declared(self, "", found)
        if (self.over == "quantile") != (self.quantile is not None):
            detail = "The quantile is missing." if self.over == "quantile" else f"Over {self.over!r} takes no quantile."
            found.add(
                "without_effect", "/quantile", detail, "Give over='quantile' and a quantile such as 0.9, or none."
            )
        weights: tuple[Any, ...] = self.weights
        for number, weight in enumerate(weights):
            if not (isinstance(weight, (int, float)) and 0 < weight < float("inf")):
                found.add("weights_range", f"/weights/{number}", f"{weight!r:.60}.", "Give a number above 0.")
        check_timed(self, found)
        if self.pools and self.machine is None:
            detail = "Pools are weighed in milliseconds, which need a machine and a model."
            found.add("without_effect", "/pools", detail, "Give machine and model, or leave it out.")
        for name in ("pins", "forbidden", "groups", "survive") if self.pools else ():
            if getattr(self.constraints, name):
                detail = "It is said of the GPUs of the whole machine, and pools have other ones."
                found.add("pools_beside", f"/constraints/{name}", detail, "Leave one of the two out.")
        if self.objective.activated_weight:
            detail = "Plans for several domains are judged by traffic and loads; activated experts are not counted."
            found.add("activated_unsupported", "/objective/activated_weight", detail, "Leave the weight out.")
        if self.constraints.load_groups not in (None, "sources"):
            detail = "How much loads vary is taken over the domains and within them."
            found.add("without_effect", "/constraints/load_groups", detail, "Leave it out.")
        found.raise_if_any()
        self.planning()  # what it refuses is told before any file is read

    def time_model(self) -> TimeModel | None:
        """Return the time model, None where nothing is to be timed.

        Raises
        ------
        InputError
            If machine or model are not known.
        """
        return time_model_of(self, "prefill")

    def searches(self, domains: int) -> int:
        """Return how many searches there are: rounds, each domain, all of them together, and pools.

        Parameters
        ----------
        domains : int
        """
        from solvers.mixtures.dividing import partitions  # needs NumPy, which help does without

        rounds = 1 if self.over == "weighted" else self.rounds
        pools = sum(map(len, partitions(domains))) if self.pools else 0
        return rounds + domains + 1 + pools

    def within(self, time_s: float, domains: int) -> MixtureRequest:
        """Return the request with so little time for each search that all of them together end within a time.

        Parameters
        ----------
        time_s : float
        domains : int
        """
        most, limits = time_s / self.searches(domains), self.limits
        if limits.time_s is not None and limits.time_s <= most:
            return self
        return replace(self, limits=replace(limits, time_s=most))

    def planning(self) -> Request:
        """Return the request for a plan: what does not concern the domains."""
        names = ("topology", "engine", "slots_per_gpu", "redundant_experts", "expert_bytes", "objective")
        own = {name: getattr(self, name) for name in (*names, "constraints", "limits", "solver", "options", "seed")}
        return Request(**own)
