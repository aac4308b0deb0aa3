"""Jobs: an attempt in the store's eyes, lanes over any executor, and workers that die or hang."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

import api.jobs.dispatcher
import api.resources.searches.running
from api.jobs.attempts import Job, Outcome
from api.jobs.dispatcher import Dispatcher
from api.jobs.errors import ExecutorLostError
from api.jobs.work import DispatcherSettings, Work
from api.resources.traces.inspection import inspect
from api.resources.worker import run_search, warm_up
from api.store.blobs import Blobs
from api.store.leases import Claim, Lease, Leases, StaleAttemptError
from api.store.models import plans
from api.store.rows import PlanRow
from api.telemetry.metrics import Metrics
from tests.builders.service import keep, store_in
from traces import InputError


class Bench:
    """A store with one trace, and what it takes to run plans on it."""

    def __init__(self, folder: Path, content: bytes, lease_s: float = 30.0) -> None:
        self.folder = folder
        self.database, self.everything = store_in(folder)
        self.store = self.everything.of("local")
        self.leases = Leases(self.database, lease_s)
        self.blobs = Blobs(folder / "blobs")
        self.trace_id = keep(self.blobs, content)
        facts = inspect(self.blobs.path(self.trace_id), "trace", {})
        self.store.traces.add(self.trace_id, "tiny.npz", len(content), facts)

    def ask(self, *, start: str | None = None, **fields: Any) -> str:
        limits = {"time_s": None, "work": 2000, "gap": None, "stall_s": None}
        request = {"trace": self.trace_id, "topology": "1x4", "limits": limits, **fields}
        return self.store.plans.add(request, max_queued=99, start=start).row.id

    def job(self, claim: Claim | None = None, **changes: Any) -> Job:
        claim = claim or self.leases.claim()
        assert claim is not None
        known: dict[str, Any] = {
            "claim": claim,
            "database_url": self.database.url,
            "blobs": self.folder / "blobs",
            "blobs_url": None,
            "lease_s": 30.0,
            "threads": 1,
            "max_time_limit_s": 60.0,
        }
        return Job(**{**known, **changes})

    def row(self, plan_id: str) -> PlanRow:
        row = self.store.plans.get(plan_id)
        assert row is not None
        return row

    def plan_file(self, plan_id: str) -> Any:
        text = self.store.plans.documents(plan_id)[1]
        return None if text is None else json.loads(text)

    def until(self, plan_id: str, done: Callable[[PlanRow], bool], seconds: float = 120) -> PlanRow:
        deadline = time.monotonic() + seconds
        while not done(row := self.row(plan_id)):
            assert time.monotonic() < deadline, row
            time.sleep(0.02)
        return row


@pytest.fixture
def bench(tmp_path: Path, trace_bytes: bytes) -> Bench:
    """Return a store with the small valid trace."""
    return Bench(tmp_path, trace_bytes)


def timed(seconds: float) -> dict[str, Any]:
    """Return limits of a search by the clock."""
    return {"time_s": seconds, "work": None, "gap": None, "stall_s": None}


def test_attempt_succeeds(bench: Bench) -> None:
    """An attempt leaves the plan file, its figures, and a summary on both parts of the trace."""
    plan_id = bench.ask()
    outcome = run_search(bench.job())
    row, text, summary = bench.store.plans.documents(plan_id)
    assert row is not None
    assert outcome.status == row.status == "succeeded"
    content = json.loads(text or "")
    assert content["score"] == row.score
    assert content["provenance"]["trace"][0]["source"] == "tiny.npz"
    assert json.loads(summary or "")["plans"]["plan"]["held_out"]["tokens"] == 1000


def test_same_work_same_plan(bench: Bench) -> None:
    """A work limit gives the same plan again, even if an attempt was lost half-way with another plan."""
    first = bench.ask()
    run_search(bench.job())
    second = bench.ask()
    claim = bench.leases.claim()
    assert claim is not None
    half_way = dict(bench.plan_file(first), physical_to_logical_map=[list(range(32))] * 6)
    bench.leases.lease(claim).report(score=99.0, bound=None, elapsed_s=1.0, plan=json.dumps(half_way))
    bench.leases.give_back_mine()
    run_search(bench.job())
    maps = [bench.plan_file(plan_id)["physical_to_logical_map"] for plan_id in (first, second)]
    assert maps[0] == maps[1]


def test_next_attempt_starts_from_the_best_plan(bench: Bench) -> None:
    """After a restart, a search by the clock is never worse than what the attempt before had found."""
    good = bench.ask()
    run_search(bench.job())
    plan_id = bench.ask(solver="random", limits=timed(0.2))
    claim = bench.leases.claim()
    assert claim is not None
    best = bench.plan_file(good)
    bench.leases.lease(claim).report(score=best["score"], bound=None, elapsed_s=1.0, plan=json.dumps(best))
    bench.leases.give_back_mine()
    run_search(bench.job())
    assert bench.row(plan_id).score == pytest.approx(best["score"])
    assert bench.row(plan_id).attempt == 2


def test_start_plan_is_the_one_that_was_named(bench: Bench) -> None:
    """The plan to start from is kept with the request."""
    first = bench.ask()
    run_search(bench.job())
    score, text = bench.row(first).score, bench.store.plans.documents(first)[1]
    bench.store.plans.delete(first)
    plan_id = bench.ask(solver="random", start=text)
    run_search(bench.job())
    assert bench.row(plan_id).score == pytest.approx(score)


def test_stale_attempt_writes_nothing(bench: Bench) -> None:
    """An attempt that has lost its plan before it begins ends without a trace."""
    plan_id = bench.ask()
    job = bench.job()
    bench.leases.give_back_mine()
    assert run_search(job) == Outcome(status=None)
    assert bench.row(plan_id).status == "queued"


def test_cancel_keeps_the_incumbent(bench: Bench) -> None:
    """A cancelled search ends within a second or so, and its best plan stays."""
    plan_id = bench.ask(solver="annealing", limits=timed(50.0))
    job = bench.job()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_search, job)
        bench.until(plan_id, lambda row: row.score is not None)
        bench.store.plans.cancel(plan_id)
        asked = time.monotonic()
        assert future.result(20).status == "cancelled"
    assert time.monotonic() - asked < 3
    row = bench.row(plan_id)
    assert row.status == "cancelled"
    assert row.termination is not None
    assert row.termination["limit"] == "cancelled"
    assert bench.plan_file(plan_id)["score"] == row.score


def test_lost_lease_ends_the_search(bench: Bench) -> None:
    """A search whose plan was given to another attempt stops by itself, and leaves the new one alone."""
    plan_id = bench.ask(solver="annealing", limits=timed(50.0))
    job = bench.job()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_search, job)
        bench.until(plan_id, lambda row: row.score is not None)
        bench.leases.give_back_mine()
        assert future.result(20).status is None
    assert bench.row(plan_id).status == "queued"


def test_longest_time(bench: Bench) -> None:
    """A search without a time limit ends at the service's own, as a success that says so."""
    plan_id = bench.ask(solver="annealing", limits={**timed(1.0), "time_s": None, "stall_s": 50.0})
    run_search(bench.job(max_time_limit_s=0.2))
    row = bench.row(plan_id)
    assert row.status == "succeeded"
    assert row.termination is not None
    assert row.termination["limit"] == "time"
    assert "0.2 s" in row.warnings[-1]


