"""The store: migrations, traces, plans, idempotency, leases and the fencing of old attempts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from api.resources.requests import request_of
from api.resources.schemas import PlanBody
from api.store import pages
from api.store.database import Database
from api.store.events import news_after
from api.store.leases import Claim, Leases, StaleAttemptError
from api.store.migrations.versions.v0004_nested_requests import converted_request
from api.store.models import metadata
from api.store.queue import Wanted
from api.store.rows import ConflictError
from api.store.store import Store
from api.store.tenant import TenantStore
from traces import InputError

TRACE = "sha256:" + "a" * 64
REQUEST = {"trace": TRACE, "name": "mine", "topology": "1x2"}
ERROR = {"type": "/problems/worker-died"}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Return an empty database, of each kind in turn."""
    found = Database(database_url)
    found.upgrade()
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> TenantStore:
    """Return a store with one trace."""
    store = Store(database).of("local")
    store.traces.add(TRACE, "tiny.npz", 10, {"kind": "trace"})
    return store


@pytest.fixture
def leases(store: TenantStore) -> Leases:
    """Return the queue of `store`."""
    return Leases(store.database, 30.0)


def queue_plan(store: TenantStore, **options: Any) -> str:
    """Queue a plan and return its id."""
    return store.plans.add(REQUEST, max_queued=100, **options).row.id


def claimed(leases: Leases) -> Claim:
    """Claim the next plan."""
    claim = leases.claim()
    assert claim is not None
    return claim


def test_migrations_make_the_tables(database: Database) -> None:
    """The migrated schema is the one that the code declares, and migrating twice changes nothing."""
    database.upgrade()
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_newer_schema_is_refused(database: Database) -> None:
    """A database of a later version is left alone."""
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InputError, match="9999"):
        database.upgrade()


def test_other_file_is_refused(tmp_path: Path) -> None:
    """A file that is no database is reported as such."""
    (tmp_path / "service.db").write_bytes(b"no database " * 1000)
    with pytest.raises(InputError, match="can't be used"):
        Database(f"sqlite:///{tmp_path / 'service.db'}").upgrade()


def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    """Connections use the write-ahead log, full synchronisation and foreign keys."""
    database = Database(f"sqlite:///{tmp_path / 'service.db'}")
    with database.read() as connection:
        names = ("journal_mode", "synchronous", "foreign_keys")
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
    assert pragmas == ["wal", 2, 1]


def test_trace_is_added_once(store: TenantStore) -> None:
    """The same trace again is the first one."""
    row, new = store.traces.add(TRACE, "other name", 10, {})
    assert (row.name, new) == ("tiny.npz", False)


def test_trace_in_use_is_kept(store: TenantStore, leases: Leases) -> None:
    """A trace that a waiting or running plan needs can't be deleted; afterwards it can, and the plan stays."""
    plan_id = queue_plan(store)
    with pytest.raises(ConflictError, match="need the trace"):
        store.traces.delete(TRACE)
    leases.lease(claimed(leases)).finish("failed", values={})
    assert store.traces.delete(TRACE)
    row = store.plans.get(plan_id)
    assert row is not None
    assert row.request["trace"] == TRACE


def test_plan_needs_its_trace(store: TenantStore) -> None:
    """A plan for a trace that was deleted meanwhile is not queued."""
    store.traces.delete(TRACE)
    with pytest.raises(ConflictError) as caught:
        queue_plan(store)
    assert caught.value.slug == "not-found"


def test_queue_has_an_end(store: TenantStore) -> None:
    """More plans than may wait are refused."""
    queue_plan(store)
    with pytest.raises(ConflictError) as caught:
        store.plans.add(REQUEST, max_queued=1)
    assert caught.value.slug == "queue-full"


def test_idempotency_key(store: TenantStore) -> None:
    """The same key and body give the same plan; another body is refused; an old key is forgotten."""
    first = store.plans.add(REQUEST, max_queued=9, key="k", body_hash="h")
    again = store.plans.add(REQUEST, max_queued=9, key="k", body_hash="h")
    assert (again.row.id, first.new, again.new) == (first.row.id, True, False)
    with pytest.raises(ConflictError) as caught:
        store.plans.add(REQUEST, max_queued=9, key="k", body_hash="other")
    assert caught.value.slug == "idempotency-key-reused"
    assert store.plans.of_key("k", "h", 60.0) == first.row
    assert store.plans.of_key("k", "other", -1.0) is None
    assert store.plans.add(REQUEST, max_queued=9, key="k", body_hash="other", key_age_s=-1).new


