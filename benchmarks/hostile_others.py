"""Those who wait beside an attack: who asks whether the server is alive, and an honest tenant. A process of their own.

Attackers keep their process's interpreter busy; whoever measured in there would measure that.
"""

from __future__ import annotations

import io
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import httpx2
import numpy as np

__all__ = ["PLAN_S", "Beside", "beside", "plan", "small_trace"]

HEALTH_EVERY_S = 0.05
PLAN_S = 1.0


@dataclass
class Beside:
    """What the others met while an attack lasted; seconds."""

    health: list[float] = field(default_factory=list)
    uploads: list[float] = field(default_factory=list)
    plans: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


@contextmanager
def beside(url: str, key: str) -> Iterator[Beside]:
    """Have the others ask while the block lasts; what they met is there after it."""
    met = Beside()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(url, key, there), daemon=True)
    process.start()
    here.recv()  # it has loaded what it needs
    try:
        yield met
    finally:
        here.send("over")
        found: Beside = here.recv()
        met.__dict__.update(found.__dict__)
        process.join(30)


def small_trace(number: int) -> bytes:
    """Return a small trace, another one for each number."""
    rng = np.random.default_rng(number)
    ids = (rng.integers(0, 32, (500, 4, 1)) + np.arange(2)) % 32
    file = io.BytesIO()
    np.savez(file, topk_ids=ids.astype(np.uint8), layer_ids=np.arange(4), num_experts=np.array(32))
    return file.getvalue()


def plan(http: httpx2.Client, trace: str) -> str | None:
    """Ask for a plan of a second, and wait for it; return what went wrong."""
    body = {"trace": trace, "topology": "1x4", "solver": "annealing", "limits": {"time_s": PLAN_S}}
    answer = http.post("/v1/plans", json=body, headers={"Prefer": "wait=60"})
    while answer.status_code == 202:
        answer = http.get(answer.headers["location"], headers={"Prefer": "wait=60"})
        if answer.status_code == 200 and answer.json()["finished_at"] is None:
            answer.status_code = 202
    return None if answer.status_code == 200 else str(answer.status_code)


def _work(url: str, key: str, pipe: Connection) -> None:
    met, over = Beside(), threading.Event()
    threads = [
        threading.Thread(target=work, args=(url, key, met, over), daemon=True)
        for work in (_ask_health, _upload_and_plan)
    ]
    small_trace(0)
    pipe.send("ready")
    for thread in threads:
        thread.start()
    pipe.recv()
    over.set()
    for thread in threads:
        thread.join(300)
    pipe.send(met)


def _ask_health(url: str, key: str, met: Beside, over: threading.Event) -> None:
    """Ask whether the server is alive, each time on a connection of its own."""
    with httpx2.Client(timeout=120, headers={"Connection": "close"}) as http:
        while not over.is_set():
            begin = time.monotonic()
            try:
                answer = http.get(f"{url}/healthz")
                if answer.status_code != 200:
                    met.failures[f"healthz {answer.status_code}"] += 1
            except httpx2.HTTPError as error:
                met.failures[f"healthz {type(error).__name__}"] += 1
            met.health.append(time.monotonic() - begin)
            over.wait(HEALTH_EVERY_S)


def _upload_and_plan(url: str, key: str, met: Beside, over: threading.Event) -> None:
    """Do as an honest tenant does: a small upload, a plan of a second, and so on."""
    number = 0
    with httpx2.Client(base_url=url, timeout=300, headers={"Authorization": f"Bearer {key}"}) as http:
        while not over.is_set():
            number += 1
            begin = time.monotonic()
            try:
                sent = http.post("/v1/traces", content=small_trace(number))
            except httpx2.HTTPError as error:
                met.failures[f"upload {type(error).__name__}"] += 1
                continue
            finally:
                met.uploads.append(time.monotonic() - begin)
            if sent.status_code not in (200, 201):
                met.failures[f"upload {sent.status_code}"] += 1
                over.wait(0.2)
                continue
            begin = time.monotonic()
            try:
                if wrong := plan(http, sent.json()["id"]):
                    met.failures[f"plan {wrong}"] += 1
            except httpx2.HTTPError as error:
                met.failures[f"plan {type(error).__name__}"] += 1
            met.plans.append(time.monotonic() - begin - PLAN_S)
