"""``nvidia-smi topo -m``: how each pair of a host's GPUs is linked.

Bandwidths are nominal: ``NV#`` is # links of 25 GB/s per direction (NVLink 2 to 4), or 50 GB/s (NVLink 5); the rest is
PCIe, 4.0 with 16 lanes unless `pcie_gb_s` says otherwise, with less across sockets. ``topo -mp`` hides NVLink, and
``topo -p2p`` says which GPUs reach each other's memory, not how.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.topology.machines.machine import Machine, joined, no_links
from placement.topology.machines.options import Overrides
from traces import InputError, Violations

__all__ = ["PCIE_GB_S", "SHARES", "read", "sniff"]

GPU = re.compile(r"GPU\d{1,6}")
HEADER = re.compile(r"^[ \t]*GPU\d+[ \t]*(?:[ \t](?:GPU\d|NIC\d|mlx\d|CPU)|$)", re.MULTILINE)
PORT = re.compile(r"NIC\d+|mlx\d\S*|bnxt\S*|rdma\S*|irdma\S*|efa\S*", re.IGNORECASE)
NVLINK = re.compile(r"NV([1-9]\d?)")
PCIE_GB_S = 25.0  # 4.0 with 16 lanes, less what its protocol takes
PCIE_5_GB_S = 50.0
SHARES = {"PIX": 1.0, "PXB": 1.0, "PHB": 0.8, "NODE": 0.7, "SYS": 0.5, "SOC": 0.5}
NVLINK_GB_S = 25.0
AMBIGUOUS_LINKS = 18  # H100 and H200 have 18 of NVLink 4, B200 and GB200 18 of NVLink 5
MAX_HOST_GPUS = 64
REACH = frozenset({"OK", "CNS", "GNS", "TNS", "NS", "DR", "U"})  # words of topo -p2p


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Words between GPUs, the line of the first row, and how many network ports the header names."""

    words: tuple[tuple[str, ...], ...]
    line: int
    ports: int

    @property
    def reach(self) -> bool:
        """Whether it says which GPUs reach each other's memory (``topo -p2p``)."""
        between = {word for at, row in enumerate(self.words) for word in (*row[:at], *row[at + 1 :])}
        return bool(between) and between <= REACH

    @property
    def links(self) -> bool:
        """Whether it has NVLinks."""
        return any(NVLINK.fullmatch(word) for row in self.words for word in row)


def sniff(text: str) -> bool:
    """Whether a line names GPUs as columns."""
    return HEADER.search(text[:65536]) is not None


def read(text: str, name: str, overrides: Overrides) -> Machine:
    """Read the matrix of a host.

    Raises
    ------
    InputError
        If rows are missing or contradict each other, a word is unknown, or the links' speed can't be told.
    """
    lines = text.splitlines()
    tables = _tables(lines, name)
    table = _chosen(tables, name)
    gpus = len(table.words)
    links, shares = _numbers(table, name)
    hidden = not links.any() and _hides_nvlink(lines)
    if overrides.xgmi_gb_s is not None:
        raise no_links(name, "xgmi_gb_s")
    per_link = overrides.nvlink_gb_s
    if per_link is not None and not links.any():
        reason = " `nvidia-smi topo -mp` hides NVLink: record `nvidia-smi topo -m`." if hidden else ""
        raise no_links(name, "nvlink_gb_s", reason)
    if per_link is None and links.max() >= AMBIGUOUS_LINKS:
        detail = f"NV{links.max()} is 25 GB/s per link on H100, H200 and H20, and 50 on B200, B300 and GB200."
        remedy = "Add nvlink_gb_s=25 or nvlink_gb_s=50 behind the file's name: FILE,nvlink_gb_s=25."
        raise InputError.of("nvlink_generation", name, detail, remedy)
    # GPUs with 18 links have PCIe 5.0; others may have 4.0.
    usual = PCIE_5_GB_S if links.max() >= AMBIGUOUS_LINKS else PCIE_GB_S
    pcie = usual if overrides.pcie_gb_s is None else overrides.pcie_gb_s
    speed = NVLINK_GB_S if per_link is None else per_link
    host = np.zeros(gpus, dtype=np.int64)
    return Machine(
        name=name,
        bandwidth=links * speed + shares * pcie,
        host=host,
        domain=joined(links > 0, host),
        over_pcie=shares > 0,
        port_gb_s=pcie,
        network_ports=table.ports,
        # Without NVLink, or with other counts than those of NVLink switches that join hosts, it ends here.
        host_ends_nvlink=None if links.max() >= AMBIGUOUS_LINKS and gpus <= 4 else True,
        notes=(
            *_notes(table, links, speed, None if overrides.pcie_gb_s else pcie, overrides, hidden),
            *_twice(sum(one.words == table.words for one in tables), overrides.hosts),
        ),
    )


def _twice(alike: int, hosts: int) -> tuple[str, ...]:
    """Return a note where the text has the same table several times, and the caller names one host."""
    if alike == 1 or hosts > 1:
        return ()
    return (f"The text has {alike} tables that are alike, which are read as one host: add hosts={alike} if it is not.",)


