"""Ways in for a trace: compressed bodies, parts that are resumed, files that the service fetches; what blobs keep."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import zstandard
from fastapi.testclient import TestClient

from api.settings.settings import Settings
from api.store.blobs import Blobs
from api.store.remote_blobs import open_blobs
from tests.builders.service import keep, local_client
from traces import InputError


def zstd(data: bytes) -> bytes:
    """Compress."""
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstd)])
class TestEncodings:
    """Bodies with `Content-Encoding`."""

    def test_the_content_is_what_counts(
        self, client: TestClient, make_trace_bytes: Callable[..., bytes], encoding: str, pack: Callable[[bytes], bytes]
    ) -> None:
        """A packed file is the same trace as the file itself; Content-Digest is of what was sent."""
        content = make_trace_bytes(tokens=300, seed=ord(encoding[0]))
        packed = pack(content[:1000]) + pack(content[1000:])  # several members are one stream
        digest = base64.b64encode(hashlib.sha256(packed).digest()).decode()
        header = {"Content-Encoding": encoding, "Content-Digest": f"sha-256=:{digest}:"}
        made = client.post("/v1/traces", content=packed, headers=header)
        assert made.status_code == 201, made.text
        assert made.json()["id"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert client.post("/v1/traces", content=content).status_code == 200

    def test_damage_and_bombs_are_refused(
        self, client: TestClient, trace_bytes: bytes, encoding: str, pack: Callable[[bytes], bytes]
    ) -> None:
        """What is cut off, empty, or other bytes is a bad request; what unpacks to too much is too large."""
        header, packed = {"Content-Encoding": encoding}, pack(trace_bytes)
        for damaged in (packed[:-9], b"", b"no stream", packed + b"tail"):
            assert client.post("/v1/traces", content=damaged, headers=header).status_code == 400
        bomb = pack(bytes(50_000_000))
        assert client.post("/v1/traces", content=bomb, headers=header).status_code == 413


def test_unknown_encoding(client: TestClient, trace_bytes: bytes) -> None:
    """Encodings that are not known, and several at once, are refused with those that are."""
    for encoding in ("br", "gzip, gzip"):
        response = client.post("/v1/traces", content=trace_bytes, headers={"Content-Encoding": encoding})
        assert response.status_code == 415
        assert "zstd" in response.headers["accept-encoding"]


class TestParts:
    """Uploads in parts."""

    def test_parts_make_the_file(self, client: TestClient, make_trace_bytes: Callable[..., bytes]) -> None:
        """Parts are appended where the last one ended, and make the trace that the whole file would."""
        content = make_trace_bytes(tokens=400, seed=5)
        begun = client.post("/v1/uploads", json={"name": "p.npz", "bytes": len(content), "tags": ["t"]})
        assert begun.status_code == 201
        place = begun.headers["location"]
        for start in range(0, len(content), 5000):
            part, header = content[start : start + 5000], {"Upload-Offset": str(start)}
            sent = client.patch(place, content=part, headers=header)
            assert sent.status_code == 204, sent.text
            assert int(sent.headers["upload-offset"]) == start + len(part)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        made = client.post(f"{place}/finish", headers={"Repr-Digest": f"sha-256=:{digest}:"})
        assert made.status_code == 201, made.text
        trace = made.json()
        assert trace["id"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert (trace["name"], trace["tags"]) == ("p.npz", ["t"])
        assert client.get(place).status_code == 404, "what is finished is gone"

    def test_wrong_offset_tells_the_right_one(self, client: TestClient) -> None:
        """A part in the wrong place changes nothing, and the answer says where to go on."""
        place = client.post("/v1/uploads", json={}).headers["location"]
        client.patch(place, content=b"abc", headers={"Upload-Offset": "0"})
        for offset in ("0", "2", "4"):
            refused = client.patch(place, content=b"xyz", headers={"Upload-Offset": offset})
            assert (refused.status_code, refused.headers["upload-offset"]) == (409, "3")
        assert client.get(place).json()["offset"] == 3
        assert client.head(place).headers["upload-offset"] == "3"
        assert client.patch(place, content=b"x", headers={"Upload-Offset": "x"}).status_code == 422
        assert client.delete(place).status_code == 204
        assert client.get(place).status_code == 404

    def test_size_is_kept(self, client: TestClient) -> None:
        """More than was told is refused, less is not complete, and more than the service takes is told at once."""
        place = client.post("/v1/uploads", json={"bytes": 4}).headers["location"]
        assert client.post(f"{place}/finish").status_code == 409
        assert client.patch(place, content=b"abcde", headers={"Upload-Offset": "0"}).status_code == 413
        client.patch(place, content=b"ab", headers={"Upload-Offset": str(client.get(place).json()["offset"])})
        assert client.post(f"{place}/finish").status_code == 409
        assert client.post("/v1/uploads", json={"bytes": 3_000_000}).status_code == 413
        assert client.post("/v1/uploads", json={"format": "floppy"}).status_code == 422

    def test_damage_is_told_and_nothing_is_kept(self, client: TestClient) -> None:
        """A file that is no trace, or not the one that was meant, is refused; its parts wait for a decision."""
        place = client.post("/v1/uploads", json={}).headers["location"]
        client.patch(place, content=b"no trace", headers={"Upload-Offset": "0"})
        other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
        assert client.post(f"{place}/finish", headers={"Repr-Digest": f"sha-256=:{other}:"}).status_code == 400
        refused = client.post(f"{place}/finish")
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-trace")
        assert client.get(place).json()["offset"] == 8

    def test_parts_survive_a_crash(self, tmp_path: Path, start_server: Callable[..., Any], trace_bytes: bytes) -> None:
        """After `kill -9` an upload goes on where the next server says; one that has expired is gone."""
        first = start_server(tmp_path / "data")
        place = first.http.post("/v1/uploads", json={}).headers["location"]
        half = len(trace_bytes) // 2
        first.http.patch(place, content=trace_bytes[:half], headers={"Upload-Offset": "0"}).raise_for_status()
        first.kill()
        second = start_server(tmp_path / "data")
        offset = second.http.get(place).json()["offset"]
        assert offset == half
        second.http.patch(place, content=trace_bytes[half:], headers={"Upload-Offset": str(half)}).raise_for_status()
        made = second.http.post(f"{place}/finish")
        assert made.status_code == 201, made.text
        second.kill()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, trace_bytes: bytes) -> Iterator[tuple[TestClient, Path, str]]:
    """Run a service that may import from a folder and an address; return it with both."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "open").mkdir()
    (folder / "open" / "t.npz").write_bytes(trace_bytes)
    (folder / "secret.npz").write_bytes(trace_bytes)
    (folder / "open" / "link.npz").symlink_to(folder / "secret.npz")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/open/away":
                self.send_response(302)
                self.send_header("Location", "/secret.npz")
                self.end_headers()
                return
            self.send_response(200 if self.path == "/open/t.npz" else 404)
            self.end_headers()
            self.wfile.write(trace_bytes)

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("importing"),
        import_dirs=(folder / "open",),
        import_urls=(f"{address}/open/",),
        max_workers=1,
    )
    with local_client(settings, raising=False) as client:
        yield client, folder, address
    server.shutdown()
    server.server_close()