def test_idempotency_under_concurrency(store: TenantStore) -> None:
    """Many requests with one key at the same time make one plan."""
    found: list[str] = []

    def add() -> None:
        found.append(store.plans.add(REQUEST, max_queued=99, key="k", body_hash="h").row.id)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_claims_in_order_and_once(store: TenantStore, leases: Leases) -> None:
    """Plans are claimed in the order of their requests, each once."""
    plan_ids = [queue_plan(store) for _ in range(3)]
    assert [claimed(leases).plan_id for _ in plan_ids] == plan_ids
    assert leases.claim() is None


def test_concurrent_claims_differ(store: TenantStore, leases: Leases) -> None:
    """Lanes that claim at the same time never get the same plan."""
    plan_ids = {queue_plan(store) for _ in range(12)}
    found: list[str] = []

    def work() -> None:
        while (claim := leases.claim()) is not None:
            found.append(claim.plan_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(plan_ids)


def test_report_changes_the_revision(store: TenantStore, leases: Leases) -> None:
    """News change the revision that pollers compare; a sign of life does not."""
    plan_id = queue_plan(store)
    lease = leases.lease(claimed(leases))
    before = store.plans.get(plan_id)
    lease.renew()
    renewed = store.plans.get(plan_id)
    lease.report(score=2.0, bound=1.0, elapsed_s=0.5, plan="{}")
    after = store.plans.get(plan_id)
    assert before is not None
    assert renewed is not None
    assert after is not None
    assert before.revision == renewed.revision < after.revision
    assert (after.score, after.bound, after.gap) == (2.0, 1.0, 0.5)
    assert store.plans.documents(plan_id)[1] == "{}"


def test_worse_plan_is_not_reported(store: TenantStore, leases: Leases) -> None:
    """An attempt that begins anew does not replace a better plan of an earlier one."""
    plan_id = queue_plan(store)
    lease = leases.lease(claimed(leases))
    lease.report(score=2.0, bound=None, elapsed_s=1.0, plan='{"n": 1}')
    lease.report(score=3.0, bound=1.5, elapsed_s=2.0, plan='{"n": 2}')
    row, found, _ = store.plans.documents(plan_id)
    assert row is not None
    assert (row.score, row.bound, found) == (2.0, 1.5, '{"n": 1}')


def test_old_attempt_is_fenced_off(store: TenantStore, leases: Leases) -> None:
    """Once a plan was queued again, its old attempt can write nothing, before and after the next claim."""
    plan_id = queue_plan(store)
    old = leases.lease(claimed(leases))
    leases.give_back_mine()
    for _ in range(2):
        with pytest.raises(StaleAttemptError):
            old.report(score=1.0, bound=None, elapsed_s=1.0, plan="{}")
        with pytest.raises(StaleAttemptError):
            old.renew()
        with pytest.raises(StaleAttemptError):
            old.finish("succeeded", values={})
        with pytest.raises(StaleAttemptError):
            old.cancelled()
        leases.claim()
    row, found, _ = store.plans.documents(plan_id)
    assert row is not None
    assert (row.status, row.attempt, row.score, found) == ("running", 2, None, None)


def test_expired_lease_is_queued_again(store: TenantStore) -> None:
    """A plan without a sign of life is queued again with its best plan; one with a valid lease is not."""
    expired = Leases(store.database, -1.0)
    plan_id = queue_plan(store)
    claim = claimed(expired)
    expired.lease(claim).report(score=2.0, bound=None, elapsed_s=1.0, plan="{}")
    assert expired.give_back_expired() == [plan_id]
    row, found, _ = store.plans.documents(plan_id)
    assert row is not None
    assert (row.status, row.score, found) == ("queued", 2.0, "{}")
    valid = Leases(store.database, 60.0)
    claimed(valid)
    assert valid.give_back_expired() == []


def test_finished_once(store: TenantStore, leases: Leases) -> None:
    """A finished plan can't be finished again, nor queued again."""
    plan_id = queue_plan(store)
    lease = leases.lease(claimed(leases))
    lease.finish("succeeded", values={"score": 1.0})
    with pytest.raises(StaleAttemptError):
        lease.finish("failed", values={})
    assert leases.give_back_mine() == []
    row = store.plans.get(plan_id)
    assert row is not None
    assert row.status == "succeeded"


def test_crashes_are_counted(store: TenantStore, leases: Leases) -> None:
    """A plan whose worker dies is queued again, until it has happened too often."""
    plan_id = queue_plan(store)
    assert leases.crashed(claimed(leases), 2, ERROR) == "queued"
    assert leases.crashed(claimed(leases), 2, ERROR) == "failed"
    row = store.plans.get(plan_id)
    assert row is not None
    assert (row.status, row.error) == ("failed", ERROR)


def test_crash_of_an_old_attempt_is_ignored(store: TenantStore, leases: Leases) -> None:
    """The death of a worker that no longer has the plan changes nothing."""
    queue_plan(store)
    old = claimed(leases)
    leases.give_back_mine()
    claimed(leases)
    assert leases.crashed(old, 1, ERROR) is None


def test_cancel_queued(store: TenantStore, leases: Leases) -> None:
    """A waiting plan is cancelled at once, and never claimed."""
    row = store.plans.cancel(queue_plan(store))
    assert row is not None
    assert row.status == "cancelled"
    assert leases.claim() is None


def test_cancel_running(store: TenantStore, leases: Leases) -> None:
    """A running plan is asked to stop; asking again changes nothing."""
    plan_id = queue_plan(store)
    lease = leases.lease(claimed(leases))
    assert not lease.cancelled()
    first, second = store.plans.cancel(plan_id), store.plans.cancel(plan_id)
    assert first == second
    assert first is not None
    assert first.status == "running"
    assert lease.cancelled()


def test_cancelled_plan_is_not_queued_again(store: TenantStore, leases: Leases) -> None:
    """A plan that was asked to stop and whose worker dies is cancelled, not begun anew."""
    plan_id = queue_plan(store)
    claim = claimed(leases)
    store.plans.cancel(plan_id)
    assert leases.give_back(claim)
    row = store.plans.get(plan_id)
    assert row is not None
    assert row.status == "cancelled"


def test_delete_running(store: TenantStore, leases: Leases) -> None:
    """A running plan is deleted only after it was cancelled; its attempt is fenced off then."""
    plan_id = queue_plan(store, key="k", body_hash="h")
    lease = leases.lease(claimed(leases))
    with pytest.raises(ConflictError, match="running"):
        store.plans.delete(plan_id)
    store.plans.cancel(plan_id)
    assert store.plans.delete(plan_id)
    assert not store.plans.delete(plan_id)
    with pytest.raises(StaleAttemptError):
        lease.finish("cancelled", values={})


def test_pages(store: TenantStore) -> None:
    """Pages follow each other without gap or overlap, whatever is added meanwhile."""
    plan_ids = [queue_plan(store) for _ in range(5)]
    first, more = store.plans.page(2, None)
    queue_plan(store)
    second, _ = store.plans.page(2, first[-1].seq)
    third, _ = store.plans.page(2, second[-1].seq, ["queued"])
    assert [row.id for row in (*first, *second, *third)] == plan_ids[::-1]
    assert more
    assert store.plans.page(9, None, ["running"]) == ([], False)


def test_tenants_do_not_meet(database: Database) -> None:
    """The same trace belongs to each tenant that uploads it; plans, keys and deletions of one are no other's."""
    store = Store(database)
    mine, other = store.of("mine"), store.of("other")
    mine.traces.add(TRACE, "a", 10, {})
    assert other.traces.get(TRACE) is None
    assert other.traces.add(TRACE, "b", 10, {})[1]
    plan_id = mine.plans.add(REQUEST, max_queued=9, key="k", body_hash="h").row.id
    assert other.plans.add(REQUEST, max_queued=9, key="k", body_hash="h").row.id != plan_id
    assert other.plans.get(plan_id) is None
    assert other.plans.documents(plan_id) == (None, None, None)
    assert other.plans.cancel(plan_id) is None
    assert not other.plans.delete(plan_id)
    assert [row.id for row in mine.plans.page(10, None)[0]] == [plan_id]
    assert other.plans.delete(other.plans.page(10, None)[0][0].id)
    assert other.traces.delete(TRACE)
    assert store.trace_is_known(TRACE)
    assert mine.traces.get(TRACE) is not None


def test_every_change_is_an_event(store: TenantStore, leases: Leases) -> None:
    """Events have the plan's revisions without a hole, and the last one is the plan's state; renewals are none."""
    plan_id = queue_plan(store)
    lease = leases.lease(claimed(leases))
    lease.report(score=2.0, bound=None, elapsed_s=0.5, plan="{}")
    lease.renew()
    lease.report(score=1.0, bound=0.5, elapsed_s=0.7, plan="{}")
    lease.finish("succeeded", values={})
    events = news_after(store.database, plan_id, 0).events
    row = store.plans.get(plan_id)
    assert row is not None
    assert [event.revision for event in events] == list(range(1, row.revision + 1))
    assert [event.data["status"] for event in events] == ["queued", "running", "running", "running", "succeeded"]
    assert events[-1].data["gap"] == 0.5
    assert [event.revision for event in news_after(store.database, plan_id, 3).events] == [4, 5]


def test_upgrade_keeps_what_is_there(database_url: str) -> None:
    """Traces and plans of the first schema belong to the local tenant, and plans still know their trace."""
    database = Database(database_url)
    database.upgrade("0001")
    with database.write() as connection:
        insert = "INSERT INTO traces (id, name, created_at, bytes, facts) VALUES ('{}', 'n', 1.0, 5, '{{}}')"
        connection.exec_driver_sql(insert.format(TRACE))
        columns = "id, trace_id, request, status, cancel_requested, revision, attempt, crashes, created_at, updated_at"
        values = f"'plan_1', '{TRACE}', '{json.dumps(REQUEST)}', 'queued', false, 1, 0, 0, 1.0, 1.0, '[]'"
        connection.exec_driver_sql(f"INSERT INTO plans ({columns}, warnings) VALUES ({values})")
        connection.exec_driver_sql("INSERT INTO plan_documents (plan_id, plan) VALUES ('plan_1', '{}')")
    database.upgrade()
    store, leases = Store(database).of("local"), Leases(database, 30.0)
    assert store.traces.get(TRACE) is not None
    row = store.plans.get("plan_1")
    assert row is not None
    assert (row.kind, row.tags, row.request) == ("plan", [], REQUEST)
    assert store.plans.documents("plan_1")[1] == "{}"
    with pytest.raises(ConflictError, match="need the trace"):
        store.traces.delete(TRACE)
    assert leases.lease(claimed(leases)).load().trace_name == "n"


def test_upgrade_nests_requests_and_says_replica(database_url: str) -> None:
    """Requests, plan files, summaries and fronts of the third schema have today's fields, and nothing else changes."""
    objective, constraints = {"execution": "dispatch"}, {"load_cap": 1.05}
    plan = {
        "score": 0.1 + 0.2,
        "provenance": {
            "objective": {**objective, "copy_policy": "same_node"},
            "constraints": {**constraints, "extra_copies": 6, "distinct_copies": True},
            "front": {"against": "copies"},
        },
    }
    point = {"traffic": 1.5, "redundant_slots": 4, "made_with": {"against": "copies", "slots_per_gpu": 9}}
    front = {"front": {"against": "copies", "points": [point]}, "plans": [json.dumps(plan) + "\n"]}
    summary = {"plans": {"plan": {"fit": {"dispatch": {"copy_policy": "fair"}}}}}
    request = {**REQUEST, "copy_policy": None, "extra_copies": 6, "against": "copies", "name": "copies"}
    database = Database(database_url)
    database.upgrade("0003")
    with database.write() as connection:
        for seq, (kind, document) in enumerate((("plan", plan), ("front", front)), 1):
            columns = "tenant, id, kind, tags, request, status, cancel_requested, revision, attempt, begun, crashes"
            connection.execute(
                text(
                    f"INSERT INTO plans (seq, {columns}, created_at, updated_at, warnings) VALUES (:seq, 'local', :id, "
                    ":kind, '[]', :request, 'succeeded', false, 1, 1, 1, 0, 1.0, 1.0, '[]')"
                ),
                {"seq": seq, "id": f"{kind}_1", "kind": kind, "request": json.dumps(request)},
            )
            connection.execute(
                text(
                    "INSERT INTO plan_documents (plan_id, start, plan, summary) VALUES (:id, :start, :plan, :summary)"
                ),
                {
                    "id": f"{kind}_1",
                    "start": json.dumps(plan) + "\n",
                    "plan": json.dumps(document) + "\n",
                    "summary": json.dumps(summary) if kind == "plan" else None,
                },
            )
    database.upgrade()
    store = Store(database).of("local")
    row, plan_text, summary_text = store.plans.documents("plan_1")
    assert row is not None
    assert row.request == {
        **REQUEST,
        "name": "copies",
        "against": "replicas",
        "objective": {"replica_policy": None},
        "constraints": {"extra_replicas": 6},
    }
    today = {
        "score": 0.1 + 0.2,
        "provenance": {
            "objective": {**objective, "replica_policy": "same_node"},
            "constraints": {**constraints, "extra_replicas": 6, "distinct_replicas": True},
            "front": {"against": "replicas"},
        },
    }
    assert plan_text == json.dumps(today) + "\n"
    assert summary_text == json.dumps({"plans": {"plan": {"fit": {"dispatch": {"replica_policy": "fair"}}}}})
    _, front_text, no_summary = store.plans.documents("front_1", "front")
    assert json.loads(front_text or "") == {
        "front": {
            "against": "replicas",
            "points": [
                {"traffic": 1.5, "redundant_experts": 4, "made_with": {"against": "replicas", "slots_per_gpu": 9}}
            ],
        },
        "plans": [json.dumps(today) + "\n"],
    }
    assert no_summary is None
    with database.read() as connection:
        starts = connection.execute(text("SELECT start FROM plan_documents")).scalars().all()
    assert starts == [json.dumps(today) + "\n"] * 2


PIN = {"expert": 1, "gpu": 0}
DISPATCH = {"execution": "dispatch", "dedup": "node", "ownership": "token", "decode_batch": 128}


@pytest.mark.parametrize(
    ("earlier", "today"),
    [
        ({"limits": {"time_limit_s": None, "work": 9}}, {"limits": {"time_s": None, "work": 9}}),
        (
            {"execution": "context_coherent", "dedup": "gpu", "ownership": "token", "decode_batch": 128},
            {"objective": {"execution": "context_coherent"}},
        ),
        (
            {**DISPATCH, "activated_weight": 0.0, "load_cap": 1.1},
            {
                "objective": {"execution": "dispatch", "dedup": "node", "ownership": "token", "activated_weight": 0.0},
                "constraints": {"load_cap": 1.1},
            },
        ),
        ({**DISPATCH, "activated_weight": 0.5}, {"objective": {**DISPATCH, "activated_weight": 0.5}}),
        (
            {"pins": [{"expert": 1, "gpu": 0}], "seed": 3},
            {"seed": 3, "constraints": {"pins": [{"expert": 1, "gpu": 0}]}},
        ),
    ],
)
def test_earlier_requests_are_nested(earlier: dict[str, Any], today: dict[str, Any]) -> None:
    """What an earlier build stored is a body of today that asks for the same, without what had no effect."""
    found = converted_request({**REQUEST, **earlier})
    assert found == {**REQUEST, **today}
    request_of(PlanBody.model_validate({**found, "trace": TRACE}), 60.0)


def of_tenant(store: TenantStore, tenant: str, **options: Any) -> str:
    """Queue a plan of another tenant and return its id."""
    theirs = Store(store.database).of(tenant)
    theirs.traces.add(TRACE, None, 10, {})
    return queue_plan(theirs, **options)


def test_tenants_take_turns(store: TenantStore, leases: Leases) -> None:
    """One tenant's many plans don't keep another's waiting: the next one is of whom fewest run for, and had least."""
    greedy = [queue_plan(store) for _ in range(4)]
    modest = [of_tenant(store, "modest") for _ in range(2)]
    first, second = claimed(leases), claimed(leases)
    assert [first.plan_id, second.plan_id] == [greedy[0], modest[0]]
    leases.lease(second).finish("succeeded", values={})
    assert claimed(leases).plan_id == modest[1]
    assert claimed(leases).plan_id == greedy[1]


def test_time_that_was_used_counts(store: TenantStore, leases: Leases) -> None:
    """Of tenants that have as many running plans, the one whose plans took less time comes first."""
    long = queue_plan(store)
    with store.database.write() as connection:
        took = "UPDATE plans SET status = 'succeeded', started_at = {0} - 60, finished_at = {0}"
        connection.exec_driver_sql(took.format(time.time()))
    assert long
    mine, theirs = queue_plan(store), of_tenant(store, "modest")
    assert [claimed(leases).plan_id for _ in range(2)] == [theirs, mine]


def test_short_plans_have_a_lane(store: TenantStore, leases: Leases) -> None:
    """It takes no plan that is long, or of unknown length, nor any of a tenant that is barred."""
    for expected in (60.0, None):
        queue_plan(store, expected_s=expected)
    short = [queue_plan(store, expected_s=1.0) for _ in range(2)]
    found = leases.claim(Wanted(short=True))
    assert found is not None
    assert found.plan_id == short[0]
    leases.demote(found)
    again = leases.claim(Wanted(short=True))
    assert again is not None
    assert again.plan_id == short[1]
    assert leases.claim(Wanted(short=True)) is None
    other = of_tenant(store, "other", expected_s=1.0)
    assert leases.claim(Wanted(short=True, barred=frozenset({"other"}))) is None
    assert leases.claim(Wanted(short=True)).plan_id == other  # type: ignore[union-attr]  # there is one


def test_long_plans_of_one_tenant_leave_a_lane(store: TenantStore, leases: Leases) -> None:
    """Others, and its own plans that are not long, still get a lane."""
    wanted = Wanted(most_long=1)
    long = [queue_plan(store, expected_s=600.0) for _ in range(3)]
    middle = queue_plan(store, expected_s=10.0)
    assert [leases.claim(wanted).plan_id for _ in range(2)] == [long[0], middle]  # type: ignore[union-attr]
    assert leases.claim(wanted) is None
    theirs = of_tenant(store, "other", expected_s=600.0)
    assert leases.claim(wanted).plan_id == theirs  # type: ignore[union-attr]
    assert leases.claim(Wanted(most_long=None)) is not None


def test_full_queue_tells_nothing_of_others(store: TenantStore) -> None:
    """A tenant that has filled the queue is refused without a number; one that has nothing in it is let in."""
    for _ in range(3):
        store.plans.add(REQUEST, max_queued=3)
    with pytest.raises(ConflictError) as caught:
        store.plans.add(REQUEST, max_queued=3)
    assert not any(letter.isdigit() for letter in caught.value.detail)
    assert of_tenant(store, "other")
    theirs = Store(store.database).of("other")
    assert theirs.plans.add(REQUEST, max_queued=9).new
    with pytest.raises(ConflictError, match="no more of your plans"):
        theirs.plans.add(REQUEST, max_queued=3)


def test_pages_end_where_rows_are_large(store: TenantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has as many rows as are not too large together, and at least one; nothing is lost between pages."""
    monkeypatch.setattr(pages, "PAGE_BYTES", 1500)
    large = [{**REQUEST, "topology": "1" * 1000 * (number == 1)} for number in range(4)]
    ids = [store.plans.add(request, max_queued=9).row.id for request in large]
    found, before = [], None
    while True:
        rows, more = store.plans.page(3, before)
        found.append([ids.index(row.id) for row in rows])
        if not more:
            break
        before = rows[-1].seq
    assert found == [[3, 2, 1], [0]]
    monkeypatch.setattr(pages, "PAGE_BYTES", 1)
    assert [ids.index(row.id) for row in store.plans.page(3, None)[0]] == [3]


def test_cursors_hide_their_number(store: TenantStore) -> None:
    """They are one tenant's only, and tell nobody how many rows there are."""
    other = TenantStore(store.database, "other").cursors
    cursors = [store.cursors.after(seq) for seq in (1, 2, 1 << 40)]
    assert [store.cursors.position(cursor) for cursor in cursors] == [1, 2, 1 << 40]
    assert {len(cursor) for cursor in cursors} == {22}
    assert sum(one == two for one, two in zip(cursors[0], cursors[1], strict=True)) < 8, "neighbours look unlike"
    for wrong in (cursors[0][:-2], "czE", "-", cursors[0][::-1], "A" * 22):
        assert store.cursors.position(wrong) is None
    assert [other.position(cursor) for cursor in cursors] == [None] * 3
