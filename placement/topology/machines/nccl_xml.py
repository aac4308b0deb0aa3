"""The XML of NCCL and RCCL as elements: GPUs with their links, and network ports."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

from placement.topology.links import FASTEST, SLOWEST
from placement.topology.machines.smi import PCIE_GB_S
from traces import InputError, Violations

__all__ = ["Gpu", "Link", "parse"]

MAX_DEPTH = 64
KNOWN = ("nvlink", "xgmi", "c2c")  # elements inside gpu
DISPLAY_CLASS = "0x03"  # PCI class of a GPU, of which one that is not in the file can't be reached
SPEED = re.compile(r"\s*(\d{1,3}(?:\.\d+)?)\s*GT/s")
PCIE_ENCODING = 128 / 130 / 8  # bytes per transfer and lane, from PCIe 3.0 on
MBIT_PER_GB = 8000
MB_PER_GB = 1000


@dataclass(frozen=True, kw_only=True)
class Link:
    """Links of a GPU to another one, or to a switch.

    Attributes
    ----------
    kind : {"nvlink", "xgmi"}
    target : str
        Bus address.
    count : int
    switch : bool
        Whether the target may be a switch.
    """

    kind: str
    target: str
    count: int
    switch: bool


@dataclass(kw_only=True)
class Gpu:
    """A GPU of the file.

    Attributes
    ----------
    rank, dev, sm : int
        `sm` is the compute capability in NCCL's files; in RCCL's it is something else.
    gcn : str
        Architecture in RCCL's files, as in gfx942; empty in NCCL's.
    host, numa, bus : str
    pcie : float
        GB/s per direction of its PCIe port.
    pcie_known : bool
        Whether the file says so.
    c2c : float
        GB/s per direction to the processor beside PCIe; 0 without.
    links : list of Link
    """

    rank: int
    dev: int
    sm: int
    gcn: str
    host: str
    numa: str
    bus: str
    pcie: float
    pcie_known: bool
    c2c: float = 0.0
    links: list[Link] = field(default_factory=list)


def parse(text: str, name: str) -> tuple[list[Gpu], dict[str, dict[str, float]]]:
    """Return the GPUs, and the speed of each network port by host.

    Raises
    ------
    InputError
        If it is no such XML, has a document type or entities, or elements inside a GPU that nobody knows.
    """
    if re.search(r"<!(?!--)", text):
        detail = "The file has a document type, entities or raw sections, which NCCL does not write."
        raise InputError.of("xml_doctype", name, detail, "Record it again.")
    found = Violations()
    gpus: list[Gpu] = []
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
    path: list[ET.Element], gpus: list[Gpu], nics: dict[str, dict[str, float]], found: Violations, name: str
) -> None:
    """Note a GPU, a link or a port."""
    element = path[-1]
    cpu = next((outer for outer in reversed(path) if outer.tag == "cpu"), None)
    host = "" if cpu is None else cpu.get("host_hash", "")
    place = f"{name}#{element.tag}"
    if element.tag == "gpu":
        pci = next((outer for outer in reversed(path) if outer.tag == "pci"), None)
        gpus.append(
            Gpu(
                rank=_number(element, "rank", place, found, default=(dev := _number(element, "dev", place, found))),
                dev=dev,
                sm=_number(element, "sm", place, found, default=0),
                gcn=_architecture(element.get("gcn", "")),
                host=host,
                numa="" if cpu is None else cpu.get("numaid", ""),
                bus="" if pci is None else pci.get("busid", "").lower(),
                pcie=PCIE_GB_S if (speed := _pcie_speed(pci)) is None else speed,
                pcie_known=speed is not None,
            )
        )
    elif gpus and len(path) > 1 and path[-2].tag == "gpu":
        _take_link(element, gpus[-1], place, found)
    elif element.tag == "net":
        rate = _number(element, "speed", place, found, default=0) / MBIT_PER_GB
        key = element.get("guid", "") + element.get("name", "") + element.get("port", "")
        nics.setdefault(host, {})[key] = min(rate, FASTEST)


def _take_link(element: ET.Element, gpu: Gpu, place: str, found: Violations) -> None:
    """Note a link of a GPU, and refuse what is none of those that are known."""
    if element.tag not in KNOWN:
        detail = f"<{element.tag[:40]}> inside <gpu> is not known; known are {', '.join(KNOWN)}."
        remedy = "Take the element out if it is no link between GPUs; else write a topology file."
        found.add("nccl_element", place, detail, remedy)
        return
    before = len(found.found)
    if element.tag == "c2c":
        megabytes = _number(element, "bw", place, found, default=0)
        gpu.c2c = min(FASTEST, megabytes * _number(element, "count", place, found, default=1) / MB_PER_GB)
        return
    target = element.get("target", "").lower()
    count = _number(element, "count", place, found)
    if count == 0 and len(found.found) == before:
        detail = f"A link to {target[:40]!r} of GPU {gpu.dev} counts 0."
        found.add("nccl_links", f"{place}/count", detail, "Record it again; what is not linked has no entry.")
    switch = element.tag == "nvlink" and not element.get("tclass", "").startswith(DISPLAY_CLASS)
    gpu.links.append(Link(kind=element.tag, target=target, count=count, switch=switch))


def _number(element: ET.Element, name: str, place: str, found: Violations, default: int | None = None) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\s*\d{1,9}\s*", text):
        detail = f"{name} is {text!r:.40}, which is no number."
        found.add("nccl_number", f"{place}/{name}", detail, "Record it again.")
        return 0
    return int(text)


def _pcie_speed(pci: ET.Element | None) -> float | None:
    """Return GB/s of a PCIe port, as it was negotiated; None where the file does not say it."""
    if pci is None:
        return None
    speed, width = SPEED.match(pci.get("link_speed", "")), pci.get("link_width", "")
    if speed is None or not re.fullmatch(r"\d{1,2}", width) or int(width) == 0:
        return None
    return min(max(float(speed[1]) * int(width) * PCIE_ENCODING, SLOWEST), FASTEST)


def _architecture(gcn: str) -> str:
    """Return the name of an architecture of AMD: ``gfx942`` of ``942`` or ``gfx942:sramecc+:xnack-``."""
    name = gcn.strip().lower().partition(":")[0]
    old = {"910": "90a"}.get(name, name)  # RCCL's number for MI200 before 2024
    return old if not old or old.startswith("gfx") else f"gfx{old}"
