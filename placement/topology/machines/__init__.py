"""Topologies from what a machine says of itself: ``nvidia-smi``, ``rocm-smi``, ``amd-smi``, NCCL, RCCL, rank costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from placement.support.json_files import parse_json, read_bytes
from placement.topology.file import topology_from_dict
from placement.topology.machines import amd, amd_tables, nccl, smi
from placement.topology.machines.machine import Machine
from placement.topology.machines.options import FORMS, Overrides, read_options
from placement.topology.machines.pasted import plain_text
from placement.topology.topology import Topology
from traces import InputError
from traces.support.text_marks import refuse_marks

__all__ = ["FORMS", "load_machine", "read_machine"]

MAX_BYTES = 16 << 20
KNOWN = "`nvidia-smi topo -m`, `rocm-smi --showtopo` or `amd-smi topology`"


def load_machine(path: str | Path, options: str = "") -> Topology:
    """Read a topology from a machine's own description; the content tells which one it is.

    Parameters
    ----------
    path : path
        Output of ``nvidia-smi topo -m``, ``rocm-smi --showtopo`` or ``amd-smi topology`` (the latter two also as JSON),
        the XML that NCCL and RCCL write to ``NCCL_TOPO_DUMP_FILE``, or JSON: a topology file, or SGLang's matrix of
        rank costs with or without its key.
    options : str
        What the file does not say, as ``key=value`` with commas between: ``hosts`` (as many of the host described),
        ``domain`` (``host`` or ``rack``: where NVLink ends), ``nvlink_gb_s`` and ``xgmi_gb_s`` (per link and
        direction), ``pcie_gb_s``, ``network_gb_s`` (per GPU and direction), ``gpu_order`` (GPUs in the order of the
        ranks, ``0+2+1+3``), ``ibstat`` (a file with the output of ``ibstat``).

    Raises
    ------
    InputError
    """
    name = Path(path).name
    return read_machine(read_bytes(Path(path)), name, options, files=True, must_be_json=name.lower().endswith(".json"))


def read_machine(
    data: bytes, name: str, options: str = "", *, files: bool = False, must_be_json: bool = False
) -> Topology:
    """Read a topology from the content of a description; see `load_machine`.

    Parameters
    ----------
    data : bytes
    name : str
        Name to show, and to begin the places of violations with.
    options : str
    files : bool
        Whether `options` may name files of this machine.
    must_be_json : bool
        Whether the name says that it is JSON.

    Raises
    ------
    InputError
    """
    refuse_marks(data[:4], name)
    if len(data) > MAX_BYTES and not _starts_json(data):
        detail = f"A description of {len(data)} bytes?"
        raise InputError.of("file_too_large", name, detail, "Name a topology file.")
    text = "" if len(data) > MAX_BYTES else plain_text(data)
    if must_be_json or _starts_json(text.encode() if text else data):
        return _of_json(data, name, options, files)
    overrides = read_options(options, files=files)
    return _machine(data, text, name, overrides).topology(overrides)


def _machine(data: bytes, text: str, name: str, overrides: Overrides) -> Machine:
    if nccl.sniff(text):
        try:
            return nccl.read(data.decode("utf-8-sig"), name, overrides)
        except UnicodeDecodeError as error:
            raise InputError.of("not_xml", name, "The file is not UTF-8 text.", "Record it again.") from error
    if amd_tables.sniff(text):
        return amd.machine_of(amd_tables.from_text(text, name), name, overrides)
    if smi.sniff(text):
        return smi.read(text, name, overrides)
    detail = f"This is no JSON, no output of {KNOWN}, and no topology XML of NCCL or RCCL."
    raise InputError.of("unknown_format", name, detail, "Record it again, or write a topology file.")


def _of_json(data: bytes, name: str, options: str, files: bool) -> Topology:
    content: Any = parse_json(data, name)
    if amd_tables.is_json(content):
        overrides = read_options(options, files=files)
        return amd.machine_of(amd_tables.from_json(content, name), name, overrides).topology(overrides)
    if options:
        detail = f"A JSON file says it all itself, so {options!r:.60} has no place."
        raise InputError.of("topology_options", "/topology", detail, "Write it into the file.")
    return topology_from_dict({"rank_cost_matrix": content} if isinstance(content, list) else content, f"{name}#")


def _starts_json(data: bytes) -> bool:
    return data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))