def test_bad_request_fails_the_plan(bench: Bench) -> None:
    """What only the worker can find out fails the plan, with the violations."""
    plan_id = bench.ask(hold_out=1e-6)
    assert run_search(bench.job()).status == "failed"
    error = bench.row(plan_id).error
    assert error is not None
    assert error["errors"][0]["pointer"] == "/hold_out"


def test_fault_fails_the_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours fails the plan without telling the client about our code."""

    def broken(*arguments: Any, **options: Any) -> Any:
        raise KeyError("secret detail")

    monkeypatch.setattr(api.resources.searches.running, "open_stored", broken)
    plan_id = bench.ask()
    assert run_search(bench.job()).status == "failed"
    error = bench.row(plan_id).error
    assert error is not None
    assert error["type"] == "/problems/internal-error"
    assert "secret" not in json.dumps(error)


def test_news_are_throttled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a search gets better, the store hears of it a few times per second."""
    written: list[float] = []
    report = Lease.report

    def counting(self: Any, **values: Any) -> None:
        written.append(time.monotonic())
        report(self, **values)

    monkeypatch.setattr(Lease, "report", counting)
    bench.ask(solver="annealing", limits=timed(1.0))
    begin = time.monotonic()
    run_search(bench.job())
    assert len(written) <= 4 * (time.monotonic() - begin) + 2


