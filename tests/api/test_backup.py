"""Backup and restore: everything that was acknowledged is there, whole; nothing is ever overwritten."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.store.backup import backup
from api.store.blobs import Blobs
from api.store.identity import settle_identity
from api.store.restore import restore
from tests.builders.service import keep, store_in
from traces import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data folder with a trace of a few bytes and an upload in parts."""
    folder = tmp_path / "data"
    folder.mkdir()
    database, every = store_in(folder)
    blobs, store = Blobs(folder / "blobs"), every.of("local")
    store.traces.add(keep(blobs, b"content"), "mine", 7, {})
    blobs.part(store.uploads.add(None, {}, None, 4e9).id).write_bytes(b"half")
    database.close()
    return folder


@pytest.mark.slow
def test_backup_while_plans_run(
    tmp_path: Path, start_server: Callable[..., Any], make_trace_bytes: Callable[..., bytes]
) -> None:
    """What was acknowledged before a backup is in it, although plans run and uploads go on; the copy works."""
    server = start_server(tmp_path / "data")
    traces = [server.http.post("/v1/traces", content=make_trace_bytes(tokens=300, seed=n)).json()["id"] for n in (1, 2)]
    asked = {"trace": traces[0], "topology": "1x4", "solver": "annealing"}
    done = server.http.post("/v1/plans", json=asked | {"limits": {"work": 1000}}, headers={"Prefer": "wait=60"}).json()
    assert done["status"] == "succeeded"
    running = server.http.post("/v1/plans", json=asked | {"limits": {"time_s": 60}}).json()["id"]
    server.until(f"/v1/plans/{running}", lambda plan: plan["score"] is not None)
    upload = server.http.post("/v1/uploads", json={}).json()["id"]
    part = {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
    server.http.patch(f"/v1/uploads/{upload}", content=b"x" * 5000, headers=part).raise_for_status()
    stop = threading.Event()

    def go_on() -> None:
        number = 100
        while not stop.is_set():
            number += 1
            server.http.post("/v1/traces", content=make_trace_bytes(tokens=300, seed=number))

    thread = threading.Thread(target=go_on)
    thread.start()
    kept = backup(server.data_dir, tmp_path / "backup.tar")
    stop.set()
    thread.join()
    server.terminate()
    assert kept.missing == ()
    assert restore(tmp_path / "backup.tar", tmp_path / "copy").traces == kept.traces >= 2
    copy = start_server(tmp_path / "copy")
    for trace in traces:
        assert copy.http.get(f"/v1/traces/{trace}").status_code == 200
    again = copy.http.get(f"/v1/plans/{done['id']}").json()
    assert again == done
    assert copy.http.get(f"/v1/uploads/{upload}").json()["offset"] == 5000
    taken_up = copy.until(f"/v1/plans/{running}", lambda plan: plan["status"] == "running")
    assert taken_up["score"] is not None
    copy.http.post(f"/v1/plans/{running}/cancel").raise_for_status()


def test_round_trip_and_privacy(folder: Path, tmp_path: Path) -> None:
    """The commands save a folder and bring it back; nobody else can read the file or the folder."""
    file, copy = tmp_path / "backup.tar", tmp_path / "copy"
    for command, place in (("backup", folder), ("restore", copy)):
        told = CliRunner().invoke(app, [command, str(file), "--data-dir", str(place), "--json"])
        assert told.exit_code == 0, told.output
        found = json.loads(told.stdout)
        assert (found["traces"], found["plans"], found["uploads"], found["missing"]) == (1, 0, 1, [])
    for name in ("blobs/sha256", "blobs/parts"):
        saved = {path.name: path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()}
        assert saved == {path.name: path.read_bytes() for path in (copy / name).rglob("*") if path.is_file()}
        assert saved
    assert file.stat().st_mode & 0o077 == 0
    assert copy.stat().st_mode & 0o077 == 0


def test_never_over_a_folder(folder: Path, tmp_path: Path) -> None:
    """A folder that holds anything is refused, and stays as it was."""
    backup(folder, tmp_path / "backup.tar")
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match="is not empty"):
        restore(tmp_path / "backup.tar", folder)
    assert sorted(folder.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "backup.tar", tmp_path / "empty")


