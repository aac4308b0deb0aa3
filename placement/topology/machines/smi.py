"""``nvidia-smi topo -m``: how each pair of a host's GPUs is linked.

Bandwidths are nominal: ``NV#`` is # links of 25 GB/s per direction (NVLink 2 to 4), or 50 GB/s (NVLink 5); the rest is
PCIe, 4.0 with 16 lanes unless `pcie_gb_s` says otherwise, with less across sockets.
"""

from __future__ import annotations

import re

import numpy as np

from placement.topology.machines.machine import Machine, Overrides, joined, no_nvlink
from traces import InputError, Violations

__all__ = ["read", "sniff"]

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
HEADER = re.compile(rb"^\s*(?:\x1b\[[0-9;]*m)?\s*GPU\d+(\s+GPU\d+|\s+\x1b|\s+(NIC|mlx|CPU))", re.MULTILINE)
NVLINK = re.compile(r"NV([1-9]\d?)")
PCIE_GB_S = 25.0
SHARES = {"PIX": 1.0, "PXB": 1.0, "PHB": 0.8, "NODE": 0.7, "SYS": 0.5, "SOC": 0.5}
NVLINK_GB_S = 25.0
AMBIGUOUS_LINKS = 18  # H100 and H200 have 18 of NVLink 4, B200 and GB200 18 of NVLink 5
MAX_HOST_GPUS = 64


def sniff(data: bytes) -> bool:
    """Whether a line names GPUs as columns."""
    return HEADER.search(data[:65536]) is not None


def read(data: bytes, name: str, overrides: Overrides) -> Machine:
    """Read the matrix of a host.

    Raises
    ------
    InputError
        If rows are missing or contradict each other, a word is unknown, or the links' speed can't be told.
    """
    lines = ESCAPES.sub("", data.decode("utf-8", "replace")).splitlines()
    cells, gpus, first = _matrix(lines, name)
    found = Violations()
    links = np.zeros((gpus, gpus), dtype=np.int64)
    bandwidth = np.zeros((gpus, gpus))
    pcie = PCIE_GB_S if overrides.pcie_gb_s is None else overrides.pcie_gb_s
    for gpu, row in enumerate(cells):
        for other, word in enumerate(row):
            place = f"{name}#line {first + gpu}, GPU{other}"
            if (gpu == other) != (word == "X"):
                found.add("smi_diagonal", place, f"{word!r:.20} is at the wrong place.", "Record it again.")
            elif match := NVLINK.fullmatch(word):
                links[gpu, other] = int(match[1])
            elif word in SHARES:
                bandwidth[gpu, other] = pcie * SHARES[word]
            elif word != "X":
                known = ", ".join((*SHARES, "NV1 to NV99", "X"))
                found.add("smi_word", place, f"{word!r:.20} is none of {known}.", "Record it again.")
    if not found.found and (links != links.T).any():
        found.add("smi_asymmetric", name, "The matrix is not the same both ways.", "Record it again.")
    found.raise_if_any()
    per_link = overrides.nvlink_gb_s
    if per_link is not None and not links.any():
        raise no_nvlink(name)
    if per_link is None and links.max() >= AMBIGUOUS_LINKS:
        detail = f"NV{links.max()} is 25 GB/s per link on H100, H200 and H20, and 50 on B200, B300 and GB200."
        remedy = "Add nvlink_gb_s=25 or nvlink_gb_s=50 behind the file's name: FILE,nvlink_gb_s=25."
        raise InputError.of("nvlink_generation", name, detail, remedy)
    bandwidth += links * (NVLINK_GB_S if per_link is None else per_link)
    host = np.zeros(gpus, dtype=np.int64)
    # Without NVLink, or with other counts than those of NVLink switches that join hosts, it ends here.
    ends = None if links.max() >= AMBIGUOUS_LINKS and gpus <= 4 else True
    return Machine(name=name, bandwidth=bandwidth, host=host, domain=joined(links > 0, host), host_ends_nvlink=ends)


def _matrix(lines: list[str], name: str) -> tuple[list[list[str]], int, int]:
    """Return the words between GPUs, their number, and the line of the first row."""
    header = next(
        (at for at, line in enumerate(lines) if re.match(r"\s*GPU\d+(\s|$)", line) and _is_header(line)), None
    )
    if header is None:
        raise InputError.of("smi_header", name, "No line names the GPUs.", "Record `nvidia-smi topo -m` again.")
    columns = [word for word in lines[header].split() if re.fullmatch(r"GPU\d+", word)]
    gpus = len(columns)
    rows = {}
    for line in lines[header + 1 :]:
        words = line.split()
        if words and words[0] in columns:
            if words[0] in rows:
                raise InputError.of("smi_rows", name, f"Two rows for {words[0]}.", "Give the output for one host.")
            rows[words[0]] = words[1 : gpus + 1]
    wrong = [column for column in columns if len(rows.get(column, ())) != gpus]
    if wrong or len(set(columns)) != gpus or not 1 <= gpus <= MAX_HOST_GPUS:
        detail = f"Rows of {wrong[:8] or columns[:8]} are missing, cut off or repeated."
        raise InputError.of("smi_rows", name, detail, "Record `nvidia-smi topo -m` again.")
    return [rows[column] for column in columns], gpus, header + 2


def _is_header(line: str) -> bool:
    """Whether a line is the header and not a row: its second word is no link."""
    words = line.split()
    return len(words) == 1 or not (words[1] == "X" or words[1] in SHARES or NVLINK.fullmatch(words[1]) is not None)
