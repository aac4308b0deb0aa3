"""The tables that ``rocm-smi --showtopo`` and ``amd-smi topology`` print, from text and from JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from traces import InputError

__all__ = ["Tables", "from_json", "from_text", "is_json", "sniff"]

Table = tuple[tuple[str, ...], ...]
BUS = r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]"
DEVICE = re.compile(rf"GPU\d{{1,4}}|{BUS}")
# What a table has, by words of its title.
TITLES = {
    "types": re.compile(r"link type", re.IGNORECASE),
    "weight": re.compile(r"\bweight\b", re.IGNORECASE),
    "hops": re.compile(r"\bhops\b", re.IGNORECASE),
    "bandwidth": re.compile(r"numa bw|\bbandwidth\b", re.IGNORECASE),
}
ROCM_TITLE = re.compile(r"^\s*[=-]{3,}.*\b(?:between two GPUs|Numa Nodes)\b.*[=-]{3,}\s*$", re.MULTILINE)
AMD_TITLE = re.compile(r"^\s*[A-Z][A-Z -]* TABLE:?\s*$", re.MULTILINE)
TITLE = re.compile(r"^\s*(?:[=-]{3,}.*[=-]{3,}|[A-Z][A-Z -]* TABLE:?)\s*$")
NUMA = re.compile(r"^\s*GPU\s*\[?(\d{1,4})\]?\s*:?\s*:\s*\(Topology\) Numa Node:\s*(-?\d{1,6})", re.MULTILINE)
PAIR = re.compile(r"\(topology\) (link type|weight|hops) between drm devices (\d{1,4}) and (\d{1,4})", re.IGNORECASE)
CARD = re.compile(r"(?:card|gpu)\s*(\d{1,4})", re.IGNORECASE)
JSON_KEYS = {
    "types": ("link_type",),
    "weight": ("weight",),
    "hops": ("num_hops", "hops"),
    "bandwidth": ("bandwidth", "numa_bandwidth"),
}
MAX_GPUS = 64
ROCM, AMD = "rocm-smi --showtopo", "amd-smi topology"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Words of each pair of GPUs, G rows of G; empty where a table is missing."""

    command: str
    types: Table = ()
    weight: Table = ()
    hops: Table = ()
    bandwidth: Table = ()
    numa: tuple[int, ...] = field(default=())


def sniff(text: str) -> bool:
    """Whether the text has titles of such tables."""
    start = text[:65536]
    return ROCM_TITLE.search(start) is not None or AMD_TITLE.search(start) is not None


def from_text(text: str, name: str) -> Tables:
    """Return the tables of a text.

    Raises
    ------
    InputError
        If a table is cut off, there twice, or for other GPUs than the rest.
    """
    lines = text.splitlines()
    found: dict[str, Table] = {}
    gpus = 0
    at = 0
    while at < len(lines):
        kind = _kind(lines[at]) if TITLE.match(lines[at]) else None
        at += 1
        if kind is None:
            continue
        if kind in found:
            detail = f"The table of {kind} is there twice."
            raise InputError.of("amd_tables", name, detail, "Give the output for one host.")
        found[kind], at = _table(lines, at, name)
        gpus = gpus or len(found[kind])
        if len(found[kind]) != gpus:
            detail = f"The table of {kind} has {len(found[kind])} GPUs, another one {gpus}."
            raise InputError.of("amd_tables", name, detail, "Record it again.")
    numa = {int(gpu): int(node) for gpu, node in NUMA.findall(text)}
    nodes = tuple(numa[gpu] for gpu in range(gpus)) if set(range(gpus)) <= numa.keys() else ()
    command = AMD if AMD_TITLE.search(text) is not None else ROCM
    return Tables(command=command, numa=nodes, **found)


def is_json(content: Any) -> bool:
    """Whether JSON is that of ``amd-smi topology --json`` or ``rocm-smi --showtopo --json``."""
    if isinstance(content, dict) and isinstance(content.get("system"), dict):
        return any("(topology)" in str(key).lower() for key in content["system"])
    gpus = _gpus(content)
    return bool(gpus) and all(isinstance(gpu, dict) and "gpu" in gpu for gpu in gpus)