def run(*words: object) -> Any:
    """Run the command line."""
    return CliRunner().invoke(app, list(map(str, words)))


def test_lost_trace_is_told(folder: Path, tmp_path: Path) -> None:
    """A trace whose file is missing is named, not passed over in silence; the exit code tells too."""
    blob = next(path for path in (folder / "blobs" / "sha256").rglob("*") if path.is_file())
    blob.unlink()
    assert backup(folder, tmp_path / "backup.tar").missing == (str(blob.relative_to(folder)),)
    told = run("backup", tmp_path / "backup.tar", "--data-dir", folder)
    assert told.exit_code == 1
    assert f"{blob.name} is missing" in told.stderr


def test_damaged_trace_is_told_and_the_rest_is_saved(folder: Path, tmp_path: Path) -> None:
    """A backup of a rotten file fails with its name, holds everything else, and can be restored."""
    database, every = store_in(folder)
    rotten = Blobs(folder / "blobs").path(keep(Blobs(folder / "blobs"), b"rotten"))
    every.of("local").traces.add(f"sha256:{rotten.name}", None, 6, {})
    database.close()
    rotten.write_bytes(b"rotteN")
    told = run("backup", tmp_path / "backup.tar", "--data-dir", folder, "--json")
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert (found["damaged"], found["traces"], found["lost"]) == ([str(rotten.relative_to(folder))], 2, True)
    kept = restore(tmp_path / "backup.tar", tmp_path / "copy")
    assert kept.missing == (str(rotten.relative_to(folder)),)
    assert len([path for path in (tmp_path / "copy" / "blobs" / "sha256").rglob("*") if path.is_file()]) == 1


def test_restore_takes_what_is_sound(folder: Path, tmp_path: Path) -> None:
    """A changed byte in a file, in its header or in the manifest costs that file alone, and is told."""
    database, every = store_in(folder)
    settle_identity(database, Blobs(folder / "blobs"))
    name = keep(Blobs(folder / "blobs"), b"other trace")
    every.of("local").traces.add(name, None, 11, {})
    database.close()
    file, blobs = tmp_path / "backup.tar", []
    backup(folder, file)
    sound = file.read_bytes()
    with tarfile.open(file) as archive:
        places = {entry.name: entry for entry in archive}
        blobs = [entry.name for entry in archive if entry.name.startswith("blobs/sha256")]
    first = places[blobs[0]]
    for place, damaged in (
        (first.offset_data + 2, [blobs[0]]),
        (first.offset + 2, [blobs[0]]),
        (places["manifest.json"].offset_data + 1, ["manifest.json"]),
    ):
        content = bytearray(sound)
        content[place] ^= 1
        file.write_bytes(content)
        copy = tmp_path / f"copy-{place}"
        told = run("restore", file, "--data-dir", copy, "--json")
        assert told.exit_code == 1
        found = json.loads(told.stdout)
        # Without the manifest nobody knows whether the part of an upload is whole.
        assert [item for item in found["damaged"] if not item.startswith("blobs/parts")] == damaged
        assert Blobs(copy / "blobs").sound(f"sha256:{blobs[-1][-64:]}")
        assert Blobs(copy / "blobs").identity() == Blobs(folder / "blobs").identity() is not None


