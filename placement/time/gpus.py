"""GPUs by name: their data sheets, for a roofline where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from traces import InputError

__all__ = ["GPUS", "Gpu", "gpu_named"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What a data sheet says of a GPU.

    Attributes
    ----------
    name : str
        As ``--machine`` has it.
    memory_gb, hbm_gb_s : float
        Memory, and its bandwidth.
    tflops : mapping of str to float
        Dense peak by bytes per number of the matrix units: ``"16"``, ``"8"``, and ``"4"`` where there are such.
    nvlink_gb_s : float
        To the GPUs of its node (NVLink, Infinity Fabric or PCIe), per direction.
    network_gb_s : float
        To other nodes, per direction: the NIC that such servers usually have per GPU.
    source : str
    """

    name: str
    memory_gb: float
    hbm_gb_s: float
    tflops: Mapping[str, float]
    nvlink_gb_s: float
    network_gb_s: float
    source: str

    def peak_tflops(self, weight_dtype: str) -> float:
        """Return the dense peak for experts stored as `weight_dtype`; weights alone in few bits compute in 16."""
        bits = {"fp8": "8", "fp8_block": "8", "int8": "8", "nvfp4": "4"}.get(weight_dtype, "16")
        if (
            weight_dtype == "mxfp4" and "4" in self.tflops
        ):  # with activations in 8 bits, where units of 4 bits take them
            bits = "8"
        return self.tflops.get(bits, self.tflops.get("8", 0.0) if bits == "4" else self.tflops["16"])


def _gpu(name: str, memory: float, hbm: float, peaks: str, nvlink: float, network: float, source: str) -> Gpu:
    pairs = dict(pair.split("=") for pair in peaks.split())
    tflops = MappingProxyType({bits: float(value) for bits, value in pairs.items()})
    return Gpu(
        name=name,
        memory_gb=memory,
        hbm_gb_s=hbm,
        tflops=tflops,
        nvlink_gb_s=nvlink,
        network_gb_s=network,
        source=f"{source} data sheet, dense figures",
    )


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100", 80, 2039, "16=312 8=624", 300, 25, "NVIDIA A100 SXM"),
        _gpu("l40s", 48, 864, "16=362 8=733", 32, 50, "NVIDIA L40S"),
        _gpu("h100", 80, 3350, "16=989 8=1979", 450, 50, "NVIDIA H100 SXM"),
        _gpu("h800", 80, 3350, "16=989 8=1979", 200, 50, "NVIDIA H800 SXM"),
        _gpu("h200", 141, 4800, "16=989 8=1979", 450, 50, "NVIDIA H200 SXM"),
        _gpu("h20", 96, 4000, "16=148 8=296", 450, 50, "NVIDIA H20"),
        _gpu("b200", 180, 7700, "16=2250 8=4500 4=9000", 900, 50, "NVIDIA B200 (HGX)"),
        _gpu("b300", 288, 7750, "16=2250 8=4500 4=14000", 900, 100, "NVIDIA B300 (HGX)"),
        _gpu("gb200", 186, 8000, "16=2500 8=5000 4=10000", 900, 50, "NVIDIA GB200 NVL72"),
        _gpu("gb300", 279, 8000, "16=2500 8=5000 4=15000", 900, 100, "NVIDIA GB300 NVL72"),
        _gpu("mi300x", 192, 5300, "16=1307 8=2615", 448, 50, "AMD Instinct MI300X"),
        _gpu("mi355x", 288, 8000, "16=2500 8=5000 4=10000", 538, 50, "AMD Instinct MI355X"),
        _gpu("ascend-910b", 64, 1600, "16=313 8=626", 196, 25, "Huawei Ascend 910B3 (Atlas 800T A2)"),
        _gpu("rtx-pro-6000", 96, 1792, "16=504 8=1008 4=2015", 64, 50, "NVIDIA RTX PRO 6000 Blackwell Server"),
    )
}


def gpu_named(name: str, place: str = "/machine") -> Gpu:
    """Return a GPU by its name, in any case.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    found = GPUS.get(name.lower())
    if found is None:
        close = get_close_matches(name.lower(), GPUS, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        remedy = f"Name one of {', '.join(GPUS)}, or measure your own: moe-placement calibrate my.csv."
        raise InputError.of("unknown_gpu", place, f"This version doesn't know a GPU {name!r:.40}.{guess}", remedy)
    return found
