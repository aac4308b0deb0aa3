"""The page at `/`, and the files that it is made of: no build step, nothing from other hosts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.http.conditional import not_modified
from api.http.problems import ProblemError
from api.sample import SAMPLE, sample_path

__all__ = ["router"]

router = APIRouter(include_in_schema=False)  # for people; programs read /openapi.json

FOLDER = Path(__file__).resolve().parents[2] / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
# Scripts, styles and answers of this service only; nothing inline, nothing embedded, no form that leaves.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The files by name, and the digest of all of them, which is part of their addresses."""

    version: str
    page: bytes
    files: dict[str, bytes]


@cache
def _site() -> Site:
    """Read the folder, once: what is not in it then can't be asked for."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix in TYPES)
    files = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    version = digest.hexdigest()[:16]
    page = files.pop("index.html").replace(b"web/VERSION/", f"web/{version}/".encode())
    return Site(version=version, page=page, files=files)


@cache
def _sample() -> bytes:
    return sample_path().read_bytes()


def _answer(request: Request, content: bytes, kind: str, **fields: str) -> Response:
    """Return content under the page's policy; 304, under the same policy, if the client has it."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": POLICY, "ETag": etag} | fields
    return not_modified(request, Response(content, headers=headers, media_type=kind))


@router.get("/")
def page(request: Request) -> Response:
    """Return the page."""
    return _answer(request, _site().page, TYPES[".html"])


@router.get("/web/{version}/{name:path}")
async def page_file(version: str, name: str, request: Request) -> Response:
    """Return a file of the page. Its address changes with its content, so it may be kept for good."""
    site = _site()
    if version == site.version and name == f"sample/{SAMPLE}":
        content, kind = await run_in_threadpool(_sample), "application/octet-stream"
    elif version == site.version and name in site.files:
        content, kind = site.files[name], TYPES[Path(name).suffix]
    else:
        raise ProblemError("not-found", "The page has no such file. Load it again.")
    return _answer(request, content, kind, **{"Cache-Control": FOREVER})
