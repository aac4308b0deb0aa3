"""What was read from a machine, and the topology that it makes: hosts, NVLink domains, costs from bandwidths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from placement.topology.links import GENERIC, MAX_GPUS
from placement.topology.machines.network import network_of, slowest_inside
from placement.topology.machines.options import Overrides
from placement.topology.topology import Topology
from traces import InputError, Violations

__all__ = ["Machine", "joined", "no_links"]

JOINED = 3  # GPUs: a bridge joins two, and leaves others out; a switch, or a mesh, joins all of a host


@dataclass(frozen=True, kw_only=True)
class Machine:
    """GPUs in rank order, with what links them.

    Attributes
    ----------
    name : str
    bandwidth : (G, G) float64
        GB/s per direction; 0 for pairs that only the network joins, and on the diagonal.
    host : (G,) int64
        Host of each GPU.
    domain : (G,) int64
        Which GPUs NVLink or XGMI joins; where there is none, the host.
    over_pcie : (G, G) bool
        Pairs of a host that go over PCIe.
    network_gb_s : float or None
        Per GPU, where the description says it.
    port_gb_s : float or None
        Of the PCIe port of each GPU, where it is known or assumed.
    network_ports : int or None
        Of a host, where the description lists them without their speed.
    host_ends_nvlink : bool or None
        Whether NVLink is known to end at the host; None where the description can't tell.
    visible : str
        Environment variable that orders the GPUs.
    notes : tuple of str
        What was understood, and what is assumed.
    """

    name: str
    bandwidth: npt.NDArray[np.float64]
    host: npt.NDArray[np.int64]
    domain: npt.NDArray[np.int64]
    over_pcie: npt.NDArray[np.bool_]
    network_gb_s: float | None = None
    port_gb_s: float | None = None
    network_ports: int | None = None
    host_ends_nvlink: bool | None = None
    visible: str = "CUDA_VISIBLE_DEVICES"
    notes: tuple[str, ...] = ()

    def topology(self, overrides: Overrides) -> Topology:
        """Return the topology of as many hosts as the caller names.

        Raises
        ------
        InputError
            If it can't be known where NVLink ends, nodes are no runs of ranks, or an option says something of links
            that there are none of.
        """
        if overrides.gpu_order is not None:
            return self.ordered(overrides.gpu_order).topology(replace(overrides, gpu_order=None))
        hosts, gpus = overrides.hosts, len(self.host)
        if hosts * gpus > MAX_GPUS:
            detail = f"hosts={hosts} makes {hosts * gpus} GPUs of a host's {gpus}; the most are {MAX_GPUS}."
            raise InputError.of("topology_size", "/topology/hosts", detail, f"Give at most hosts={MAX_GPUS // gpus}.")
        if hosts > 1 and overrides.domain is None and self.host_ends_nvlink is None:
            detail = "The description of one host does not say whether NVLink goes on to the next, as in GB200 NVL72."
            remedy = "Add domain=rack if it does, domain=host if not."
            raise InputError.of("domain_unknown", "/topology/domain", detail, remedy)
        rack = overrides.domain == "rack"
        self._check_used(overrides)
        self._check_links()
        replica = np.repeat(np.arange(hosts), gpus)
        network, told = network_of(
            overrides,
            stated=self.network_gb_s,
            slowest=slowest_inside(self.bandwidth),
            port=self.port_gb_s,
            per_host=int(np.bincount(self.host).max()),
            ports=self.network_ports,
        )
        inside = float(self.bandwidth.max(initial=0.0)) or network
        bandwidth = np.full((hosts * gpus, hosts * gpus), inside if rack else network, dtype=np.float64)
        own = np.where(self.bandwidth > 0, self.bandwidth, inside if rack else network)
        for number in range(hosts):
            part = slice(number * gpus, (number + 1) * gpus)
            bandwidth[part, part] = own
        host = np.tile(self.host, hosts) + replica * (int(self.host.max()) + 1)
        domain, merged = (self.domain, ()) if rack else _runs(self)
        domain = np.tile(domain, hosts) + replica * (int(domain.max()) + 1)
        node = np.zeros(hosts * gpus, dtype=np.int64) if rack else _numbered(domain)
        itself = np.eye(hosts * gpus, dtype=bool)
        # One scale however many hosts there are, as for presets: a hop inside costs what it costs in a cluster.
        slowest = min(float(bandwidth[~itself].min(initial=network)), network)
        same = node[:, None] == node[None, :]
        latency = np.where(same, GENERIC.intra.latency_us, GENERIC.inter.latency_us)
        crossed = bool((host[:, None] != host[None, :]).any()) and not rack
        return Topology(
            name=self.name if hosts == 1 else f"{hosts} x {self.name}",
            node_of_gpu=node,
            hop_cost=np.where(itself, 0.0, slowest / bandwidth),
            bandwidth_gb_s=bandwidth,
            latency_us=np.where(itself, 0.0, latency),
            speed=np.ones(hosts * gpus),
            host_of_gpu=_numbered(host),
            notes=(*self.notes, *merged, *(told if crossed and int(node[-1]) else ())),
        )

    def _check_used(self, overrides: Overrides) -> None:
        """Refuse what is said of hosts, of the network or of PCIe where no pair of GPUs has a use for it."""
        found = Violations()
        alone = overrides.hosts == 1 and len(set(self.host.tolist())) == 1
        crossed = not alone and overrides.domain != "rack"
        where = "There is one host" if alone else "NVLink or XGMI joins all hosts"
        unused: dict[str, str] = {}
        if alone and overrides.domain is not None:
            unused["domain"] = "There is one host, so it does not matter where NVLink ends"
        same = (self.host[:, None] == self.host[None, :]) & ~np.eye(len(self.host), dtype=bool)
        if overrides.domain == "rack" and same.any() and self.over_pcie[same].all():
            unused["domain"] = "No GPU has an NVLink or XGMI that could join hosts"
        elif not crossed:
            unused |= dict.fromkeys(("network_gb_s", "ibstat"), f"{where}, so nothing goes over the network")
            if not self.over_pcie.any():
                unused["pcie_gb_s"] = f"{where} and every pair of its GPUs, so nothing goes over PCIe"
                if alone:
                    unused["pcie_gb_s"] = "There is one host, and no pair of its GPUs goes over PCIe"
        given = {key: getattr(overrides, key) for key in ("domain", "network_gb_s", "pcie_gb_s")}
        given["ibstat"] = overrides.nics or None
        for key, reason in unused.items():
            if given[key] is not None:
                remedy = "Leave it out." if not alone else "Leave it out, or say how many hosts there are: hosts=4."
                found.add("without_effect", f"/topology/{key}", f"{reason}: {key} has no effect.", remedy)
        found.raise_if_any()

    def _check_links(self) -> None:
        """Refuse GPUs that have lost their links, wherever they stand: others of their host are joined by theirs."""
        linked = (self.bandwidth > 0) & ~self.over_pcie
        without = ~linked.any(axis=1)
        lost = [
            rank
            for rank in np.flatnonzero(without).tolist()
            if np.bincount(self.domain[(self.host == self.host[rank]) & ~without], minlength=1).max() >= JOINED
        ]
        if not lost:
            return
        kind, command = ("XGMI", "rocm-smi --showtopo") if "HIP" in self.visible else ("NVLink", "nvidia-smi nvlink -s")
        detail = f"{kind} joins the other GPUs of their host: domains {self.domain.tolist()[:64]} by rank. Ranks "
        detail += f"{lost[:8]} have none."
        remedy = f"Check the links with `{command}`. To plan without these GPUs, give the others as gpu_order."
        raise InputError.of("node_order", "/topology", detail, remedy)

    def ordered(self, order: tuple[int, ...]) -> Machine:
        """Return the machine with its GPUs in another order of ranks; those that are not named are not used.

        Raises
        ------
        InputError
            If a GPU is named twice, or is not there.
        """
        gpus = len(self.host)
        if len(set(order)) != len(order) or not all(0 <= gpu < gpus for gpu in order):
            shown = "+".join(map(str, order[:16])) + ("+..." if len(order) > 16 else "")
            detail = f"gpu_order={shown} names a GPU twice, or one that is not 0 to {gpus - 1}."
            remedy = "Give the GPUs in the order of the ranks, as CUDA_VISIBLE_DEVICES has them: gpu_order=0+2+1+3."
            raise InputError.of("topology_options", "/topology/gpu_order", detail, remedy)
        at = np.array(order)
        left = f" {gpus - len(order)} GPU(s) of the description are not used." if len(order) < gpus else ""
        note = "The ranks are in the order of gpu_order"
        note += f": {self.visible}={','.join(map(str, order))}." if self.host.max() == 0 else "."
        return replace(
            self,
            bandwidth=self.bandwidth[np.ix_(at, at)],
            host=_numbered(self.host[at]),
            domain=_numbered(self.domain[at]),
            over_pcie=self.over_pcie[np.ix_(at, at)],
            notes=(*self.notes, note + left),
        )


def _runs(machine: Machine) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return domains that are runs of ranks: the machine's own, or, where links join other GPUs of a host, the hosts.

    Raises
    ------
    InputError
        If neither are, or a GPU lacks its links.
    """
    domain, host = _numbered(machine.domain), _numbered(machine.host)
    if np.isin(np.diff(domain), (0, 1)).all():
        return machine.domain, ()
    order = np.argsort(domain, kind="stable").tolist()
    plus, commas = "+".join(map(str, order)), ",".join(map(str, order))
    alone = [rank for rank in range(len(domain)) if (domain == domain[rank]).sum() == 1]
    within = all(len(set(host[domain == number].tolist())) == 1 for number in range(int(domain.max()) + 1))
    if not alone and within and np.isin(np.diff(host), (0, 1)).all():
        note = (
            "Links join GPUs that are not neighbours, so each host is read as one node with the cost of each pair. "
            f"With the GPUs in the order {machine.visible}={commas}, those that links join are neighbours: add "
            f"gpu_order={plus} to plan for that order."
        )
        return host, (note,)
    detail = f"NVLink joins ranks that are not consecutive: domains {domain.tolist()[:64]} by rank."
    detail += f" Ranks {alone[:8]} have none." if alone else ""
    if alone:
        remedy = (
            "Check the links with `nvidia-smi nvlink -s`. To plan without these GPUs, give the others as gpu_order."
        )
    else:
        remedy = f"Number the ranks by domain; gpu_order={plus:.400} reads the file in that order."
    raise InputError.of("node_order", "/topology", detail, remedy)


def joined(links: npt.NDArray[np.bool_], host: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return which GPUs are joined by links, step by step; GPUs without any go with their host.

    Parameters
    ----------
    links : (G, G) bool
    host : (G,) int64
    """
    from scipy.sparse.csgraph import connected_components

    without: npt.NDArray[np.bool_] = np.logical_not(links.any(axis=1))
    # GPUs of a host that no link touches are joined by what the host has, PCIe.
    reach = links | (without[:, None] & without[None, :] & (host[:, None] == host[None, :]))
    label: npt.NDArray[np.int64] = connected_components(reach, directed=False)[1].astype(np.int64)
    return _numbered(label)


def no_links(name: str, key: str, reason: str = "") -> InputError:
    """Return the refusal of a speed of links that a machine does not have."""
    what = {"nvlink_gb_s": "an NVLink", "xgmi_gb_s": "an XGMI link"}[key]
    detail = f"No GPU has {what}, so {key} has no place.{reason}"
    return InputError.of("topology_options", f"{name}#/{key}", detail, "Leave it out, or check the links.")


def _numbered(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return labels numbered 0, 1, ... as they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    numbered: npt.NDArray[np.int64] = order[inverse].astype(np.int64)
    return numbered
