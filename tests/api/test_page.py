"""The files of the page: types, headers, addresses; nothing outside its folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.sample import sample_path
from api.settings.settings import Settings
from tests.builders.service import local_client

WEB = Path(__file__).parents[2] / "api" / "web"
LINK = re.compile(r'(?:src|href)="(web/[^"]+)"')
IMPORT = re.compile(r"""^import .* from "(\./[^"]+)";""", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(client: TestClient) -> str:
    """Return the address of the page's files."""
    found = re.search(r"web/[0-9a-f]{16}/", client.get("/").text)
    assert found is not None
    return f"/{found.group()}"


def test_page_is_whole(client: TestClient, folder: str) -> None:
    """The page and all that it loads, directly or by imports, are served with their types, to be kept for good."""
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    waiting, seen = [f"/{link}" for link in LINK.findall(page.text)], set[str]()
    while waiting:
        path = waiting.pop()
        seen.add(path.removeprefix(folder))
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == types[path.rpartition(".")[2]]
        assert "immutable" in answer.headers["cache-control"]
        inner = [path.rpartition("/")[0] + name[1:] for name in IMPORT.findall(answer.text)]
        waiting += [name for name in inner if name.removeprefix(folder) not in seen]
    scripts = {path.relative_to(WEB).as_posix() for path in WEB.rglob("*.js")}
    assert scripts <= seen, "a script that nobody loads"


def test_page_has_its_own_policy(client: TestClient, folder: str) -> None:
    """Scripts of the service run and nothing inline does; the interface keeps its policy, which allows nothing."""
    for path in ("/", f"{folder}main.js"):
        policy = client.get(path).headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
    assert "script-src" not in client.get("/v1/solvers").headers["content-security-policy"]
    text = client.get("/").text
    assert re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", text) is None


def test_page_names_no_other_host() -> None:
    """No file of ours loads anything from elsewhere."""
    ours = [path for path in WEB.rglob("*") if path.is_file() and "vendor" not in path.parts]
    named = {path.name: re.findall(r"https?://[^\s\"']+", path.read_text()) for path in ours}
    assert {name: found for name, found in named.items() if found} == {"icon.svg": ["http://www.w3.org/2000/svg"]}


def test_page_is_revalidated(client: TestClient) -> None:
    """The page itself is asked for each time, and not sent again."""
    etag = client.get("/").headers["etag"]
    assert client.get("/", headers={"If-None-Match": etag}).status_code == 304
    assert client.head("/").headers["etag"] == etag
    assert client.get("/").headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ["", "main.js", "style.css", "icon.svg", "sample/tiny_moe.npz"])
def test_not_modified_keeps_every_field(client: TestClient, folder: str, method: str, name: str) -> None:
    """A 304 has the fields of the 200: a browser puts them in the place of the stored ones, the policy among them."""
    path = folder + name if name else "/"
    whole = client.request(method, path)
    again = client.request(method, path, headers={"If-None-Match": whole.headers["etag"]})
    assert (whole.status_code, again.status_code) == (200, 304)
    assert "script-src 'self'" in again.headers["content-security-policy"]
    own = {"content-length", "content-type", "x-request-id"}  # of the body, and of each request
    fields = {field: value for field, value in whole.headers.items() if field not in own}
    assert {field: value for field, value in again.headers.items() if field != "x-request-id"} == fields
    assert again.content == b""


@pytest.mark.parametrize(
    "name", ["nothing.js", "index.html", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "", "vendor"]
)
def test_no_other_file(client: TestClient, folder: str, name: str) -> None:
    """What is no file of the page is not found, whatever it is called."""
    assert client.get(folder + name).status_code == 404


def test_old_address_is_gone(client: TestClient) -> None:
    """Files of another version are not mixed with these."""
    answer = client.get("/web/0000000000000000/main.js")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_other_methods(client: TestClient, folder: str) -> None:
    """The page is read only, and says so."""
    answers = [client.post(path) for path in ("/", f"{folder}main.js")]
    assert [(answer.status_code, answer.headers["allow"]) for answer in answers] == [(405, "GET, HEAD")] * 2


def test_sample_is_served(client: TestClient, folder: str) -> None:
    """The sample trace is the one of `demo`, byte for byte."""
    answer = client.get(f"{folder}sample/tiny_moe.npz")
    assert answer.content == sample_path().read_bytes()
    assert answer.headers["content-type"] == "application/octet-stream"


def test_page_is_open_where_a_key_is_needed(tmp_path: Path) -> None:
    """With authentication the page loads without a key, and nothing else does."""
    settings = Settings(data_dir=tmp_path, auth="required", max_workers=1)
    with local_client(settings) as guarded:
        links = LINK.findall(guarded.get("/").text)
        assert links
        assert [guarded.get(f"/{link}").status_code for link in links] == [200] * len(links)
        assert guarded.get("/v1/traces").status_code == 401