def _notes(
    table: _Table,
    links: npt.NDArray[np.int64],
    per_link: float,
    assumed_pcie: float | None,
    overrides: Overrides,
    hidden: bool,
) -> tuple[str, ...]:
    notes = []
    over_pcie = sorted({word for row in table.words for word in row if word in SHARES}, key=list(SHARES).index)
    if not links.any() and len(table.words) > 1:
        note = "No NVLink was seen: hops inside a host go over PCIe."
        if hidden:
            note += (
                " The legend has no NV#, so this is `nvidia-smi topo -mp`, which hides NVLink: if there is any, give"
            )
            note += " the output of `nvidia-smi topo -m`."
        notes.append(note)
    elif overrides.nvlink_gb_s is None and links.any():
        notes.append(f"An NVLink is assumed to have {per_link:g} GB/s per direction (NVLink 2 to 4; nvlink_gb_s).")
    if over_pcie and assumed_pcie is not None:
        notes.append(f"PCIe is assumed to have {assumed_pcie:g} GB/s per GPU and direction (4.0, 16 lanes; pcie_gb_s).")
    if parts := [f"{word} {SHARES[word]:g}" for word in over_pcie if SHARES[word] < 1]:
        notes.append(f"Shares of it are assumed: {', '.join(parts)}.")
    return tuple(notes)


def _numbers(table: _Table, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the NVLinks of each pair, and the share of PCIe of the others, (G, G).

    Raises
    ------
    InputError
    """
    found = Violations()
    gpus = len(table.words)
    links, shares = np.zeros((gpus, gpus), dtype=np.int64), np.zeros((gpus, gpus))
    for gpu, row in enumerate(table.words):
        for other, word in enumerate(row):
            place = f"{name}#line {table.line + gpu}, GPU{other}"
            if (gpu == other) != (word == "X"):
                found.add("smi_diagonal", place, f"{word!r:.20} is at the wrong place.", "Record it again.")
            elif match := NVLINK.fullmatch(word):
                links[gpu, other] = int(match[1])
            elif word in SHARES:
                shares[gpu, other] = SHARES[word]
            elif word != "X":
                known = ", ".join((*SHARES, "NV1 to NV99", "X"))
                found.add("smi_word", place, f"{word!r:.20} is none of {known}.", "Record it again.")
    if not found.found and ((links != links.T).any() or (shares != shares.T).any()):
        found.add("smi_asymmetric", name, "The matrix is not the same both ways.", "Record it again.")
    found.raise_if_any()
    return links, shares


def _tables(lines: list[str], name: str) -> list[_Table]:
    """Return all tables of the text."""
    headers = [at for at, line in enumerate(lines) if HEADER.match(line)]
    if not headers:
        raise InputError.of("smi_header", name, "No line names the GPUs.", "Record `nvidia-smi topo -m` again.")
    return [_table(lines, at, end, name) for at, end in zip(headers, (*headers[1:], len(lines)), strict=True)]


def _table(lines: list[str], header: int, end: int, name: str) -> _Table:
    """Return the table below a header."""
    named = lines[header].split()
    columns = [word for word in named if GPU.fullmatch(word)]
    gpus = len(columns)
    rows: dict[str, tuple[str, ...]] = {}
    first = header + 2
    for at in range(header + 1, end):
        words = lines[at].split()
        if words and words[0] in columns:
            if words[0] in rows:
                raise InputError.of("smi_rows", name, f"Two rows for {words[0]}.", "Give the output for one host.")
            first = first if rows else at + 1
            rows[words[0]] = tuple(words[1 : gpus + 1])
    wrong = [column for column in columns if len(rows.get(column, ())) != gpus]
    if wrong or len(set(columns)) != gpus or not 1 <= gpus <= MAX_HOST_GPUS:
        detail = f"Rows of {wrong[:8] or columns[:8]} are missing, cut off or repeated."
        raise InputError.of("smi_rows", name, detail, "Record `nvidia-smi topo -m` again.")
    ports = sum(PORT.match(word) is not None for word in named)
    return _Table(words=tuple(rows[column] for column in columns), line=first, ports=ports)


def _chosen(tables: list[_Table], name: str) -> _Table:
    """Return the one table that says how GPUs are linked; beside ``topo -mp``, that of ``topo -m``."""
    linking = [table for table in tables if not table.reach]
    if not linking:
        detail = (
            "This is `nvidia-smi topo -p2p`: it says which GPUs reach each other's memory, not which links they have."
        )
        raise InputError.of("smi_p2p", name, detail, "Record `nvidia-smi topo -m`, which says how GPUs are linked.")
    best = [table for table in linking if table.links] or linking
    if any(table.words != best[0].words for table in best) or {len(table.words) for table in linking} != {
        len(best[0].words)
    }:
        detail = f"The text has {len(best)} tables of links that differ."
        raise InputError.of("smi_tables", name, detail, "Give the output of `nvidia-smi topo -m` for one host.")
    return best[0]


def _hides_nvlink(lines: list[str]) -> bool:
    """Whether there is a legend, and none for NVLink: that of ``topo -mp``."""
    legend = {line.split()[0] for line in lines if re.match(r"\s*[A-Z#]{1,4}\s+=\s", line)}
    return "PIX" in legend and "NV#" not in legend