class TestImports:
    """Files that the service fetches itself."""

    def test_allowed_sources(self, shelf: tuple[TestClient, Path, str], trace_bytes: bytes) -> None:
        """A file below an allowed folder, and one below an allowed address, become the trace that they are."""
        client, folder, address = shelf
        wanted = "sha256:" + hashlib.sha256(trace_bytes).hexdigest()
        first = client.post("/v1/imports", json={"source": str(folder / "open" / "t.npz"), "name": "t"})
        again = client.post("/v1/imports", json={"source": f"{address}/open/t.npz"})
        assert (first.status_code, again.status_code) == (201, 200), (first.text, again.text)
        assert first.json()["id"] == again.json()["id"] == wanted

    def test_everything_else_is_refused_alike(self, shelf: tuple[TestClient, Path, str]) -> None:
        """Other places, links that lead out, other schemes and hosts: one answer, whether there is something or not."""
        client, folder, address = shelf
        sources = [
            str(folder / "secret.npz"),
            str(folder / "nothing"),
            str(folder / "open" / "link.npz"),
            f"{folder}/open/../secret.npz",
            "open/t.npz",
            "/proc/self/environ",
            "\x00",
            f"{address}/secret.npz",
            f"{address}/open/../secret.npz",
            f"{address}/open/%2e%2e/secret.npz",
            f"{address.replace('//', '//a@')}/open/t.npz",
            f"{address}.example/open/t.npz",
            f"{address}@example/open/t.npz",
            "http://169.254.169.254/latest/meta-data/",
            f"file://{folder}/open/t.npz",
            "gopher://127.0.0.1/",
        ]
        for source in sources:
            response = client.post("/v1/imports", json={"source": source})
            assert response.status_code == 422, source
            assert response.json()["errors"][0]["code"] == "import_not_allowed", (source, response.text)

    def test_redirects_are_not_followed(self, shelf: tuple[TestClient, Path, str]) -> None:
        """An address that is allowed does not lead to one that is not; what is missing is told."""
        client, folder, address = shelf
        for source in (f"{address}/open/away", f"{address}/open/missing", str(folder / "open")):
            response = client.post("/v1/imports", json={"source": source})
            assert response.json()["errors"][0]["code"] in ("import_failed", "import_not_allowed"), source

    def test_nothing_is_imported_by_default(self, client: TestClient, tmp_path: Path) -> None:
        """Without settings there is no import at all."""
        (tmp_path / "t.npz").write_bytes(b"x")
        response = client.post("/v1/imports", json={"source": str(tmp_path / "t.npz")})
        assert response.json()["errors"][0]["code"] == "import_not_allowed"


