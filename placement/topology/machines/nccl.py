"""Topology XML of NCCL and RCCL, as ``NCCL_TOPO_DUMP_FILE`` records it: hosts, PCIe, links and network ports.

GPUs that link to the same NVLink switch are one domain. Where NVLink goes on to other hosts (GB200 NVL72), NCCL writes
the hosts of the domain into one file, with ``fffffff:ff:ff.0`` as the switch of all of them. RCCL names links between
AMD's GPUs ``xgmi``, each from GPU to GPU.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import numpy.typing as npt

from placement.topology.links import FASTEST, SLOWEST
from placement.topology.machines.amd import UNKNOWN_GB_S, XGMI_GB_S
from placement.topology.machines.machine import Machine, joined, no_links
from placement.topology.machines.nccl_xml import Gpu, parse
from placement.topology.machines.options import Overrides
from placement.topology.machines.smi import PCIE_GB_S, SHARES
from traces import InputError

__all__ = ["read", "sniff"]

MAX_GPUS = 1024
FABRIC = "fffffff:ff:ff.0"
# GB/s per NVLink and direction, by compute capability: NVLink 1, 2 to 4, and 5.
NVLINK_GB_S = ((100, 50.0), (70, 25.0), (60, 20.0))


def sniff(text: str) -> bool:
    """Whether the root element is NCCL's."""
    return re.match(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<system\b", text[:65536], re.DOTALL) is not None


def read(text: str, name: str, overrides: Overrides) -> Machine:
    """Read the GPUs of one host, or of all hosts of an NVLink domain.

    Parameters
    ----------
    text, name : str
    overrides : Overrides
        `nvlink_gb_s`, `xgmi_gb_s` and `pcie_gb_s` are taken in place of what the file says.

    Raises
    ------
    InputError
        If it is no such XML, has a document type or entities (which could expand without end), or names no GPU.
    """
    gpus, nics = parse(text, name)
    if not 1 <= len(gpus) <= MAX_GPUS or len({gpu.rank for gpu in gpus}) != len(gpus):
        detail = f"{len(gpus)} GPUs, of {len({gpu.rank for gpu in gpus})} ranks."
        raise InputError.of("nccl_ranks", name, detail, "Record it with all ranks of the job on the machine.")
    twice = [place for place, count in Counter((gpu.host, gpu.dev) for gpu in gpus).items() if count > 1]
    if twice:
        at, dev = twice[0]
        detail = f"Two GPUs of a host are dev {dev}{f' (host {at[:40]})' if at else ''}."
        raise InputError.of("nccl_dev", f"{name}#gpu/dev", detail, "Record it again; each GPU is there once.")
    gpus.sort(key=lambda gpu: gpu.rank)
    hosts = list(dict.fromkeys(gpu.host for gpu in gpus))
    host = np.array([hosts.index(gpu.host) for gpu in gpus], dtype=np.int64)
    if overrides.pcie_gb_s is not None:
        for gpu in gpus:
            gpu.pcie, gpu.pcie_known = overrides.pcie_gb_s, True
    kinds = {link.kind for gpu in gpus for link in gpu.links}
    for key, kind in (("nvlink_gb_s", "nvlink"), ("xgmi_gb_s", "xgmi")):
        if getattr(overrides, key) is not None and kind not in kinds:
            raise no_links(name, key)
    linked = _linked(gpus, overrides)
    bandwidth = np.where(linked > 0, linked, _pcie(gpus))
    np.fill_diagonal(bandwidth, 0.0)
    fabric = any(link.target == FABRIC for gpu in gpus for link in gpu.links)
    speeds = [sum(nics.get(at, {}).values()) / int((host == number).sum()) for number, at in enumerate(hosts)]
    return Machine(
        name=name,
        bandwidth=bandwidth,
        host=host,
        domain=joined(linked > 0, host),
        over_pcie=(host[:, None] == host[None, :]) & (linked == 0) & ~np.eye(len(gpus), dtype=bool),
        network_gb_s=min(speeds) if min(speeds) >= SLOWEST else None,
        port_gb_s=min(max(gpu.pcie, gpu.c2c) for gpu in gpus),
        host_ends_nvlink=None if fabric else True,
        visible="HIP_VISIBLE_DEVICES" if any(gpu.gcn for gpu in gpus) else "CUDA_VISIBLE_DEVICES",
        notes=_notes(gpus, linked, host, overrides),
    )


def _notes(
    gpus: list[Gpu], linked: npt.NDArray[np.float64], host: npt.NDArray[np.int64], overrides: Overrides
) -> tuple[str, ...]:
    notes = []
    over_pcie = (host[:, None] == host[None, :]) & (linked == 0) & ~np.eye(len(gpus), dtype=bool)
    if not linked.any() and len(gpus) > 1:
        notes.append("No NVLink or XGMI was seen: hops inside a host go over PCIe.")
    unknown = sorted({gpu.gcn or "an unnamed GPU" for gpu in gpus if _xgmi_speed(gpu) is None})
    if overrides.xgmi_gb_s is None and any(link.kind == "xgmi" for gpu in gpus for link in gpu.links) and unknown:
        names = ", ".join(unknown)[:60]
        notes.append(f"XGMI of {names} is assumed to have {UNKNOWN_GB_S:g} GB/s per link and direction (xgmi_gb_s).")
    nameless = any(link.kind == "nvlink" for gpu in gpus if gpu.sm == 0 for link in gpu.links)
    if overrides.nvlink_gb_s is None and nameless:
        speed = NVLINK_GB_S[-1][1]
        notes.append(f"GPUs without sm are assumed to have NVLink 1, {speed:g} GB/s per link (nvlink_gb_s).")
    if not all(gpu.pcie_known for gpu in gpus):
        notes.append(f"PCIe is assumed to have {PCIE_GB_S:g} GB/s where the file does not say it (pcie_gb_s).")
    if over_pcie.any() and len({(gpu.host, gpu.numa) for gpu in gpus}) > len({gpu.host for gpu in gpus}):
        notes.append(f"PCIe between NUMA nodes is assumed to have {SHARES['SYS']:g} of that inside one.")
    return tuple(notes)


def _linked(gpus: list[Gpu], overrides: Overrides) -> npt.NDArray[np.float64]:
    """Return GB/s over NVLink or XGMI between GPUs, directly or through a switch, (G, G)."""
    bus = {(gpu.host, gpu.bus): number for number, gpu in enumerate(gpus)}
    bandwidth = np.zeros((len(gpus), len(gpus)))
    switched: dict[tuple[str, str], dict[int, float]] = {}
    for number, gpu in enumerate(gpus):
        for link in gpu.links:
            speed = link.count * _per_link(gpu, link.kind, overrides)
            if (other := bus.get((gpu.host, link.target))) is not None:
                bandwidth[number, other] += speed
            elif link.switch:
                switch = ("", FABRIC) if link.target == FABRIC else (gpu.host, link.target)
                ports = switched.setdefault(switch, {})
                ports[number] = ports.get(number, 0.0) + speed
    for ports in switched.values():
        at, speeds = np.array(list(ports)), np.array(list(ports.values()))
        bandwidth[np.ix_(at, at)] += np.minimum.outer(speeds, speeds)
    np.fill_diagonal(bandwidth, 0.0)
    return np.minimum(np.maximum(bandwidth, bandwidth.T), FASTEST)


def _per_link(gpu: Gpu, kind: str, overrides: Overrides) -> float:
    """Return GB/s per link and direction: as the caller says, or of the GPU's generation."""
    if kind == "xgmi":
        return overrides.xgmi_gb_s or _xgmi_speed(gpu) or UNKNOWN_GB_S
    generation = next((speed for least, speed in NVLINK_GB_S if gpu.sm >= least), NVLINK_GB_S[-1][1])
    return overrides.nvlink_gb_s or generation


def _xgmi_speed(gpu: Gpu) -> float | None:
    return next((speed for start, speed in XGMI_GB_S.items() if gpu.gcn.startswith(start)), None)


def _pcie(gpus: list[Gpu]) -> npt.NDArray[np.float64]:
    """Return GB/s over PCIe between GPUs of a host, (G, G); 0 between hosts."""
    host, numa = np.array([gpu.host for gpu in gpus]), np.array([gpu.numa for gpu in gpus])
    port = np.array([gpu.pcie for gpu in gpus])
    share = np.where(numa[:, None] == numa[None, :], 1.0, SHARES["SYS"])
    bandwidth = np.maximum(SLOWEST, np.minimum.outer(port, port) * share)
    return np.where(host[:, None] == host[None, :], bandwidth, 0.0)