# Lanes. What runs in them is replaced, so that these tests are about the lanes alone.


class Lanes:
    """Starts dispatchers on a bench, and stops them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.started: list[Dispatcher] = []

    def start(
        self,
        make_executor: Callable[[], Executor],
        lanes: int = 1,
        max_crashes: int = 2,
        run: Callable[[Job], Outcome] = run_search,
        **more: Any,
    ) -> Dispatcher:
        bench = self.bench
        settings = DispatcherSettings(
            database_url=bench.database.url,
            blobs=bench.folder / "blobs",
            blobs_url=None,
            lanes=lanes,
            threads=1,
            lease_s=30.0,
            max_time_limit_s=60.0,
            max_crashes=max_crashes,
            **more,
        )
        dispatcher = Dispatcher(
            settings,
            bench.leases,
            Work(run=run, warm_up=warm_up),
            make_executor,
            Metrics(bench.everything, Path("/")),
        )
        dispatcher.start()
        self.started.append(dispatcher)
        return dispatcher


@pytest.fixture
def lanes(bench: Bench) -> Iterator[Lanes]:
    """Return a starter of dispatchers; they are stopped at the end."""
    lanes = Lanes(bench)
    yield lanes
    for dispatcher in lanes.started:
        dispatcher.stop(1.0)


class Dying(Executor):
    """An executor whose workers die of every plan."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if fn is run_search:
            future.set_exception(BrokenProcessPool("a worker died"))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def test_lanes_run_what_waits(bench: Bench, lanes: Lanes) -> None:
    """Plans that were queued before and after the start are run, on any executor of concurrent.futures."""
    before = bench.ask(solver="contiguous")
    dispatcher = lanes.start(lambda: ThreadPoolExecutor(1))
    after = bench.ask(solver="contiguous")
    dispatcher.announce()
    for plan_id in (before, after):
        assert bench.until(plan_id, lambda row: row.finished).status == "succeeded"


def test_dying_workers_fail_the_plan(bench: Bench, lanes: Lanes) -> None:
    """A plan that kills its worker is tried again with a new one, and has failed after the last try."""
    plan_id = bench.ask()
    made = Dying.made
    lanes.start(Dying, max_crashes=2)
    row = bench.until(plan_id, lambda row: row.finished)
    assert row.status == "failed"
    assert row.error is not None
    assert row.error["type"] == "/problems/worker-died"
    assert row.attempt == 2
    assert Dying.made >= made + 2


class Dead(Executor):
    """An executor that takes nothing: its worker died before."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        if fn is run_search:
            raise BrokenProcessPool("the worker has died")
        return Future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def test_plan_is_not_blamed_for_a_worker_that_died_before(bench: Bench, lanes: Lanes) -> None:
    """A worker that died while it was idle is replaced, and the plan that finds it dead is run by the next one."""
    executors: list[Executor] = [ThreadPoolExecutor(1), Dead()]
    plan_id = bench.ask(solver="contiguous")
    lanes.start(lambda: executors.pop(), max_crashes=1)
    assert bench.until(plan_id, lambda row: row.finished).status == "succeeded"


class Failing(Dead):
    """An executor on which a plan ends with an error of the executor's own."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if fn is run_search:
            future.set_exception(self.error)
        return future


