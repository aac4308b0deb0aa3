"""Replica policies as compiled loops know them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["FAIR", "POLICIES", "SAME_GPU", "SAME_NODE"]

FAIR, SAME_GPU, SAME_NODE = 0, 1, 2
POLICIES: Mapping[str, int] = MappingProxyType({"fair": FAIR, "same_gpu": SAME_GPU, "same_node": SAME_NODE})
