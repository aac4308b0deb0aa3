"""``rocm-smi --showtopo`` and ``amd-smi topology``, as text or JSON: how each pair of a host's GPUs is linked.

Both print several tables of all pairs. The one of link types says XGMI or PCIE; hops tell PCIe inside a NUMA node from
PCIe across; weights grow with the XGMI links on a way; ``amd-smi`` may have bandwidths, in MB/s.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from placement.topology.links import FASTEST, SLOWEST
from placement.topology.machines.amd_tables import Tables
from placement.topology.machines.machine import Machine, joined, no_links
from placement.topology.machines.options import Overrides
from placement.topology.machines.smi import PCIE_GB_S, SHARES
from traces import InputError, Violations

__all__ = ["XGMI_GB_S", "machine_of"]

# GB/s per XGMI link and direction, by the start of the architecture's name: from AMD's data sheets.
XGMI_GB_S = {"gfx95": 76.8, "gfx94": 64.0, "gfx90a": 50.0, "gfx90": 46.0}
UNKNOWN_GB_S = 50.0
MESH_OF_8 = 8  # GPUs that are all linked to each other directly: MI300X and MI325X
LINKED, PCIE, SELF = "XGMI", "PCIE", ("SELF", "0", "X")
ACROSS = 3  # hops over PCIe between NUMA nodes
MB_PER_GB = 1000


def machine_of(tables: Tables, name: str, overrides: Overrides) -> Machine:
    """Return the machine of a host that the tables describe.

    Raises
    ------
    InputError
        If there are no link types, a word is unknown, or the tables contradict each other.
    """
    if not tables.types:
        detail = "There is no table of link types, so nothing says how the GPUs are linked."
        remedy = f"Record `{tables.command}`, with all its tables."
        raise InputError.of("amd_tables", name, detail, remedy)
    if overrides.nvlink_gb_s is not None:
        raise no_links(name, "nvlink_gb_s", " AMD's links are XGMI: xgmi_gb_s.")
    linked = _linked(tables.types, name)
    if overrides.xgmi_gb_s is not None and not linked.any():
        raise no_links(name, "xgmi_gb_s")
    gpus = len(linked)
    notes: list[str] = []
    pcie = PCIE_GB_S if overrides.pcie_gb_s is None else overrides.pcie_gb_s
    bandwidth = np.where(linked, _xgmi(tables, linked, overrides, notes), _pcie(tables, linked, pcie, notes))
    np.fill_diagonal(bandwidth, 0.0)
    if not linked.any() and gpus > 1:
        notes.insert(0, "No XGMI link was seen: hops inside a host go over PCIe.")
    if overrides.pcie_gb_s is None and not linked[~np.eye(gpus, dtype=bool)].all():
        notes.append(f"PCIe is assumed to have {pcie:g} GB/s per GPU and direction (4.0, 16 lanes; pcie_gb_s).")
    host = np.zeros(gpus, dtype=np.int64)
    return Machine(
        name=name,
        bandwidth=bandwidth,
        host=host,
        domain=joined(linked, host),
        over_pcie=~linked & ~np.eye(gpus, dtype=bool),
        port_gb_s=overrides.pcie_gb_s,
        host_ends_nvlink=True,
        visible="HIP_VISIBLE_DEVICES",
        notes=tuple(notes),
    )


def _linked(types: tuple[tuple[str, ...], ...], name: str) -> npt.NDArray[np.bool_]:
    """Return which pairs XGMI links, (G, G).

    Raises
    ------
    InputError
    """
    found = Violations()
    linked = np.zeros((len(types), len(types)), dtype=bool)
    for gpu, row in enumerate(types):
        for other, word in enumerate(row):
            place = f"{name}#link type, GPU {gpu} to {other}"
            if (gpu == other) != (word in SELF):
                found.add("amd_diagonal", place, f"{word!r:.20} is at the wrong place.", "Record it again.")
            elif word == LINKED:
                linked[gpu, other] = True
            elif word not in (PCIE, *SELF):
                detail = f"{word!r:.20} is none of XGMI, PCIE, SELF or 0."
                found.add("amd_word", place, detail, "Record it again, with the driver loaded for all GPUs.")
    if not found.found and (linked != linked.T).any():
        found.add("amd_asymmetric", name, "The table of link types is not the same both ways.", "Record it again.")
    found.raise_if_any()
    return linked


def _xgmi(
    tables: Tables, linked: npt.NDArray[np.bool_], overrides: Overrides, notes: list[str]
) -> npt.NDArray[np.float64]:
    """Return GB/s of pairs that XGMI links: as the caller says, as the driver says, else assumed."""
    if not linked.any():
        return np.zeros(linked.shape)
    told = _numbers(tables.bandwidth, lambda word: _most(word) / MB_PER_GB)
    if overrides.xgmi_gb_s is None and told is not None and (told[linked] >= SLOWEST).all():
        notes.append(f"XGMI has {told[linked].min():g} to {told[linked].max():g} GB/s per pair, as the driver says.")
        return np.minimum(np.maximum(told, told.T), FASTEST)
    gpus = len(linked)
    mesh = gpus >= MESH_OF_8 and bool(linked[~np.eye(gpus, dtype=bool)].all())
    speed = overrides.xgmi_gb_s
    if speed is None:
        speed = XGMI_GB_S["gfx94"] if mesh else UNKNOWN_GB_S
        like = "MI300X" if mesh else "MI200"
        notes.append(f"An XGMI link is assumed to have {speed:g} GB/s per direction ({like}; xgmi_gb_s).")
    weight = _numbers(tables.weight, _whole)
    if weight is None or not (weight[linked] > 0).all():
        return np.full(linked.shape, speed)
    # More links on the way weigh more: half the speed over two.
    share = float(weight[linked].min()) / np.where(linked, weight, np.inf)
    return np.maximum(SLOWEST, speed * np.maximum(share, share.T))


def _pcie(tables: Tables, linked: npt.NDArray[np.bool_], pcie: float, notes: list[str]) -> npt.NDArray[np.float64]:
    """Return GB/s of pairs over PCIe: less across NUMA nodes."""
    hops = _numbers(tables.hops, _whole)
    numa = np.array(tables.numa) if tables.numa else None
    other = ~np.eye(len(linked), dtype=bool) & ~linked
    if hops is not None:
        across = hops >= ACROSS
    elif numa is not None:
        across = numa[:, None] != numa[None, :]
    else:
        across = np.ones(linked.shape, dtype=bool)
        if other.any():
            notes.append("Neither hops nor NUMA nodes are there: all PCIe is taken to cross sockets.")
    if other.any():
        notes.append(f"Shares of PCIe are assumed: {SHARES['NODE']:g} inside a NUMA node, {SHARES['SYS']:g} across.")
    return np.maximum(SLOWEST, pcie * np.where(across | across.T, SHARES["SYS"], SHARES["NODE"]))


def _numbers(table: tuple[tuple[str, ...], ...], read: Callable[[str], float]) -> npt.NDArray[np.float64] | None:
    """Return a table of numbers; None where it is missing."""
    return np.array([[read(word) for word in row] for row in table], dtype=np.float64) if table else None


def _whole(word: str) -> float:
    return float(word) if re.fullmatch(r"\d{1,9}", word) else 0.0


def _most(word: str) -> float:
    """Return the larger end of ``50000-100000``; 0 where the driver does not know it."""
    ends = re.fullmatch(r"(\d{1,9})\s*-\s*(\d{1,9})", word)
    return float(ends[2]) if ends else _whole(word)
