"""NCCL's topology XML, as ``NCCL_TOPO_DUMP_FILE`` records it: hosts, PCIe, NVLink and network ports.

GPUs that link to the same NVLink switch are one domain. Where NVLink goes on to other hosts (GB200 NVL72), NCCL writes
the hosts of the domain into one file, with ``fffffff:ff:ff.0`` as the switch of all of them.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.topology.links import FASTEST, SLOWEST
from placement.topology.machines.machine import Machine, Overrides, joined, no_nvlink
from placement.topology.machines.smi import PCIE_GB_S, SHARES
from traces import InputError, Violations

__all__ = ["read", "sniff"]

MAX_DEPTH = 64
MAX_GPUS = 1024
FABRIC = "fffffff:ff:ff.0"
# GB/s per NVLink and direction, by compute capability: NVLink 1, 2 to 4, and 5.
NVLINK_GB_S = ((100, 50.0), (70, 25.0), (60, 20.0))
SPEED = re.compile(r"\s*(\d{1,3}(?:\.\d+)?)\s*GT/s")
PCIE_ENCODING = 128 / 130 / 8  # bytes per transfer and lane, from PCIe 3.0 on
MBIT_PER_GB = 8000


@dataclass(kw_only=True)
class _Gpu:
    rank: int
    dev: int
    sm: int
    host: str
    numa: str
    bus: str
    pcie: float
    links: dict[str, int] = field(default_factory=dict)


def sniff(data: bytes) -> bool:
    """Whether the root element is NCCL's."""
    return re.match(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<system\b", data[:65536], re.DOTALL) is not None


def read(data: bytes, name: str, overrides: Overrides) -> Machine:
    """Read the GPUs of one host, or of all hosts of an NVLink domain.

    Parameters
    ----------
    data : bytes
    name : str
    overrides : Overrides
        `nvlink_gb_s` and `pcie_gb_s` are taken in place of what the file says.

    Raises
    ------
    InputError
        If it is no such XML, has a document type or entities (which could expand without end), or names no GPU.
    """
    gpus, nics = _parse(data, name)
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
            gpu.pcie = overrides.pcie_gb_s
    if overrides.nvlink_gb_s is not None and not any(gpu.links for gpu in gpus):
        raise no_nvlink(name)
    linked = _nvlink(gpus, overrides.nvlink_gb_s)
    bandwidth = np.where(linked > 0, linked, _pcie(gpus))
    np.fill_diagonal(bandwidth, 0.0)
    fabric = any(FABRIC in gpu.links for gpu in gpus)
    speeds = [sum(nics.get(at, {}).values()) / int((host == number).sum()) for number, at in enumerate(hosts)]
    return Machine(
        name=name,
        bandwidth=bandwidth,
        host=host,
        domain=joined(linked > 0, host),
        network_gb_s=min(speeds) if min(speeds) >= SLOWEST else None,
        host_ends_nvlink=None if fabric else True,
    )


def _nvlink(gpus: list[_Gpu], per_link: float | None) -> npt.NDArray[np.float64]:
    """Return GB/s over NVLink between GPUs, directly or through a switch, (G, G)."""
    speed = [_per_link(gpu) if per_link is None else per_link for gpu in gpus]
    bus = {(gpu.host, gpu.bus): number for number, gpu in enumerate(gpus)}
    bandwidth = np.zeros((len(gpus), len(gpus)))
    switched: dict[tuple[str, str], dict[int, int]] = {}
    for number, gpu in enumerate(gpus):
        for target, count in gpu.links.items():
            if (other := bus.get((gpu.host, target))) is not None:
                bandwidth[number, other] += count * speed[number]
            else:
                switch = ("", FABRIC) if target == FABRIC else (gpu.host, target)
                switched.setdefault(switch, {})[number] = count
    for ports in switched.values():
        at, counts = np.array(list(ports)), np.array(list(ports.values()))
        speeds = np.array([speed[number] for number in ports])
        bandwidth[np.ix_(at, at)] += np.minimum.outer(counts, counts) * speeds[:, None]
    np.fill_diagonal(bandwidth, 0.0)
    return np.minimum(np.maximum(bandwidth, bandwidth.T), FASTEST)


def _per_link(gpu: _Gpu) -> float:
    return next((speed for least, speed in NVLINK_GB_S if gpu.sm >= least), NVLINK_GB_S[-1][1])


def _pcie(gpus: list[_Gpu]) -> npt.NDArray[np.float64]:
    """Return GB/s over PCIe between GPUs of a host, (G, G); 0 between hosts."""
    host, numa = np.array([gpu.host for gpu in gpus]), np.array([gpu.numa for gpu in gpus])
    port = np.array([gpu.pcie for gpu in gpus])
    share = np.where(numa[:, None] == numa[None, :], 1.0, SHARES["SYS"])
    bandwidth = np.maximum(SLOWEST, np.minimum.outer(port, port) * share)
    return np.where(host[:, None] == host[None, :], bandwidth, 0.0)


def _parse(data: bytes, name: str) -> tuple[list[_Gpu], dict[str, dict[str, float]]]:
    """Return the GPUs, and the speed of each network port by host."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError.of("not_xml", name, "The file is not UTF-8 text.", "Record it again.") from error
    if re.search(r"<!(?!--)", text):
        detail = "The file has a document type, entities or raw sections, which NCCL does not write."
        raise InputError.of("xml_doctype", name, detail, "Record it again.")
    found = Violations()
    gpus: list[_Gpu] = []
    nics: dict[str, dict[str, float]] = {}
    path: list[ET.Element] = []
    try:
        parser: Any = ET.XMLPullParser(events=("start", "end"))  # no entity gets this far
        parser.feed(text)
        parser.close()
        for event, element in parser.read_events():
            if event == "end":
                path.pop()
                continue
            path.append(element)
            if len(path) > MAX_DEPTH:
                raise InputError.of("not_xml", name, "The elements are nested too deeply.", "Record it again.")
            _take(path, gpus, nics, found, name)
    except ET.ParseError as error:
        raise InputError.of("not_xml", name, f"This is not XML: {error}.", "Record it again.") from error
    found.raise_if_any()
    return gpus, nics


def _take(
    path: list[ET.Element], gpus: list[_Gpu], nics: dict[str, dict[str, float]], found: Violations, name: str
) -> None:
    """Note a GPU, a link or a port."""
    element = path[-1]
    cpu = next((outer for outer in reversed(path) if outer.tag == "cpu"), None)
    host = "" if cpu is None else cpu.get("host_hash", "")
    place = f"{name}#{element.tag}"
    if element.tag == "gpu":
        pci = next((outer for outer in reversed(path) if outer.tag == "pci"), None)
        gpus.append(
            _Gpu(
                rank=_number(element, "rank", place, found, default=(dev := _number(element, "dev", place, found))),
                dev=dev,
                sm=_number(element, "sm", place, found, default=0),
                host=host,
                numa="" if cpu is None else cpu.get("numaid", ""),
                bus="" if pci is None else pci.get("busid", "").lower(),
                pcie=PCIE_GB_S if pci is None else _pcie_speed(pci),
            )
        )
    elif element.tag == "nvlink" and gpus and any(outer.tag == "gpu" for outer in path):
        target = element.get("target", "").lower()
        before = len(found.found)
        count = _number(element, "count", place, found)
        if count == 0 and len(found.found) == before:
            detail = f"A link to {target[:40]!r} of GPU {gpus[-1].dev} counts 0."
            found.add("nccl_links", f"{place}/count", detail, "Record it again; what is not linked has no entry.")
        gpus[-1].links[target] = gpus[-1].links.get(target, 0) + count
    elif element.tag == "net":
        speed = _number(element, "speed", place, found, default=0) / MBIT_PER_GB
        key = element.get("guid", "") + element.get("name", "") + element.get("port", "")
        nics.setdefault(host, {})[key] = min(speed, FASTEST)


def _number(element: ET.Element, name: str, place: str, found: Violations, default: int | None = None) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\s*\d{1,9}\s*", text):
        detail = f"{name} is {text!r:.40}, which is no number."
        found.add("nccl_number", f"{place}/{name}", detail, "Record it again.")
        return 0
    return int(text)


def _pcie_speed(pci: ET.Element) -> float:
    """Return GB/s of a PCIe port, as it was negotiated; the usual where the file does not say it."""
    speed, width = SPEED.match(pci.get("link_speed", "")), pci.get("link_width", "")
    if speed is None or not re.fullmatch(r"\d{1,2}", width) or int(width) == 0:
        return PCIE_GB_S
    return min(max(float(speed[1]) * int(width) * PCIE_ENCODING, SLOWEST), FASTEST)
