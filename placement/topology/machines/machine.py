"""What was read from a machine, and the topology that it makes: hosts, NVLink domains, costs from bandwidths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.topology.links import FASTEST, GENERIC, MAX_GPUS, SLOWEST
from placement.topology.topology import Topology
from traces import InputError, Violations

__all__ = ["Machine", "Overrides", "joined", "no_nvlink"]


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the caller says that a description does not.

    Attributes
    ----------
    hosts : int
        How many of the host described there are.
    domain : {"host", "rack"} or None
        Where NVLink ends: at each host, or only at the rack (GB200 NVL72), so that all hosts are one node.
    nvlink_gb_s, pcie_gb_s, network_gb_s : float or None
        Per NVLink, per GPU over PCIe, per GPU over the network; GB/s and direction.
    nics : tuple of float
        GB/s of each network port of a host, from ``ibstat``.
    """

    hosts: int = 1
    domain: str | None = None
    nvlink_gb_s: float | None = None
    pcie_gb_s: float | None = None
    network_gb_s: float | None = None
    nics: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        found = Violations()
        if not 1 <= self.hosts <= MAX_GPUS:
            detail = f"hosts={self.hosts} is not 1 to {MAX_GPUS}."
            remedy = f"Give the number of hosts like the one described, as in hosts=4; at most {MAX_GPUS} GPUs in all."
            found.add("topology_options", "/topology/hosts", detail, remedy)
        if self.domain not in (None, "host", "rack"):
            found.add("topology_options", "/topology/domain", f"{self.domain!r:.40}.", "Give host or rack.")
        for name in ("nvlink_gb_s", "pcie_gb_s", "network_gb_s"):
            value = getattr(self, name)
            if value is not None and not SLOWEST <= value <= FASTEST:
                detail = f"{value} GB/s is not {SLOWEST:g} to {FASTEST:g}."
                found.add("topology_options", f"/topology/{name}", detail, "Give GB/s per direction.")
        found.raise_if_any()


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
        Which GPUs NVLink joins; where there is no NVLink, the host.
    network_gb_s : float or None
        Per GPU, where the description says it.
    host_ends_nvlink : bool or None
        Whether NVLink is known to end at the host; None where the description can't tell.
    """

    name: str
    bandwidth: npt.NDArray[np.float64]
    host: npt.NDArray[np.int64]
    domain: npt.NDArray[np.int64]
    network_gb_s: float | None = None
    host_ends_nvlink: bool | None = None

    def topology(self, overrides: Overrides) -> Topology:
        """Return the topology of as many hosts as the caller names.

        Raises
        ------
        InputError
            If it can't be known where NVLink ends, or nodes are no runs of ranks.
        """
        hosts, gpus = overrides.hosts, len(self.host)
        if hosts * gpus > MAX_GPUS:
            detail = f"hosts={hosts} makes {hosts * gpus} GPUs of a host's {gpus}; the most are {MAX_GPUS}."
            raise InputError.of("topology_size", "/topology/hosts", detail, f"Give at most hosts={MAX_GPUS // gpus}.")
        if hosts > 1 and overrides.domain is None and self.host_ends_nvlink is None:
            detail = "The description of one host does not say whether NVLink goes on to the next, as in GB200 NVL72."
            remedy = "Add domain=rack if it does, domain=host if not."
            raise InputError.of("domain_unknown", "/topology/domain", detail, remedy)
        rack = overrides.domain == "rack"
        replica = np.repeat(np.arange(hosts), gpus)
        network = _network(self, overrides)
        inside = float(self.bandwidth.max(initial=0.0)) or network
        bandwidth = np.full((hosts * gpus, hosts * gpus), inside if rack else network)
        own = np.where(self.bandwidth > 0, self.bandwidth, inside if rack else network)
        for number in range(hosts):
            part = slice(number * gpus, (number + 1) * gpus)
            bandwidth[part, part] = own
        host = np.tile(self.host, hosts) + replica * (int(self.host.max()) + 1)
        domain = np.tile(self.domain, hosts) + replica * (int(self.domain.max()) + 1)
        node = np.zeros(hosts * gpus, dtype=np.int64) if rack else _numbered(domain)
        if not np.isin(np.diff(node), (0, 1)).all():
            alone = [rank for rank in range(gpus) if (self.domain == self.domain[rank]).sum() == 1]
            detail = f"NVLink joins ranks that are not consecutive: domains {node.tolist()[:64]} by rank."
            detail += f" Ranks {alone[:8]} have none." if alone else ""
            remedy = "Check the links with `nvidia-smi nvlink -s`, or number the ranks by domain."
            raise InputError.of("node_order", "/topology", detail, remedy)
        itself = np.eye(hosts * gpus, dtype=bool)
        # One scale however many hosts there are, as for presets: a hop inside costs what it costs in a cluster.
        slowest = min(float(bandwidth[~itself].min(initial=network)), network)
        same = node[:, None] == node[None, :]
        latency = np.where(same, GENERIC.intra.latency_us, GENERIC.inter.latency_us)
        return Topology(
            name=self.name if hosts == 1 else f"{hosts} x {self.name}",
            node_of_gpu=node,
            hop_cost=np.where(itself, 0.0, slowest / bandwidth),
            bandwidth_gb_s=bandwidth,
            latency_us=np.where(itself, 0.0, latency),
            speed=np.ones(hosts * gpus),
            host_of_gpu=_numbered(host),
        )


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


def no_nvlink(name: str) -> InputError:
    """Return the refusal of a speed of links that a machine does not have."""
    detail = "No GPU has an NVLink, so nvlink_gb_s has no place."
    return InputError.of("topology_options", f"{name}#/nvlink_gb_s", detail, "Leave it out, or check the links.")


def _numbered(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return labels numbered 0, 1, ... as they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    numbered: npt.NDArray[np.int64] = order[inverse].astype(np.int64)
    return numbered


def _network(machine: Machine, overrides: Overrides) -> float:
    """Return GB/s per GPU between nodes: as the caller says, as the description says, else the usual."""
    if overrides.network_gb_s is not None:
        return overrides.network_gb_s
    if overrides.nics:
        per_host = int(np.bincount(machine.host).max())
        return sum(overrides.nics) / per_host
    return GENERIC.inter.bandwidth_gb_s if machine.network_gb_s is None else machine.network_gb_s