def test_plan_is_not_blamed_for_an_executor_that_went_away(
    bench: Bench, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan whose cluster is lost waits for the next one; one that can't be reached yet is tried again."""
    monkeypatch.setattr(api.jobs.dispatcher, "RETRY_S", 0.1)
    makers: list[Callable[[], Executor]] = [
        lambda: ThreadPoolExecutor(1),
        lambda: unreachable(),
        lambda: Failing(ExecutorLostError("the scheduler went away")),
    ]

    def unreachable() -> Executor:
        raise OSError("no scheduler")

    plan_id = bench.ask(solver="contiguous")
    lanes.start(lambda: makers.pop()(), max_crashes=1)
    row = bench.until(plan_id, lambda row: row.finished)
    assert row.status == "succeeded"
    assert row.attempt == 2
    assert not makers


def test_lane_without_executor_says_why(bench: Bench, lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle lane notices that its cluster went away, tells it as long as there is no other, and takes no plan."""
    monkeypatch.setattr(api.jobs.dispatcher, "RETRY_S", 0.1)
    monkeypatch.setattr(api.jobs.dispatcher, "IDLE_S", 0.05)
    there = threading.Event()
    there.set()

    class Remote(ThreadPoolExecutor):
        lost = False

    made: list[Remote] = []

    def connect() -> Executor:
        if not there.is_set():
            raise InputError.of("scheduler_unreachable", "/executor", "There is no scheduler.", "Start one.")
        made.append(Remote(1))
        return made[-1]

    dispatcher = lanes.start(connect)

    def tells(trouble: str | None) -> None:
        deadline = time.monotonic() + 20
        while dispatcher.trouble != trouble:
            assert time.monotonic() < deadline, dispatcher.trouble
            time.sleep(0.01)

    while not made:
        time.sleep(0.01)
    tells(None)
    there.clear()
    made[0].lost = True
    tells("There is no scheduler.")
    plan_id = bench.ask(solver="contiguous")
    time.sleep(0.2)
    row = bench.store.plans.get(plan_id)
    assert row is not None
    assert (row.status, row.attempt) == ("queued", 0)
    there.set()
    tells(None)
    assert bench.until(plan_id, lambda row: row.finished).status == "succeeded"


def test_workers_that_cannot_run_a_plan_fail_it(bench: Bench, lanes: Lanes) -> None:
    """A worker without the program, say, does not keep a plan busy for ever; the client learns the kind of error."""
    plan_id = bench.ask()
    lanes.start(lambda: Failing(ModuleNotFoundError("No module named 'api'")), max_crashes=2)
    row = bench.until(plan_id, lambda row: row.finished)
    assert row.error is not None
    assert row.error["type"] == "/problems/worker-died"
    assert row.error["detail"] == "No worker could run the plan, 2 times: ModuleNotFoundError."


def test_attempt_that_a_cluster_runs_again_counts_as_a_death(bench: Bench, lanes: Lanes) -> None:
    """The second run of an attempt does nothing, and the plan is queued again as an attempt of its own."""

    class Rerunning(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
            if fn is run_search and arguments[0].claim.attempt == 1:
                bench.leases.lease(arguments[0].claim).begin()  # by the worker that has died since
            return super().submit(fn, *arguments, **options)

    plan_id = bench.ask(solver="contiguous")
    lanes.start(lambda: Rerunning(1))
    row = bench.until(plan_id, lambda row: row.finished)
    assert row.status == "succeeded"
    assert row.attempt == 2


def test_worker_without_the_traces_says_so(bench: Bench) -> None:
    """A folder that the worker can't see is no lost trace."""
    plan_id = bench.ask()
    assert run_search(bench.job(blobs=bench.folder / "elsewhere")).status == "failed"
    error = bench.row(plan_id).error
    assert error is not None
    assert error["errors"][0]["code"] == "blobs_unreachable"
    assert "MOE_PLACEMENT_BLOBS_URL" in error["errors"][0]["remedy"]


def test_worker_with_an_object_store_needs_no_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fetches the trace into a folder of its own, which goes with the job."""
    plan_id = bench.ask(solver="contiguous")
    store = bench.folder / "objects"
    store.mkdir()
    blob = bench.blobs.path(bench.trace_id)
    (store / blob.name).write_bytes(blob.read_bytes())
    scratch = bench.folder / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert run_search(bench.job(blobs=None, blobs_url=store.as_uri())).status == "succeeded"
    assert bench.row(plan_id).status == "succeeded"
    assert list(scratch.iterdir()) == []


def test_hanging_worker_is_replaced(bench: Bench, lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not react to a cancellation is given up, and the plan is cancelled."""
    monkeypatch.setattr(api.jobs.dispatcher, "GRACE_S", 0.2)
    release = threading.Event()

    def hang(job: Job) -> Outcome:
        release.wait(30)
        return Outcome(status=None)

    plan_id = bench.ask()
    lanes.start(lambda: ThreadPoolExecutor(1), run=hang)
    bench.until(plan_id, lambda row: row.status == "running")
    bench.store.plans.cancel(plan_id)
    assert bench.until(plan_id, lambda row: row.finished).status == "cancelled"
    release.set()


def test_time_to_stop_begins_with_the_signal(bench: Bench, lanes: Lanes) -> None:
    """What a worker is given to stop has begun when the server was asked to, and not after the last request."""
    release = threading.Event()

    def hang(job: Job) -> Outcome:
        release.wait(30)
        return Outcome(status=None)

    plan_id = bench.ask()
    dispatcher = lanes.start(lambda: ThreadPoolExecutor(1), run=hang)
    bench.until(plan_id, lambda row: row.status == "running")
    dispatcher.begin_stop(0.1)
    begin = time.monotonic()
    dispatcher.stop(20.0)
    assert time.monotonic() - begin < 10
    assert bench.row(plan_id).status == "queued"
    release.set()


def test_stop_queues_running_plans_again(bench: Bench, lanes: Lanes) -> None:
    """A dispatcher that stops gives its plans back with what they have found, in bounded time."""
    plan_id = bench.ask(solver="annealing", limits=timed(50.0))
    dispatcher = lanes.start(lambda: ThreadPoolExecutor(1))
    bench.until(plan_id, lambda row: row.score is not None)
    begin = time.monotonic()
    dispatcher.stop(5.0)
    assert time.monotonic() - begin < 8
    assert bench.row(plan_id).status == "queued"
    assert bench.plan_file(plan_id) is not None
    assert not dispatcher.alive


def test_counts_only_trace(tmp_path: Path) -> None:
    """A load matrix is planned by its loads alone, and the summary has no replayed figures."""
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).random((3, 8)))
    bench = Bench(tmp_path, file.getvalue())
    plan_id = bench.ask(objective={"execution": "dispatch", "dedup": "none"}, topology="1x2", solver="eplb")
    assert run_search(bench.job()).status == "succeeded"
    summary = json.loads(bench.store.plans.documents(plan_id)[2] or "")
    assert summary["plans"]["plan"]["fit"] is None
    assert summary["plans"]["plan"]["expected_load"]["imbalance_max_over_mean"] >= 1


