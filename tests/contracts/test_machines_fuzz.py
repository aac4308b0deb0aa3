"""Every description of a machine, mutated. ``FUZZ_MUTATIONS=2000`` in the environment makes it thorough."""

from __future__ import annotations

import json
import os
import random
import time

import numpy as np
import pytest

from placement.topology.machines import read_machine
from tests.builders.machines import FABRIC, SWITCHES, amd, full, rccl, rocm, smi, xml
from traces import InputError

COUNT = int(os.environ.get("FUZZ_MUTATIONS", "40"))
LINKED = [["0" if a == b else "XGMI" for b in range(4)] for a in range(4)]
JUNK = (b"", b"\xff", b"<", b"&a;", b"9" * 30, b'"', b"\n", b"GPU1", b"NV99", b"XGMI", b"\x1b[4m", b"{", b"-1", b"nan")
SOURCES = {
    "nvidia-smi": smi(full(4, "NV12")),
    "nvidia-smi-pcie": smi(full(4, "NODE")),
    "nccl-fabric": xml(2, 4, FABRIC, sm=100),
    "nccl": xml(1, 8, SWITCHES),
    "rccl": rccl(4),
    "rocm-smi": rocm(LINKED),
    "amd-smi": amd(LINKED, "50000-50000"),
    "amd-smi-json": json.dumps(
        [
            {"gpu": a, "links": [{"gpu": b, "link_type": "XGMI" if a != b else "SELF"} for b in range(3)]}
            for a in range(3)
        ]
    ),
    "rocm-smi-json": json.dumps({"system": {"(Topology) Link type between DRM devices 0 and 1": "XGMI"}}),
    "costs": "[[0, 1], [1, 0]]",
}


@pytest.mark.parametrize("name", SOURCES)
def test_mutated_descriptions_end_in_an_error_or_a_valid_topology(name: str) -> None:
    """No other exception, no long time; and some mutations are found out."""
    rng = random.Random(name)
    source = SOURCES[name].encode()
    assert read_machine(source, "any").num_gpus > 1
    refused = 0
    for _ in range(COUNT):
        data = bytearray(source)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(data) + 1)
            data[place : place + rng.randint(0, 9)] = rng.choice(JUNK)
        options = rng.choice(["", "", "hosts=2,network_gb_s=20", "gpu_order=1+0"])
        before = time.perf_counter()
        try:
            topology = read_machine(bytes(data), "any", options)
        except InputError:
            refused += 1
        else:
            assert np.isfinite(topology.hop_cost).all()
            assert not topology.hop_cost.diagonal().any()
        assert time.perf_counter() - before < 5
    assert refused