class TestBlobs:
    """Content that is checked when it is read, here or in a store."""

    @pytest.fixture(params=["folder", "store"])
    def blobs(self, request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
        """Return blobs of each kind."""
        return open_blobs(tmp_path / "here", None if request.param == "folder" else f"file://{tmp_path / 'there'}")

    @staticmethod
    def kept(blobs: Blobs, content: bytes = b"content") -> str:
        """Keep some content and return its name."""
        return keep(blobs, content)

    def test_what_is_kept_is_found(self, blobs: Blobs) -> None:
        """Content is there under its name until it is deleted."""
        name = self.kept(blobs)
        assert blobs.fetch(name).read_bytes() == b"content"
        assert blobs.exists(name)
        blobs.delete(name)
        assert not blobs.exists(name)
        with pytest.raises(InputError, match="lost"):
            blobs.fetch(name)

    def test_damage_is_noticed(self, tmp_path: Path) -> None:
        """A file whose bytes have changed is not handed out."""
        blobs = Blobs(tmp_path)
        name = self.kept(blobs)
        blobs.path(name).write_bytes(b"contenT")
        with pytest.raises(InputError, match="damaged"):
            blobs.fetch(name)

    def test_store_heals_its_cache(self, tmp_path: Path) -> None:
        """Another machine gets the content from the store, and a damaged replica is fetched again."""
        url = f"file://{tmp_path / 'there'}"
        name = self.kept(open_blobs(tmp_path / "one", url))
        other = open_blobs(tmp_path / "two", url)
        assert other.fetch(name).read_bytes() == b"content"
        other.path(name).write_bytes(b"x")
        assert other.fetch(name).read_bytes() == b"content"
        (tmp_path / "there" / other.path(name).name).write_bytes(b"y")
        other.path(name).unlink()
        with pytest.raises(InputError, match="damaged"):
            other.fetch(name)
