"""A database and the folder of its traces belong together; neither is used with another's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

import api.service.later_identity
import api.service.lifecycle
from api.service.lifecycle import Service
from api.settings.settings import Settings
from api.store.blobs import Blobs
from api.store.database import Database
from api.store.identity import settle_identity
from api.store.remote_blobs import open_blobs
from api.store.store import Store
from tests.builders.service import keep
from traces import InputError


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], tuple[Database, Blobs]]:
    """Return a maker of databases with their folder of traces, by name."""

    def made(name: str) -> tuple[Database, Blobs]:
        (tmp_path / name).mkdir(exist_ok=True)
        database = Database(f"sqlite:///{tmp_path / name / 'service.db'}")
        database.upgrade()
        return database, Blobs(tmp_path / name / "blobs")

    return made


def add(database: Database, blobs: Blobs) -> str:
    """Keep a trace."""
    name = keep(blobs, b"content")
    Store(database).of("t").traces.add(name, None, 7, {})
    return name


def test_server_on_the_wrong_folder_is_refused(tmp_path: Path) -> None:
    """A second server on the same database with a folder of its own does not start, and changes nothing."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = Service(Settings(data_dir=tmp_path / "one", database_url=url))
    first.open()
    name = add(first.database, Blobs(tmp_path / "one" / "blobs"))
    second = Service(Settings(data_dir=tmp_path / "two", database_url=url))
    with pytest.raises(InputError, match="other_store"):
        second.open()
    with pytest.raises(InputError, match="other_store"):  # nor when it is tried again
        second.open()
    assert Blobs(tmp_path / "one" / "blobs").exists(name)
    first.stop()
    again = Service(Settings(data_dir=tmp_path / "one", database_url=url))
    again.open()
    again.stop()


def test_other_database_does_not_sweep_the_traces(make: Callable[[str], tuple[Database, Blobs]]) -> None:
    """A new database on a folder with traces, which would remove them all as unknown, is refused, old folder or new."""
    database, blobs = make("one")
    settle_identity(database, blobs)
    add(database, blobs)
    other, _ = make("two")
    for _ in range(2):
        with pytest.raises(InputError, match="other_store"):
            settle_identity(other, blobs)
        blobs.forget_identity()  # as that of an earlier version


def test_folder_of_an_earlier_version_gets_an_identity(make: Callable[[str], tuple[Database, Blobs]]) -> None:
    """If it has the traces of the database; an empty one is another's."""
    database, blobs = make("one")
    add(database, blobs)
    _, empty = make("two")
    with pytest.raises(InputError, match="none of them is here"):
        settle_identity(database, empty)
    identity = settle_identity(database, blobs)
    assert settle_identity(database, blobs) == identity == blobs.identity()


def test_crash_between_folder_and_database_is_completed(make: Callable[[str], tuple[Database, Blobs]]) -> None:
    """The folder is written first; what it says holds at the next start."""
    database, blobs = make("one")
    blobs.identify("abc")
    assert settle_identity(database, blobs) == "abc"
    assert settle_identity(database, blobs) == "abc"


def test_operator_can_say_that_they_belong_together(make: Callable[[str], tuple[Database, Blobs]]) -> None:
    """The refusal says how: a folder that was lost is replaced, its traces are uploaded again."""
    database, blobs = make("one")
    identity = settle_identity(database, blobs)
    add(database, blobs)
    _, empty = make("two")
    with pytest.raises(InputError, match=f"write {identity} to the file blobs/identity"):
        settle_identity(database, empty)
    empty.identify(identity)
    assert settle_identity(database, empty) == identity


def test_servers_that_share_an_object_store_share_its_identity(tmp_path: Path) -> None:
    """Two folders are caches of one store; another store is refused."""
    database = Database(f"sqlite:///{tmp_path / 'service.db'}")
    database.upgrade()
    url = (tmp_path / "objects").as_uri()
    one, two = (open_blobs(tmp_path / name, url) for name in ("one", "two"))
    assert one.empty()
    identity = settle_identity(database, one)
    add(database, one)
    assert not two.empty()
    assert settle_identity(database, two) == identity
    with pytest.raises(InputError, match="other_store"):
        settle_identity(database, open_blobs(tmp_path / "one", (tmp_path / "others").as_uri()))


def test_store_that_was_away_is_checked_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at the next start: a server that finds another's traces then ends."""
    monkeypatch.setattr(api.service.later_identity, "EVERY_S", 0.02)
    answers = iter([OSError("away"), OSError("away"), InputError.of("other_store", "/data_dir", "Another's.", "Stop.")])

    def settle(*_: object) -> str:
        raise next(answers)

    monkeypatch.setattr(api.service.lifecycle, "settle_identity", settle)
    service, ended = Service(Settings(data_dir=tmp_path, blobs_url="memory://away", max_workers=1)), Event()
    service.end = ended.set
    service.start()
    try:
        assert ended.wait(10)
        assert service.services.draining.is_set()
        assert not service.services.parts.dispatcher.alive
    finally:
        service.stop()
