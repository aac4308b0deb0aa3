"""Plans, fronts and profiles on a Dask cluster on the loopback, while its workers are killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli import app
from api.jobs.errors import ExecutorLostError
from api.jobs.executors import executor_factory
from solvers import Limits, Study
from tests.api.dask_cluster import DaskCluster, missing
from tests.api.postgres import missing as no_postgres
from traces import InputError, Profile, profile_shards

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]
LONG = {"time_s": None, "work": 150_000_000}  # some seconds


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Run a cluster of two workers; a test that kills one starts another."""
    running = DaskCluster.start(tmp_path_factory.mktemp("dask"), 2)
    yield running
    running.stop()


@pytest.fixture
def executor(cluster: DaskCluster) -> Iterator[Executor]:
    """Connect to the cluster."""
    connected = executor_factory(cluster.url)()
    yield connected
    connected.shutdown(wait=False)


def until(done: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return settings of a service that shares no folder with its workers; SQLite where there is no PostgreSQL."""
    settings = {"blobs_url": (tmp_path / "objects").as_uri()}
    if no_postgres() is None:
        settings["database_url"] = request.getfixturevalue("postgres").database("dask")
    return settings


def test_killed_worker_changes_no_plan(
    cluster: DaskCluster,
    tmp_path: Path,
    start_server: Callable[..., Any],
    trace_bytes: bytes,
    elsewhere: dict[str, str],
) -> None:
    """A plan whose worker is killed half-way is made again, the same one; a front is made by the cluster as well."""
    server = start_server(tmp_path / "data", executor=cluster.url, max_workers=2, **elsewhere)
    trace = server.http.post("/v1/traces", content=trace_bytes).raise_for_status().json()["id"]
    body = {"trace": trace, "topology": "1x4", "solver": "annealing", "limits": LONG}
    places = [server.http.post("/v1/plans", json=body).raise_for_status().headers["location"] for _ in range(2)]
    for place in places:
        server.until(place, lambda plan: plan["score"] is not None)
    victim = until(lambda: cluster.busy("run_search"))[0]
    cluster.kill(victim)
    plans = [server.until(place, lambda plan: plan["finished_at"] is not None) for place in places]
    assert [plan["status"] for plan in plans] == ["succeeded"] * 2, server.log.read_text()[-3000:]
    assert sorted(plan["attempt"] for plan in plans) == [1, 2]
    maps = [server.http.get(f"{place}/plan").raise_for_status().json()["physical_to_logical_map"] for place in places]
    assert maps[0] == maps[1]
    assert "moe_placement_worker_deaths_total 1.0" in server.http.get("/metrics").text
    front = {"trace": trace, "topology": "1x4", "solver": "eplb", "points": 3, "limits": {"work": 2000}}
    place = server.http.post("/v1/fronts", json=front).raise_for_status().headers["location"]
    assert server.until(place, lambda front: front["finished_at"] is not None)["status"] == "succeeded"
    server.terminate()
    cluster.add_worker()
    cluster.client.wait_for_workers(2, timeout=60)  # the cluster is there when the service is gone


def shards(folder: Path, count: int, tokens: int = 3000) -> list[Path]:
    """Write traces of 8 layers and 64 experts."""
    paths = [folder / f"part-{number:02}.npz" for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        ids = rng.random((tokens, 8, 64)).argpartition(4, axis=2)[:, :, :4].astype(np.uint8)
        np.savez(path, topk_ids=ids, num_experts=np.array(64), seq_id=np.arange(tokens) // (50 + number))
    return paths


def saved(profile: Profile, path: Path) -> dict[str, bytes]:
    """Return the bytes of every array that `save` keeps."""
    profile.save(path)
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive}


def test_distributed_profile_is_the_local_one(cluster: DaskCluster, executor: Executor, tmp_path: Path) -> None:
    """Shards that a cluster counts give the profile of one machine bit for bit, though a worker is killed meanwhile."""
    paths = shards(tmp_path, 40)
    local = saved(profile_shards(paths), tmp_path / "local.npz")
    told: list[tuple[int, int]] = []

    def kill_one(counted: int, total: int) -> None:
        told.append((counted, total))
        if len(told) == 1:
            cluster.kill(until(lambda: cluster.busy(""))[0])
            cluster.add_worker()

    remote = saved(profile_shards(paths, executor, progress=kill_one), tmp_path / "remote.npz")
    assert remote == local
    assert told[-1] == (40, 40)


def test_items_lost_after_they_were_done_are_counted(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may die between the end of an item and its being told; the item is made again, and counted once."""
    from distributed import as_completed

    from api.jobs.cluster import ClusterExecutor

    class Lost:
        status = "lost"

    def lost(*given: Any, **named: Any) -> Iterator[Lost]:
        return (Lost() for _ in as_completed(*given, **named))  # type: ignore[no-untyped-call]  # the library has no types

    monkeypatch.setattr("api.jobs.cluster.as_completed", lost)
    told: list[None] = []
    assert isinstance(executor, ClusterExecutor)
    assert executor.reduce(abs, max, [-3, 1, -7, 2, 5], lambda: told.append(None)) == 7
    assert len(told) == 5


def test_errors_come_from_the_cluster_as_they_are(executor: Executor, tmp_path: Path) -> None:
    """A bad shard is named; it is not counted again and again."""
    paths = shards(tmp_path, 10, tokens=20)
    paths[9].write_bytes(b"no trace at all")
    with pytest.raises(InputError) as error:
        profile_shards(paths, executor)
    assert [(item.code, item.pointer) for item in error.value.violations] == [("unknown_format", str(paths[9]))]


def test_closing_leaves_the_cluster_alone(cluster: DaskCluster) -> None:
    """An executor that is shut down takes nothing more; its cluster serves the next one."""
    first, second = executor_factory(cluster.url)(), executor_factory(cluster.url)()
    first.shutdown(wait=False)
    with pytest.raises(ExecutorLostError):
        first.submit(os.getpid)
    assert second.submit(os.getpid).result(30) in [worker.pid for worker in cluster.workers]
    second.shutdown()


def test_unreachable_scheduler_is_told(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a scheduler is an error in a sentence."""
    monkeypatch.setattr("api.jobs.cluster.CONNECT_S", 0.5)
    with pytest.raises(InputError, match="scheduler_unreachable"):
        executor_factory("dask://127.0.0.1:1")()


def test_lost_scheduler_is_told_and_blames_nobody(
    tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes
) -> None:
    """A scheduler that is away is told by /readyz though nobody asks for a plan; the next one is connected to.

    A plan that runs when it goes away waits for the next one, which finishes it; no death is counted.
    """
    cluster = DaskCluster.start(tmp_path, 1)
    try:
        server = start_server(tmp_path / "data", executor=cluster.url)
        until(lambda: server.http.get("/readyz").status_code == 200)
        assert cluster.scheduler is not None
        cluster.scheduler.kill()
        until(lambda: server.http.get("/readyz").status_code == 503)
        until(lambda: "There is no Dask scheduler to reach" in server.http.get("/readyz").text)
        assert server.http.get("/healthz").status_code == 200
        assert server.http.get("/v1/plans").status_code == 200
        cluster.replace_scheduler()
        until(lambda: server.http.get("/readyz").status_code == 200)
        cluster.add_worker()
        trace = server.http.post("/v1/traces", content=trace_bytes).raise_for_status().json()["id"]
        body = {"trace": trace, "topology": "1x4", "solver": "annealing", "limits": LONG}
        place = server.http.post("/v1/plans", json=body).raise_for_status().headers["location"]
        server.until(place, lambda plan: plan["score"] is not None)
        told = server.log.read_text().count("executor.unreachable")
        cluster.scheduler.kill()
        assert server.until(place, lambda plan: plan["status"] != "running")["status"] == "queued"
        assert "moe_placement_worker_deaths_total 0.0" in server.http.get("/metrics").text
        until(lambda: server.log.read_text().count("executor.unreachable") > told)
        cluster.replace_scheduler()
        cluster.add_worker()
        again = server.until(place, lambda plan: plan["finished_at"] is not None)
        assert (again["status"], again["attempt"]) == ("succeeded", 2)
        assert "moe_placement_worker_deaths_total 0.0" in server.http.get("/metrics").text
    finally:
        cluster.stop()


def test_worker_that_outgrows_its_memory_limit(
    tmp_path: Path, start_server: Callable[..., Any], make_trace_bytes: Callable[..., bytes]
) -> None:
    """The cluster ends a worker above its limit; its plan fails for that, and a new worker makes the next one."""
    cluster = DaskCluster.start(tmp_path, 0)
    try:
        cluster.add_worker("--nanny", "--memory-limit", "500MB")
        cluster.client.wait_for_workers(1, timeout=60)
        server = start_server(tmp_path / "data", executor=cluster.url, max_crashes=1)
        wide = np.arange(200, dtype=np.int16).reshape(20, 5, 2) * 14  # up to expert 2786
        traces = [make_trace_bytes(tokens=20, layers=5, experts=3000, topk_ids=wide), make_trace_bytes(tokens=100)]
        ends = []
        for content in traces:
            trace = server.http.post("/v1/traces", content=content).raise_for_status().json()["id"]
            body = {"trace": trace, "topology": "1x4", "limits": {"work": 100}}
            place = server.http.post("/v1/plans", json=body).raise_for_status().headers["location"]
            ends.append(server.until(place, lambda plan: plan["finished_at"] is not None))
        assert [end["status"] for end in ends] == ["failed", "succeeded"], ends
        assert ends[0]["error"]["type"] == "/problems/worker-died"
    finally:
        cluster.stop()


def test_seeds_on_a_cluster(cluster: DaskCluster, tmp_path: Path, trace_bytes: bytes) -> None:
    """The best of seeds is the same on a cluster as here."""
    (tmp_path / "trace.npz").write_bytes(trace_bytes)
    study = Study.of(tmp_path / "trace.npz", "1x4", solver="random", limits=Limits(work=3), seeds=6)
    makers: list[Callable[[], Executor]] = [executor_factory(cluster.url), lambda: ThreadPoolExecutor(1)]
    there, here = (study.solve(executor=make).plan for make in makers)
    assert there.physical_to_logical_map.tolist() == here.physical_to_logical_map.tolist()


def test_front_command_on_a_cluster(cluster: DaskCluster, tmp_path: Path, trace_bytes: bytes) -> None:
    """`front --executor dask://` gives the front of the same seeds in processes here."""
    (tmp_path / "trace.npz").write_bytes(trace_bytes)
    wanted = ["front", str(tmp_path / "trace.npz"), "--topology", "1x4", "--solver", "assignment", "--seeds", "2"]
    wanted += ["--work-limit", "2000", "--points", "3", "--json"]
    told = [CliRunner().invoke(app, [*wanted, "--executor", where]) for where in (cluster.url, "processes")]
    there, here = (json.loads(result.stdout) for result in told)
    assert there["points"] == here["points"]


def test_lost_scheduler_is_told(cluster: DaskCluster, tmp_path: Path) -> None:
    """A profile can't go on without its scheduler: the error says so, with the shards. The cluster's last test."""
    paths = shards(tmp_path, 40, tokens=2000)

    def lose(counted: int, total: int) -> None:
        assert cluster.scheduler is not None
        cluster.scheduler.kill()

    with pytest.raises(InputError, match="scheduler went away") as error:
        profile_shards(paths, executor_factory(cluster.url), progress=lose)
    assert error.value.violations[0].pointer == f"{paths[0]} to {paths[-1]}"
