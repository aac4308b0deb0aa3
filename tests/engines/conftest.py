"""A plan to write for engines."""

from __future__ import annotations

import numpy as np
import pytest

from placement import Plan
from tests.engines.harness import EXPERTS, GPUS, SLOTS


@pytest.fixture
def plan() -> Plan:
    """Return a plan with a replica per GPU, other ones in each layer."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(4):
        parts = np.array_split(rng.permutation(EXPERTS), GPUS)
        rows.append(np.concatenate([[*part, parts[gpu - 1][0]] for gpu, part in enumerate(parts)]))
    return Plan(
        physical_to_logical_map=np.array(rows),
        layer_ids=np.arange(1, 5),
        num_experts=EXPERTS,
        num_gpus=GPUS,
        slots_per_gpu=SLOTS,
        gpus_per_node=(GPUS,),
    )
