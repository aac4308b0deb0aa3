"""Whether a plan survives failures: proven, or with the failing set that takes most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan
from placement.survival.domains import domain_name, failure_domains
from placement.survival.least import all_survive, least_lost, slots_needed
from placement.survival.losses import in_domains
from placement.survival.survive import Survive
from placement.topology.topology import Topology
from traces import InputError
from traces.support.content import ByContent
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, runs

__all__ = ["Survival", "prove_survival"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_SETS = 50_000  # failing sets that are looked at one by one; of more, the worst is searched for
AT_ONCE = 1024  # failing sets per step, which bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Survival(Shown, ByContent):
    """What a plan keeps when failure domains fail.

    Attributes
    ----------
    survive : Survive
        What fails.
    unit : str
        What a failure domain is called: ``GPU``, ``host`` or ``node``.
    domains : int
        How many there are.
    survives : bool
        Whether no failing set takes the last copy of more experts than may be lost. Always exact.
    fewest_domains : int
        Domains of the expert that is in fewest of them.
    worst : tuple of int
        The failing set that takes the last copies of most experts in all layers; empty where none takes any.
    worst_gpus : tuple of int
        Its GPUs.
    worst_is_exact : bool
        Whether all failing sets were looked at.
    lost : int
        Experts of all layers that have no copy outside of it, each layer's counted on its own.
    lost_in_layer : int
        Of the layer that loses most to it.
    lost_load : float or None
        Share of the assignments that go to these, mean over layers; None without loads.
    least_lost : int or None
        What no plan with these slots gets below in a layer, for one failure; with more, 0 where all experts can
        survive, else None.
    slots_needed : int or None
        Slots per GPU from which on all experts can survive; None if never.
    """

    survive: Survive
    unit: str
    domains: int
    survives: bool
    fewest_domains: int
    worst: tuple[int, ...]
    worst_gpus: tuple[int, ...]
    worst_is_exact: bool
    lost: int
    lost_in_layer: int
    lost_load: float | None
    least_lost: int | None
    slots_needed: int | None

    def _shown(self) -> tuple[str, Facts]:
        return self.sentence, {"fewest domains of an expert": str(self.fewest_domains)}

    @property
    def sentence(self) -> str:
        """Verdict and reason."""
        units = f"{self.survive.failures} of {self.domains} {self.unit}s"
        if self.fewest_domains > self.survive.failures:
            return (
                f"Survives: every expert of every layer has copies on {self.fewest_domains} {self.unit}s or more, so "
                f"that none is lost whatever {units} fail."
            )
        which = f"{self.unit}{'s' * (len(self.worst) > 1)} {runs(list(self.worst))}"
        load = "" if self.lost_load is None else f", {self.lost_load:.1%} of the assignments"
        most = f"{self.lost} experts of all layers, at most {self.lost_in_layer} of one layer{load}"
        kind = "takes" if self.worst_is_exact else "takes at least"
        if self.survives:
            return f"Survives within what may be lost: the worst failure ({which}) {kind} the last copy of {most}."
        gone = f"the failure of {which} (GPUs {runs(list(self.worst_gpus))})"
        return f"Does not survive: {gone} {kind} the last copy of {most}."

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "survive"}
        return {"survive": str(self.survive), "sentence": self.sentence} | own


@checked
def prove_survival(
    plan: Plan, topology: Topology, survive: Survive | str, *, load: npt.ArrayLike | None = None
) -> Survival:
    """Prove that a plan survives failures, or find the failing set that takes most.

    An expert with copies in k + 1 failure domains survives any k failures, and one with fewer is lost to some: whether
    a plan survives is a count, however many failing sets there are. The worst one is found by looking at all sets, up
    to 50,000 of them, else by a search from the domains that hold most.

    Parameters
    ----------
    plan : Plan
    topology : Topology
    survive : Survive or str
        ``nodes=1``, say.
    load : (L, E) float, optional
        Load of each expert, such as `traces.Profile.load`.

    Raises
    ------
    InputError
        If plan and topology don't fit, or nothing is left when so many fail.
    """
    asked = Survive.parse(survive) if isinstance(survive, str) else survive
    if topology.num_gpus != plan.num_gpus:
        detail = f"The plan is for {plan.num_gpus} GPUs, the topology has {topology.num_gpus}."
        raise InputError.of("topology_differs", "/topology", detail, "Give the topology that the plan is for.")
    domain, unit = failure_domains(topology, asked.unit), domain_name(topology, asked.unit)
    domains, failures = int(domain.max()) + 1, asked.failures
    if not 1 <= failures < domains:
        detail = f"{failures} of {domains} {unit}s fail."
        raise InputError.of("survive_none_left", "/survive/failures", detail, f"Give 1 to {domains - 1}.")
    if failures > 1 and asked.lost != 0:
        detail = f"A loss is bounded for one failure at a time, but {failures} fail."
        raise InputError.of("lost_range", "/survive/lost", detail, "Leave lost out, or let one fail.")
    share = None if load is None else _shares(plan, load)
    held = in_domains(plan.replicas_on_gpu, domain)
    spread = held.sum(axis=2)
    layer, expert = np.nonzero(spread <= failures)
    room = np.bincount(domain, minlength=domains) * plan.slots_per_gpu
    if topology.slots is not None:
        room = np.bincount(domain, np.minimum(topology.slots, plan.slots_per_gpu), domains).astype(np.int64)
    least = least_lost(room, plan.num_experts) if failures == 1 else None
    if failures > 1 and all_survive(room, plan.num_experts, failures):
        least = 0
    allowed = (least or 0) if asked.lost is None else asked.lost
    mask, exact = held[layer, expert], True
    worst: tuple[int, ...] = ()
    gone: npt.NDArray[np.bool_] = np.zeros(len(layer), bool)
    most_of_a_layer = 0
    if len(layer):
        weight = np.ones(len(layer))
        if share is not None:
            weight += share[layer, expert] / (1e6 * plan.num_layers)  # among sets that take as many
        worst, exact = _worst(mask, weight, domains, failures)
        outside = [d for d in range(domains) if d not in worst]
        gone = np.logical_not(np.any(mask[:, outside], axis=1))
    per_layer = np.bincount(layer[gone], minlength=plan.num_layers)
    if failures == 1 and len(layer):
        most_of_a_layer = int(max(np.bincount(layer[mask[:, d]], minlength=1).max() for d in range(domains)))
    survives = most_of_a_layer <= allowed if failures == 1 else not len(layer)
    return Survival(
        survive=asked,
        unit=unit,
        domains=domains,
        survives=survives,
        fewest_domains=int(spread.min()),
        worst=worst,
        worst_gpus=tuple(np.flatnonzero(np.isin(domain, worst)).tolist()),
        worst_is_exact=exact,
        lost=int(gone.sum()),
        lost_in_layer=most_of_a_layer if failures == 1 else int(per_layer.max(initial=0)),
        lost_load=None if share is None else float(share[layer[gone], expert[gone]].sum() / plan.num_layers),
        least_lost=least,
        slots_needed=slots_needed(domain, plan.num_experts, failures),
    )


def _shares(plan: Plan, load: npt.ArrayLike) -> Floats:
    array = np.asarray(load, dtype=np.float64)
    shape = (plan.num_layers, plan.num_experts)
    if array.shape != shape or not np.isfinite(array).all() or (array < 0).any():
        detail = f"Expected loads of shape (layers, experts) = {shape}, finite and not negative; got {array.shape}."
        raise InputError.of("load_shape", "/load", detail, "Give the load of a profile of this model.")
    shares: Floats = array / np.maximum(array.sum(axis=1, keepdims=True), 1e-300)
    return shares


def _worst(mask: npt.NDArray[np.bool_], weight: Floats, domains: int, failures: int) -> tuple[tuple[int, ...], bool]:
    """Return the failing set whose lost experts weigh most, and whether all sets were looked at."""
    unique, inverse = np.unique(mask, axis=0, return_inverse=True)
    weights: Floats = np.bincount(inverse.ravel(), weight).astype(np.float64)
    if comb(domains, failures) <= MAX_SETS:
        best, worst = -1.0, tuple(range(failures))
        sets: Iterator[tuple[int, ...]] = combinations(range(domains), failures)
        while chunk := list(islice(sets, AT_ONCE)):
            total = _lost(unique, weights, np.array(chunk))
            if total.max() > best:
                best, worst = float(total.max()), chunk[int(total.argmax())]
        return worst, True
    chosen = np.argsort(-(unique * weights[:, None]).sum(axis=0), kind="stable")[:failures].tolist()
    best = float(_lost(unique, weights, np.array([chosen]))[0])
    better = True
    while better:
        better = False
        for place in range(failures):
            others = [d for d in range(domains) if d not in chosen]
            trials = np.array([[*chosen[:place], d, *chosen[place + 1 :]] for d in others])
            total = _lost(unique, weights, trials)
            if total.max() > best:
                best, chosen, better = float(total.max()), trials[int(total.argmax())].tolist(), True
    return tuple(sorted(chosen)), False


def _lost(unique: npt.NDArray[np.bool_], weights: Floats, sets: npt.NDArray[np.integer[Any]]) -> Floats:
    """Return the weight that each failing set takes, (B,); experts of the same domains are one row of `unique`."""
    outside = np.ones((len(sets), unique.shape[1]), dtype=np.float32)
    np.put_along_axis(outside, sets, 0.0, axis=1)
    gone = (unique.astype(np.float32) @ outside.T) == 0
    total: Floats = weights @ gone
    return total
