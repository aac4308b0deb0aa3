"""The words for how tokens travel, home, and choose replicas."""

from __future__ import annotations

from typing import Literal

__all__ = ["Dedup", "Execution", "Ownership", "ReplicaPolicy"]

Execution = Literal["context_coherent", "dispatch"]
Dedup = Literal["none", "gpu", "node"]
Ownership = Literal["token", "sequence", "measured"]
ReplicaPolicy = Literal["fair", "same_gpu", "same_node"]