def test_tenants_files_are_no_part_of_a_damaged_backup(tmp_path: Path) -> None:
    """A trace that is a tar file itself, whose header in the backup is damaged, brings nothing in by its content."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for name in ("manifest.json", "service.db", "../evil", f"blobs/sha256/aa/{'a' * 64}", "blobs/parts/upload_1"):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"{}"))
    folder = tmp_path / "data"
    folder.mkdir()
    database, every = store_in(folder)
    every.of("local").traces.add(keep(Blobs(folder / "blobs"), inner.getvalue()), None, 1, {})
    database.close()
    file = tmp_path / "backup.tar"
    backup(folder, file)
    content = bytearray(file.read_bytes())
    content[content.index(b"blobs/sha256")] ^= 1
    file.write_bytes(content)
    kept = restore(file, tmp_path / "copy")
    assert kept.traces == 1
    left = {path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert left <= {"service.db", "identity"}


def test_damaged_database_is_refused(folder: Path, tmp_path: Path) -> None:
    """A backup whose database has a changed byte, is cut off, or is no backup makes no folder."""
    file = tmp_path / "backup.tar"
    backup(folder, file)
    content = bytearray(file.read_bytes())
    content[content.index(b"SQLite format") + 5000] ^= 1
    for damaged in (bytes(content), bytes(content[:9000]), b"", b"no tar file"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="no backup, or damaged"):
            restore(file, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "data"]


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "blobs/sha256/../../evil", "blobs/parts/../x", "service.db/x"]
)
def test_backup_with_other_paths_is_refused(tmp_path: Path, name: str) -> None:
    """A tar file that would write anywhere else writes nothing."""
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match="it holds"):
        restore(tmp_path / "evil.tar", tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar"]


def test_folder_without_a_service(tmp_path: Path) -> None:
    """What is no data folder, and a database that is damaged, are told apart from a backup that worked."""
    with pytest.raises(InputError, match="There is no service"):
        backup(tmp_path, tmp_path.with_suffix(".tar"))
    (tmp_path / "service.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="can't be read"):
        backup(tmp_path, tmp_path.with_suffix(".tar"))
    assert not (tmp_path.with_suffix(".tar")).exists()


def test_postgresql_is_saved_with_its_own_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service on PostgreSQL is told to use pg_dump."""
    monkeypatch.setenv("MOE_PLACEMENT_DATABASE_URL", "postgresql://nobody@/none")
    told = CliRunner().invoke(app, ["backup", str(tmp_path / "b.tar"), "--data-dir", str(tmp_path)])
    assert told.exit_code == 1
    assert "pg_dump" in told.output


def test_copy_has_one_state(folder: Path, tmp_path: Path) -> None:
    """A transaction that is under way during a backup is not in it."""
    writer = sqlite3.connect(folder / "service.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM traces")
    assert backup(folder, tmp_path / "backup.tar").traces == 1
    writer.execute("COMMIT")
    writer.close()


def test_backup_never_overwrites_what_it_saves(folder: Path, tmp_path: Path) -> None:
    """A file within the data folder is refused, by whatever path it is named."""
    before = (folder / "service.db").read_bytes()
    (tmp_path / "link").symlink_to(folder)
    for file in (folder / "service.db", folder / "x.tar", tmp_path / "link" / "service.db"):
        with pytest.raises(InputError, match="in the folder that is saved"):
            backup(folder, file)
    assert (folder / "service.db").read_bytes() == before


def test_backup_that_can_not_be_written_names_its_file(folder: Path, tmp_path: Path) -> None:
    """Not the data folder, which is sound."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "none" / "b.tar", tmp_path / "file" / "b.tar", tmp_path, tmp_path / ("a" * 300)):
        told = CliRunner().invoke(app, ["backup", str(place), "--data-dir", str(folder)])
        assert told.exit_code == 1
        assert told.stderr.startswith(f"error: {place}: The backup ")
        assert "--data-dir" not in told.stderr


def test_restore_tells_what_is_no_backup_and_no_place(folder: Path, tmp_path: Path) -> None:
    """A pipe is not waited for, and a folder that can't be made is told."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        restore(tmp_path / "pipe", tmp_path / "new")
    backup(folder, tmp_path / "b.tar")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "x", tmp_path / ("a" * 300)):
        with pytest.raises(InputError, match="Can't write"):
            restore(tmp_path / "b.tar", place)