def test_lane_takes_no_plan_before_its_process_is_ready(bench: Bench, lanes: Lanes) -> None:
    """The lane for short plans starts its process when the others are busy; they may be free before it is there."""
    going_on, ready = threading.Event(), threading.Event()
    first, second = bench.ask(), bench.ask()

    def run(job: Job) -> Outcome:
        if job.claim.plan_id == first:
            going_on.wait(30)
        return run_search(job)

    def make() -> ThreadPoolExecutor:
        executor = ThreadPoolExecutor(1)
        if threading.current_thread().name == "lane-1":
            executor.submit(ready.wait, 30)
        return executor

    with bench.store.database.write() as connection:
        connection.execute(update(plans).values(expected_s=0.1))
    lanes.start(make, run=run, short_lane=True)
    bench.until(first, lambda row: row.status == "running")
    time.sleep(0.8)
    assert bench.row(second).status == "queued"
    going_on.set()
    try:
        assert bench.until(second, lambda row: row.finished).status == "succeeded"
    finally:
        ready.set()


def test_short_plans_do_not_wait_for_long_ones(bench: Bench, lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a lane; a plan there that is not short after all goes back, and what comes next is run."""
    monkeypatch.setattr(api.jobs.dispatcher, "OVERDUE_S", 0.5)
    long, liar, short = bench.ask(), bench.ask(), bench.ask()
    with bench.database.write() as connection:
        for plan_id, expected in ((long, 60.0), (liar, 0.1), (short, 0.1)):
            changes = update(plans).where(plans.c.id == plan_id)
            connection.execute(changes.values(expected_s=expected, tenant="other" if plan_id == short else "local"))
    held = threading.Event()

    def run(job: Job) -> Outcome:
        lease = Lease(bench.database, job.claim, 30.0)
        lease.begin()
        if job.claim.plan_id == short:
            lease.finish("succeeded", values={})
            return Outcome(status="succeeded")
        with suppress(StaleAttemptError):
            while not held.wait(0.1):
                lease.renew()
        return Outcome(status=None)

    lanes.start(lambda: ThreadPoolExecutor(1), run=run, short_lane=True)
    try:
        bench.until(liar, lambda row: row.status == "queued" and row.attempt == 1, 20)
        assert bench.row(long).status == "running"
        other = bench.everything.of("other")
        deadline = time.monotonic() + 20
        while (row := other.plans.get(short)) is None or row.status != "succeeded":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        held.set()
