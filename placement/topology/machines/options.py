"""What the caller says that a description does not: ``hosts=4,network_gb_s=50`` behind a file's name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from placement.support.json_files import read_bytes
from placement.topology.links import FASTEST, MAX_GPUS, SLOWEST
from placement.topology.machines import ibstat
from traces import InputError, Violations
from traces.support.text_marks import refuse_marks

__all__ = ["FORMS", "KEYS", "Overrides", "read_options"]

FORMS = "topo.txt,hosts=4,network_gb_s=50"
NUMBERS = ("nvlink_gb_s", "xgmi_gb_s", "pcie_gb_s", "network_gb_s")
KEYS = ("hosts", "domain", *NUMBERS, "gpu_order", "ibstat")


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the caller says that a description does not.

    Attributes
    ----------
    hosts : int
        How many of the host described there are.
    domain : {"host", "rack"} or None
        Where NVLink ends: at each host, or only at the rack (GB200 NVL72), so that all hosts are one node.
    nvlink_gb_s, xgmi_gb_s, pcie_gb_s, network_gb_s : float or None
        Per NVLink, per XGMI link, per GPU over PCIe, per GPU over the network; GB/s and direction.
    gpu_order : tuple of int or None
        GPUs of the description in the order of the ranks, as ``CUDA_VISIBLE_DEVICES`` has them; others are not used.
    nics : tuple of float
        GB/s of each network port of a host, from ``ibstat``.
    """

    hosts: int = 1
    domain: str | None = None
    nvlink_gb_s: float | None = None
    xgmi_gb_s: float | None = None
    pcie_gb_s: float | None = None
    network_gb_s: float | None = None
    gpu_order: tuple[int, ...] | None = None
    nics: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        found = Violations()
        if not 1 <= self.hosts <= MAX_GPUS:
            detail = f"hosts={self.hosts} is not 1 to {MAX_GPUS}."
            remedy = f"Give the number of hosts like the one described, as in hosts=4; at most {MAX_GPUS} GPUs in all."
            found.add("topology_options", "/topology/hosts", detail, remedy)
        if self.domain not in (None, "host", "rack"):
            found.add("topology_options", "/topology/domain", f"{self.domain!r:.40}.", "Give host or rack.")
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and not SLOWEST <= value <= FASTEST:
                detail = f"{value} GB/s is not {SLOWEST:g} to {FASTEST:g}."
                found.add("topology_options", f"/topology/{name}", detail, "Give GB/s per direction.")
        found.raise_if_any()


def read_options(options: str, *, files: bool = True) -> Overrides:
    """Read ``key=value`` with commas between.

    Parameters
    ----------
    options : str
    files : bool
        Whether `ibstat` may name a file of this machine.

    Raises
    ------
    InputError
    """
    given = Overrides()
    seen: set[str] = set()
    keys = KEYS if files else tuple(key for key in KEYS if key != "ibstat")
    for part in filter(None, options.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in keys or key in seen:
            detail = f"{part!r:.60} is not one of {', '.join(keys)}, given once, with a value."
            raise InputError.of("topology_options", "/topology", detail, f"Write {FORMS}, say.")
        seen.add(key)
        if key == "ibstat":
            output = read_bytes(Path(value))
            refuse_marks(output[:4], Path(value).name)
            given = replace(given, nics=ibstat.read(output, Path(value).name))
        else:
            read: Any = value if key == "domain" else _number(key, value)
            given = replace(given, **{key: read})
    if {"ibstat", "network_gb_s"} <= seen:
        detail = "ibstat and network_gb_s both say how fast the network is."
        raise InputError.of("topology_options", "/topology", detail, "Give one of them.")
    return given


def _number(key: str, value: str) -> Any:
    try:
        if key == "gpu_order":
            return tuple(int(gpu) for gpu in value.split("+"))
        return int(value) if key == "hosts" else float(value)
    except ValueError:
        what, example = "number", FORMS
        if key == "gpu_order":
            what, example = "list of GPUs", "topo.txt,gpu_order=0+2+1+3"
        detail = f"{value!r:.40} is no {what}."
        raise InputError.of("topology_options", f"/topology/{key}", detail, f"Write {example}, say.") from None
