"""Uploads that were tampered with: each is a trace or is refused, none stays, none ends the service or holds it up.

`HOSTILE_UPLOADS=2000 pytest tests/api/test_hostile_uploads.py` sends as many.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COUNT = int(os.environ.get("HOSTILE_UPLOADS", "60"))
SPECIAL = (
    b"\xff" * 8,
    b"\x00" * 8,
    b"\x7f" + b"\xff" * 7,
    b"PK\x03\x04",
    b"PAR1",
    b"\x93NUMPY",
    b"{",
    b"]",
    b"\n",
    b"-1",
)


def seeds(trace: bytes) -> list[bytes]:
    """Return a small valid file of every format that is read."""
    ids = np.load(io.BytesIO(trace))["topk_ids"][:40]
    lines = [json.dumps({"topk_ids": token.tolist(), "seq_id": n // 8}) for n, token in enumerate(ids.astype(int))]
    head = json.dumps({"layer_ids": list(range(1, 7)), "num_experts": 32})
    found = [trace, "\n".join([head, *lines]).encode(), "\n".join(lines).encode()]
    weights = io.BytesIO()
    np.save(weights, np.random.default_rng(0).random((6, 32)))
    found.append(weights.getvalue())
    flat = io.BytesIO()
    np.save(flat, ids[:, :, 0].astype(np.int64))
    found.append(flat.getvalue())
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return found
    table = pa.table(
        {"topk_ids": ids.astype(np.int64).reshape(len(ids), -1).tolist(), "seq_id": np.arange(len(ids)) // 8}
    )
    for compression in ("none", "zstd"):
        file = io.BytesIO()
        pq.write_table(table, file, compression=compression)
        found.append(file.getvalue())
    return found


def tamper(rng: random.Random, content: bytes) -> bytes:
    """Return the file with a few changes of one kind."""
    data = bytearray(content)

    def place() -> int:
        # Heads and tails tell how to read the rest: most changes go there.
        return rng.choice(
            (rng.randrange(len(data)), rng.randrange(min(200, len(data))), -rng.randrange(1, min(300, len(data))))
        )

    kind = rng.randrange(7)
    if kind == 0:
        for _ in range(rng.randrange(1, 20)):
            data[place()] = rng.randrange(256)
    elif kind == 1:
        del data[rng.randrange(1, len(data)) :]
    elif kind == 2:
        at = place() % len(data)
        data[at : at + 8] = rng.choice(SPECIAL)
    elif kind == 3:
        at = rng.randrange(len(data))
        data[at:at] = data[rng.randrange(len(data)) :][: rng.randrange(1, 5000)]
    elif kind == 4:
        at = place() % len(data)
        del data[at : at + rng.randrange(1, 64)]
    elif kind == 5:
        at = place() % len(data)
        data[at : at + 4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 10**9)).to_bytes(4, rng.choice(("little", "big")))
    else:
        return rebuilt(rng, bytes(data))
    return bytes(data)


def rebuilt(rng: random.Random, content: bytes) -> bytes:
    """Return an archive whose checksums are right and whose members are not; other files come with digits changed."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return bytes(
            rng.choice(b"0123456789-e.") if chr(byte).isdigit() and rng.random() < 0.05 else byte for byte in content
        )
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name in given.namelist():
            member = bytearray(given.read(name))
            if rng.random() < 0.6:
                at = rng.randrange(min(128, len(member)))
                member[at : at + rng.choice((1, 1, 4))] = rng.choice((b"9", b"(", b"O", b"f8", b"\xff", b"99999999"))
            made.writestr(rng.choice((name, name, name, "../" + name, name.upper())), bytes(member))
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(120 + COUNT)
def test_tampered_uploads(
    tmp_path: Path, start_server: Callable[..., Any], make_trace_bytes: Callable[..., bytes]
) -> None:
    """No 500, no answer that takes long, no file that stays of what was refused."""
    seed = int(os.environ.get("HOSTILE_SEED", "0"))
    rng = random.Random(seed)
    server = start_server(tmp_path / "data", max_trace_bytes=4 << 20, job_memory_bytes=2 << 30)
    files = seeds(make_trace_bytes(tokens=60))
    statuses: Counter[int] = Counter()
    slowest = 0.0
    for number in range(COUNT):
        content = tamper(rng, rng.choice(files))
        headers = {}
        if rng.random() < 0.1:
            content, headers = gzip.compress(content, mtime=0), {"Content-Encoding": "gzip"}
            if rng.random() < 0.5:
                content = tamper(rng, content)
        params = {"num_experts": 32} if rng.random() < 0.5 else {}
        begin = time.monotonic()
        answer = server.http.post("/v1/traces", content=content, headers=headers, params=params)
        slowest = max(slowest, time.monotonic() - begin)
        statuses[answer.status_code] += 1
        if answer.status_code not in (200, 201, 400, 409, 413, 415, 422):
            (tmp_path / "found").write_bytes(content)
            raise AssertionError(f"HOSTILE_SEED={seed}, number {number}: {answer.status_code} {answer.text[:500]}")
        if answer.status_code not in (200, 201):
            assert answer.headers["content-type"] == "application/problem+json"
            assert str(tmp_path) not in answer.text, "the service's own paths are told"
    assert slowest < 30, "an upload held the service up"
    assert statuses[422] > COUNT / 4
    kept = {item["id"].removeprefix("sha256:") for item in all_traces(server)}
    assert {path.name for path in (server.data_dir / "blobs").rglob("*") if path.is_file()} == kept | {"identity"}
    assert server.http.get("/readyz").status_code == 200


def all_traces(server: Any) -> list[dict[str, Any]]:
    """Return every trace of the service, page by page."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = server.http.get("/v1/traces", params=query).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
