"""Bodies of requests about topologies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.resources.schemas import Name, Strict, Tags, TopologyField

__all__ = ["TopologyBody"]

MAX_DESCRIPTION = 4 << 20


class TopologyBody(Strict):
    """A topology to keep under an id."""

    topology: TopologyField | None = None
    description: Annotated[str, Field(min_length=1, max_length=MAX_DESCRIPTION)] | None = Field(
        default=None,
        description="In place of topology, what a machine says of itself: the output of nvidia-smi topo -m, "
        "rocm-smi --showtopo or amd-smi topology, or the topology XML of NCCL or RCCL.",
    )
    options: Annotated[str, Field(max_length=1000)] | None = Field(
        default=None,
        description="What the description does not say, as key=value with commas between: hosts, domain, nvlink_gb_s, "
        "xgmi_gb_s, pcie_gb_s, network_gb_s, gpu_order.",
        examples=["hosts=4,network_gb_s=50"],
    )
    name: Name | None = Field(default=None, description="Name to show.")
    tags: Tags = Field(default=[], description="Words to find it by.")
