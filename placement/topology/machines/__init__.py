"""Topologies from what a machine says of itself: ``nvidia-smi topo -m``, NCCL's XML, matrices of rank costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from placement.support.json_files import parse_json, read_bytes
from placement.topology.file import topology_from_dict
from placement.topology.machines import ibstat, nccl, smi
from placement.topology.machines.machine import Overrides
from placement.topology.topology import Topology
from traces import InputError
from traces.support.text_marks import refuse_marks

__all__ = ["FORMS", "load_machine"]

FORMS = "topo.txt,hosts=4,network_gb_s=50"
MAX_BYTES = 16 << 20
NUMBERS = ("nvlink_gb_s", "pcie_gb_s", "network_gb_s")
KEYS = ("hosts", "domain", *NUMBERS, "ibstat")


def load_machine(path: str | Path, options: str = "") -> Topology:
    """Read a topology from a machine's own description; the content tells which one it is.

    Parameters
    ----------
    path : path
        Output of ``nvidia-smi topo -m``, the XML that NCCL writes to ``NCCL_TOPO_DUMP_FILE``, or JSON: a topology
        file, or SGLang's matrix of rank costs with or without its key.
    options : str
        What the file does not say, as ``key=value`` with commas between: ``hosts`` (as many of the host described),
        ``domain`` (``host`` or ``rack``: where NVLink ends), ``nvlink_gb_s`` (per link and direction), ``pcie_gb_s``,
        ``network_gb_s`` (per GPU and direction), ``ibstat`` (a file with the output of ``ibstat``).

    Raises
    ------
    InputError
    """
    name = Path(path).name
    data = read_bytes(Path(path))
    refuse_marks(data[:4], name)
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[")) or name.lower().endswith(".json"):
        if options:
            detail = f"A JSON file says it all itself, so {options!r:.60} has no place."
            raise InputError.of("topology_options", "/topology", detail, "Write it into the file.")
        content = parse_json(data, name)
        return topology_from_dict({"rank_cost_matrix": content} if isinstance(content, list) else content, f"{name}#")
    if len(data) > MAX_BYTES:
        detail = f"A description of {len(data)} bytes?"
        raise InputError.of("file_too_large", name, detail, "Name a topology file.")
    overrides = _overrides(options)
    if nccl.sniff(data):
        return nccl.read(data, name, overrides).topology(overrides)
    if smi.sniff(data):
        return smi.read(data, name, overrides).topology(overrides)
    detail = "This is no JSON, no output of `nvidia-smi topo -m`, and no topology XML of NCCL."
    raise InputError.of("unknown_format", name, detail, "Record it again, or write a topology file.")


def _overrides(options: str) -> Overrides:
    """Read ``key=value`` with commas between."""
    given = Overrides()
    seen: set[str] = set()
    for part in filter(None, options.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in KEYS or key in seen:
            detail = f"{part!r:.60} is not one of {', '.join(KEYS)}, given once, with a value."
            raise InputError.of("topology_options", "/topology", detail, f"Write {FORMS}, say.")
        seen.add(key)
        if key == "ibstat":
            output = read_bytes(Path(value))
            refuse_marks(output[:4], Path(value).name)
            given = replace(given, nics=ibstat.read(output, Path(value).name))
        elif key == "domain":
            given = replace(given, domain=value)
        else:
            try:
                number: Any = int(value) if key == "hosts" else float(value)
            except ValueError:
                detail = f"{value!r:.40} is no number."
                raise InputError.of("topology_options", f"/topology/{key}", detail, f"Write {FORMS}, say.") from None
            given = replace(given, **{key: number})
    if {"ibstat", "network_gb_s"} <= seen:
        detail = "ibstat and network_gb_s both say how fast the network is."
        raise InputError.of("topology_options", "/topology", detail, "Give one of them.")
    return given
