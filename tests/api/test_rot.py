"""Files that rot: found by reading them, told, and healed by an upload of the same bytes, whoever sends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.service.scrubber import Scrubber
from api.settings.settings import Settings
from api.store.blobs import Blobs
from api.store.remote_blobs import open_blobs
from api.telemetry.metrics import Metrics
from tests.builders.service import keep, key_of, local_client, services_of, store_in, upload
from traces import InputError


def flip(path: Path) -> None:
    """Flip a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(("way", "damage"), [("whole", flip), ("parts", Path.unlink)])
def test_upload_of_sound_bytes_heals(tmp_path: Path, trace_bytes: bytes, way: str, damage: object) -> None:
    """A damaged or lost file is whole again after an upload, though two tenants have the trace and keep it."""
    with local_client(Settings(data_dir=tmp_path, auth="required", max_workers=1)) as client:
        keys = [key_of(client, tenant, "read", "write") for tenant in ("one", "two")]
        names = {client.post("/v1/traces", content=trace_bytes, headers=key).json()["id"] for key in keys}
        (name,) = names
        blobs = services_of(client).parts.blobs
        damage(blobs.path(name))  # type: ignore[operator]  # both take a path
        with pytest.raises(InputError, match="Upload it again"):
            blobs.fetch(name)
        if way == "whole":
            again = client.post("/v1/traces", content=trace_bytes, headers=keys[1])
        else:
            place = client.post("/v1/uploads", json={}, headers=keys[1]).headers["location"]
            fields = {"Upload-Offset": "0", "Content-Type": "application/octet-stream", **keys[1]}
            client.patch(place, content=trace_bytes, headers=fields)
            again = client.post(f"{place}/finish", headers=keys[1])
        assert again.status_code == 200
        assert blobs.fetch(name).read_bytes() == trace_bytes


def test_object_store_is_healed(tmp_path: Path) -> None:
    """The object, not the replica of it here alone."""
    url = (tmp_path / "there").as_uri()
    blobs = open_blobs(tmp_path / "here", url)
    name = keep(blobs, b"content")
    flip(tmp_path / "there" / blobs.path(name).name)
    assert not blobs.sound(name)
    incoming = blobs.receive()
    incoming.write(b"content")
    incoming.finish()
    blobs.make_way(incoming)
    blobs.keep(incoming)
    assert blobs.sound(name)
    assert open_blobs(tmp_path / "other", url).fetch(name).read_bytes() == b"content"


def test_scrubber_finds_rot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is damaged, lost or can't be read is counted until it is healed; sound files and unknown ones are not."""
    monkeypatch.setattr("api.service.scrubber.REST", 0.0)
    database, store = store_in(tmp_path)
    blobs, metrics = Blobs(tmp_path / "blobs"), Metrics(store, tmp_path)
    names = [keep(blobs, content) for content in (b"sound", b"rotten", b"lost", b"unreadable")]
    for name in names:
        store.of("t").traces.add(name, None, 5, {})
    flip(blobs.path(names[1]))
    blobs.path(names[2]).unlink()
    blobs.path(names[3]).unlink()
    blobs.path(names[3]).mkdir()  # reading it fails
    scrubber = Scrubber(store, blobs, metrics, 1.0)
    scrubber.scrub(store.trace_ids())

    def damaged() -> float | None:
        return metrics.registry.get_sample_value("moe_placement_damaged_blobs")

    assert damaged() == 3
    keep(blobs, b"lost")
    store.of("t").traces.delete(names[1])
    scrubber.scrub(set(names))
    assert damaged() == 1
    database.close()


def test_service_scrubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace_bytes: bytes) -> None:
    """It does so by itself, without being asked."""
    monkeypatch.setattr("api.service.scrubber.FIRST_S", 0.0)
    monkeypatch.setattr("api.service.scrubber.EVERY_S", 0.05)
    with local_client(Settings(data_dir=tmp_path, max_workers=1, scrub_days=1e-7)) as client:
        name = upload(client, trace_bytes)
        flip(services_of(client).parts.blobs.path(name))
        for _ in range(400):
            if "moe_placement_damaged_blobs 1.0" in client.get("/metrics").text:
                return
    raise AssertionError("the damage was not found")
