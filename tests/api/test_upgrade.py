"""A store that an earlier version made, with data in it: it is upgraded, readable, and goes on where it was.

`earlier/store-0003.json` has the rows of a database of schema 0003, and the file of its trace, as that version's
service wrote them: two finished plans, a front, a plan that was running when the server stopped, a topology, an open
upload, a key. It is put into a database of that schema, of each kind.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, insert, text

from api.settings.settings import Settings
from api.store.blobs import Blobs
from api.store.database import Database
from tests.builders.service import keep, local_client, services_of
from traces import InputError

EARLIER: dict[str, Any] = json.loads((Path(__file__).parent / "earlier" / "store-0003.json").read_text())
ROWS: dict[str, list[dict[str, Any]]] = EARLIER["tables"]


@pytest.fixture
def earlier(database_url: str, tmp_path: Path) -> Settings:
    """Return the settings of a service whose store is of the earlier version."""
    database = Database(database_url)
    database.upgrade(EARLIER["revision"])
    schema = MetaData()
    with database.write() as connection:
        schema.reflect(connection)
        for name, rows in ROWS.items():
            connection.execute(insert(schema.tables[name]), rows)
        if not database_url.startswith("sqlite"):  # it counts on from where the rows end
            for name, rows in ROWS.items():
                if "seq" in rows[0]:
                    connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'seq'), {len(rows)})"))
    database.close()
    keep(Blobs(tmp_path / "data" / "blobs"), base64.b64decode(EARLIER["blob"]))
    return Settings(
        data_dir=tmp_path / "data", database_url=database_url, auth="required", max_workers=1, threads_per_plan=1
    )


def test_everything_is_there_and_goes_on(earlier: Settings) -> None:
    """Every row is readable with its content, the file is whole, and the plan that was cut short is taken up."""
    trace, waiting = ROWS["traces"][0], next(row for row in ROWS["plans"] if row["status"] == "queued")
    with local_client(earlier) as client:
        client.headers["Authorization"] = f"Bearer {EARLIER['key']}"
        found = client.get(f"/v1/traces/{trace['id']}").json()
        assert (found["name"], found["tags"], found["num_experts"]) == ("old.npz", ["kept"], 8)
        for row in ROWS["plans"]:
            place = f"/v1/{'fronts' if row['kind'] == 'front' else 'plans'}/{row['id']}"
            search = client.get(place).raise_for_status().json()
            assert search["name"] == row["name"]
            assert search["request"]["topology"] == row["request"]["topology"]
            if row["status"] == "succeeded":
                assert (search["status"], search["score"] if row["kind"] == "plan" else None) == (
                    "succeeded",
                    row["score"],
                )
            if row["kind"] == "plan":
                map_of = json.loads(next(doc["plan"] for doc in ROWS["plan_documents"] if doc["plan_id"] == row["id"]))
                plan = client.get(f"{place}/plan").raise_for_status().json()
                if row is not waiting:
                    assert plan["physical_to_logical_map"] == map_of["physical_to_logical_map"]
        done = ROWS["plans"][0]["id"]
        replayed = client.post("/v1/evaluations", json={"plan": done, "trace": trace["id"]}).raise_for_status().json()
        assert replayed["kind"] == "tokens"
        assert client.get(f"/v1/topologies/{ROWS['topologies'][0]['id']}").json()["topology"] == "2x4"
        again = {"trace": trace["id"], "topology": "1x2", "start": done, "limits": {"work": 50}}
        place = client.post("/v1/plans", json=again).raise_for_status().headers["location"]
        client.post(f"/v1/plans/{waiting['id']}/cancel").raise_for_status()
        finished = client.get(place, headers={"Prefer": "wait=60"}).json()
        assert finished["status"] == "succeeded", finished
        events = client.get(f"/v1/plans/{done}/events", headers={"Last-Event-ID": "0"}).text
        assert events.count("\nid: ") + events.startswith("id: ") >= 6
        assert services_of(client).parts.blobs.sound(trace["id"])


def test_versions_in_turn(earlier: Settings) -> None:
    """A later version's store is refused by an earlier one, untouched; the later one goes on with it."""
    later = Database(earlier.store_url)
    later.upgrade("0004")
    with later.write() as connection:
        rows = connection.execute(text("SELECT count(*) FROM plans")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match="does not know"):
        later.upgrade()
    with later.write() as connection:
        assert connection.execute(text("SELECT count(*) FROM plans")).scalar_one() == rows == len(ROWS["plans"])
        connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))
    later.upgrade()
    later.upgrade()
    later.close()
