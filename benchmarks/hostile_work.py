"""What one attacker does, once, to keep those busy who read uploads, look at traces and run plans."""

from __future__ import annotations

import io
import json
import secrets
import zipfile
from functools import cache

import httpx2
import numpy as np
from hostile_others import small_trace
from hostile_target import Target

JSON = {"Content-Type": "application/json"}
LINE_BYTES = 100 << 20
ROWS = 20_000_000


@cache
def _long_line() -> bytes:
    return b'{"choices": ["' + b'", "' * (LINE_BYTES // 4)


def one_long_line(target: Target, http: httpx2.Client) -> object:
    """Upload a JSON file of one line that never ends."""
    return http.post("/v1/traces", content=_long_line(), timeout=300).status_code


@cache
def _packed() -> bytes:
    file = io.BytesIO()
    ids = np.broadcast_to(np.array([[[0, 1], [2, 3]]], np.uint8), (ROWS, 2, 2))
    np.savez_compressed(file, topk_ids=ids, layer_ids=np.arange(2), num_experts=np.array(4))
    return file.getvalue()


def small_and_slow(target: Target, http: httpx2.Client) -> object:
    """Upload a small file that takes long to read; never the same one."""
    with io.BytesIO(_packed()) as file:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"{secrets.token_hex(4)}.txt", "other bytes")
        return http.post("/v1/traces", content=file.getvalue(), timeout=300).status_code


def _trace(target: Target, http: httpx2.Client) -> str:
    found: str = http.post("/v1/traces", content=small_trace(1_000_001)).json()["id"]
    return found


def many_plans(target: Target, http: httpx2.Client) -> object:
    """Ask for plans of four seconds, more than there are workers."""
    body = {"trace": _trace(target, http), "topology": "1x4", "solver": "annealing", "limits": {"time_s": 4}}
    return http.post("/v1/plans", json=body, headers={"Prefer": "wait=10"}).status_code


def long_plans(target: Target, http: httpx2.Client) -> object:
    """Ask for plans of an hour."""
    body = {"trace": _trace(target, http), "topology": "1x4", "solver": "annealing", "limits": {"time_s": 3600}}
    return http.post("/v1/plans", json=body, headers={"Prefer": "wait=5"}).status_code


def many_looks(target: Target, http: httpx2.Client) -> object:
    """Replay a trace through a plan for many GPUs, again and again."""
    trace = _trace(target, http)
    plan = {"schema_version": 1, "layer_ids": list(range(4)), "num_experts": 32, "num_gpus": 32, "gpus_per_node": 8}
    plan |= {"slots_per_gpu": 1, "physical_to_logical_map": [list(range(32))] * 4}
    content = json.dumps({"plan": plan, "trace": trace}).encode()
    return http.post("/v1/evaluations", content=content, headers=JSON).status_code
