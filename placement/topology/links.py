"""Links, their ranges, and the machines that have names."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FASTEST", "GENERIC", "LARGEST", "MAX_GPUS", "PRESETS", "SLOWEST", "SMALLEST", "Link", "Preset"]

MAX_GPUS = 4096
# Speeds, costs and bandwidths are compared with each other: figures further apart than this lose the smaller ones to
# rounding, and their sums and quotients overflow.
SMALLEST, LARGEST = 1e-6, 1e6
SLOWEST, FASTEST = 0.01, 10_000.0  # GB/s: costs that follow from bandwidths stay in the range above


@dataclass(frozen=True, kw_only=True)
class Link:
    """A tier of links: bandwidth per GPU and direction in GB/s, latency in microseconds."""

    bandwidth_gb_s: float
    latency_us: float


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A machine that is sold in one form: nominal figures per GPU and direction, from the vendors' data sheets."""

    gpus_per_node: int
    intra: Link
    inter: Link
    memory_gb: float
    gpus_per_host: int
    text: str


# Nominal figures per GPU and direction, from the vendors' data sheets; measured ones belong into a topology file.
PRESETS: dict[str, Preset] = {
    "hgx_h100": Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=450, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=80,
        gpus_per_host=8,
        text="HGX H100, 8 GPUs, NVLink 4, one 400 Gb/s NIC per GPU",
    ),
    "hgx_h200": Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=450, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=141,
        gpus_per_host=8,
        text="HGX H200, 8 GPUs, NVLink 4, one 400 Gb/s NIC per GPU",
    ),
    "h800": Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=200, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=80,
        gpus_per_host=8,
        text="H800, 8 GPUs, reduced NVLink, one 400 Gb/s NIC per GPU",
    ),
    "a100": Preset(
        gpus_per_node=8,
        intra=Link(bandwidth_gb_s=300, latency_us=2),
        inter=Link(bandwidth_gb_s=25, latency_us=6),
        memory_gb=80,
        gpus_per_host=8,
        text="A100, 8 GPUs, NVLink 3, one 200 Gb/s NIC per GPU",
    ),
    "gb200_nvl72": Preset(
        gpus_per_node=72,
        intra=Link(bandwidth_gb_s=900, latency_us=2),
        inter=Link(bandwidth_gb_s=50, latency_us=5),
        memory_gb=186,
        gpus_per_host=4,
        text="GB200 NVL72, one NVLink domain of 72 GPUs over 18 hosts",
    ),
}
GENERIC = PRESETS["hgx_h100"]