def from_json(content: Any, name: str) -> Tables:
    """Return the tables of JSON that `is_json` knows.

    Raises
    ------
    InputError
        If a pair of GPUs is missing.
    """
    if isinstance(content, dict) and isinstance(content.get("system"), dict):
        return _of_pairs(content, name)
    gpus = _gpus(content)
    _check_size(len(gpus), name)
    place = {str(gpu["gpu"]): number for number, gpu in enumerate(gpus)}
    if len(place) != len(gpus):
        raise InputError.of("amd_tables", name, "A GPU is there twice.", "Record it again.")
    tables: dict[str, dict[tuple[int, int], str]] = {kind: {} for kind in JSON_KEYS}
    for number, gpu in enumerate(gpus):
        links = gpu.get("links")
        for link in links if isinstance(links, list) else ():
            other = place.get(str(link.get("gpu"))) if isinstance(link, dict) else None
            if other is None:
                detail = f"A link of GPU {number} leads to no GPU that is there."
                raise InputError.of("amd_tables", f"{name}#/{number}/links", detail, "Record it again.")
            for kind, keys in JSON_KEYS.items():
                if (word := next((link[key] for key in keys if key in link), None)) is not None:
                    tables[kind][number, other] = str(word).strip().upper()
        for kind, keys in JSON_KEYS.items():  # the form of ROCm 6.1 and before
            for key in keys:
                by_gpu = gpu.get(key)
                for other_name, word in by_gpu.items() if isinstance(by_gpu, dict) else ():
                    other = place.get(str(other_name).removeprefix("gpu_"))
                    if other is not None:
                        tables[kind][number, other] = str(word).strip().upper()
    return replace(_filled(tables, len(gpus), name), command=f"{AMD} --json")


def _of_pairs(content: dict[str, Any], name: str) -> Tables:
    """Return the tables of ``rocm-smi``, which has an entry for each pair of GPUs, one way."""
    pairs: dict[str, dict[tuple[int, int], str]] = {kind: {} for kind in JSON_KEYS}
    kinds = {"link type": "types", "weight": "weight", "hops": "hops"}
    for key, word in content["system"].items():
        if match := PAIR.fullmatch(str(key).strip()):
            a, b, said = int(match[2]), int(match[3]), str(word).strip().upper()
            pairs[kinds[match[1].lower()]] |= {(a, b): said, (b, a): said}
    numa: dict[int, int] = {}
    for key, value in content.items():
        match = CARD.fullmatch(key)
        node = value.get("(Topology) Numa Node") if isinstance(value, dict) else None
        if match and re.fullmatch(r"-?\d{1,6}", str(node)):
            numa[int(match[1])] = int(str(node))
    gpus = 1 + max((gpu for pair in pairs["types"] for gpu in pair), default=-1)
    _check_size(gpus, name)
    for kind in pairs:
        if pairs[kind]:
            pairs[kind] |= {(gpu, gpu): "0" for gpu in range(gpus)}
    nodes = tuple(numa[gpu] for gpu in range(gpus)) if set(range(gpus)) <= numa.keys() else ()
    return replace(_filled(pairs, gpus, name), command=f"{ROCM} --json", numa=nodes)


def _filled(tables: dict[str, dict[tuple[int, int], str]], gpus: int, name: str) -> Tables:
    """Return full tables; those that nothing is known of stay empty."""
    full: dict[str, Table] = {}
    for kind, words in tables.items():
        lacking = [(a, b) for a in range(gpus) for b in range(gpus) if a != b and (a, b) not in words]
        if kind == "types" and lacking:
            a, b = lacking[0]
            detail = f"The link type of GPU {a} to {b} is missing."
            raise InputError.of("amd_tables", name, detail, "Record it again, with all GPUs and all tables.")
        if not lacking and (words or gpus == 1):
            full[kind] = tuple(tuple(words.get((a, b), "0") for b in range(gpus)) for a in range(gpus))
    return Tables(command="", numa=(), **full)


def _gpus(content: Any) -> list[Any]:
    """Return the entries of GPUs of ``amd-smi``'s JSON."""
    if isinstance(content, dict):
        content = content.get("gpu_data", content.get("topology"))
    return content if isinstance(content, list) else []


def _kind(title: str) -> str | None:
    """Return which table a title is of."""
    return next((kind for kind, words in TITLES.items() if words.search(title)), None)


def _table(lines: list[str], at: int, name: str) -> tuple[Table, int]:
    """Return the table that follows a title, and the line behind it.

    Raises
    ------
    InputError
        If rows are missing or cut off.
    """
    while at < len(lines) and not lines[at].strip():
        at += 1
    columns = lines[at].split() if at < len(lines) else []
    if not columns or not all(DEVICE.fullmatch(word) for word in columns) or len(set(columns)) != len(columns):
        detail = "The line below a title does not name the GPUs."
        raise InputError.of("amd_tables", f"{name}#line {at + 1}", detail, "Record it again.")
    _check_size(len(columns), name)
    rows = []
    for number, column in enumerate(columns):
        words = lines[at + 1 + number].split() if at + 1 + number < len(lines) else []
        if len(words) != len(columns) + 1 or words[0] != column:
            detail = f"The row of {column} is missing, cut off, or at another place."
            raise InputError.of("amd_tables", f"{name}#line {at + 2 + number}", detail, "Record it again.")
        rows.append(tuple(word.upper() for word in words[1:]))
    return tuple(rows), at + 1 + len(columns)


def _check_size(gpus: int, name: str) -> None:
    if not 1 <= gpus <= MAX_GPUS:
        raise InputError.of("amd_tables", name, f"{gpus} GPUs on a host?", f"Give 1 to {MAX_GPUS}.")
