"""Names that no database can hold, on every route: 4xx, in the audit log, and never a fault."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from api.settings.settings import Settings
from tests.builders.service import key_of, local_client, services_of

ODD = ("%00", "a%00b", "%ED%A0%80", "%FF", "%0A", "%F4%90%80%80", "..%2f..", "x" * 3000)


def test_odd_names_are_no_fault(database_url: str, tmp_path: Path) -> None:
    """Paths with NUL, lone surrogates, bytes that are no UTF-8, and no end, on both databases."""
    settings = Settings(
        data_dir=tmp_path / "data", database_url=database_url, auth="required", shutdown_s=0, max_workers=1
    )
    with local_client(settings, raising=False) as client, capture_logs() as logs:
        key, audit = key_of(client, "us", "admin"), services_of(client).audit
        paths: dict[str, Any] = client.app.openapi()["paths"]  # type: ignore[attr-defined]  # it is ours
        asked = 0
        for path, odd in itertools.product(paths, ODD):
            if "{" not in path:
                continue
            named = "/".join(odd if part.startswith("{") else part for part in path.split("/"))
            for method in paths[path]:
                sent = key | {"Content-Type": "application/json", "Upload-Offset": "0"}
                answer = client.request(method.upper(), named, content=b"{}", headers=sent)
                assert 400 <= answer.status_code < 500, (method, named[:200], answer.text)
                asked += method != "get"
        rows = audit.list(1000)
        told = sum(int(str(row.target).split()[0]) for row in rows if row.status == 0)
        assert audit.left_out + told + sum(row.status >= 400 for row in rows) == asked
        assert not [entry for entry in logs if entry["event"] == "audit.lost"]
