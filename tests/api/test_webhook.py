"""The operator's webhook: told once when a re-plan pays, signed, tried a bounded number of times, led nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from api.resources.searches.telling import replan_pays
from api.service.webhook import AGAIN_S, Webhook
from api.settings.settings import Settings
from api.store.outbox import Outbox, tell_later
from api.store.store import Store
from api.store.tasks import Task
from api.telemetry.metrics import Metrics
from tests.builders.service import store_in

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Receiver:
    """A server on the loopback that answers as it is told, and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], str]] = []
        self.status, self.headers = 200, dict[str, str]()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver."""
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[tuple[Outbox, Metrics]]:
    """Return an outbox with one message, and the metrics of its store."""
    database, _ = store_in(tmp_path)
    with database.write() as connection:
        tell_later(connection, '{"type": "replan.pays"}')
    yield Outbox(database), Metrics(Store(database), tmp_path)
    database.close()


def results(metrics: Metrics) -> dict[str, float]:
    """Return how many tries ended how."""
    samples = next(iter(metrics.webhooks.collect())).samples
    return {sample.labels["result"]: sample.value for sample in samples if sample.name.endswith("_total")}


def test_a_message_is_signed_and_sent_once(receiver: Receiver, outbox: tuple[Outbox, Metrics]) -> None:
    """The signature is that of Standard Webhooks; what was taken is not sent again."""
    hook = Webhook(outbox[0], receiver.url, SECRET, outbox[1])
    hook.send_due(2e9)
    hook.send_due(3e9)
    [(path, headers, body)] = receiver.got
    assert (path, body) == ("/hook", '{"type": "replan.pays"}')
    signed = f"{headers['webhook-id']}.2000000000.{body}".encode()
    expected = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert results(outbox[1]) == {"delivered": 1.0}


def test_tries_are_bounded(receiver: Receiver, outbox: tuple[Outbox, Metrics]) -> None:
    """After each failure it waits longer, then gives up; redirects are failures, and are not followed."""
    receiver.status, receiver.headers = 307, {"Location": f"{receiver.url}/elsewhere"}
    hook, now = Webhook(outbox[0], receiver.url, SECRET, outbox[1]), 2e9
    for wait_s in AGAIN_S:
        hook.send_due(now)
        hook.send_due(now + wait_s / 2)
        now += wait_s
    assert len(receiver.got) == len(AGAIN_S)
    hook.send_due(now)
    hook.send_due(now + 1e9)
    assert {path for path, _, _ in receiver.got} == {"/hook"}
    assert results(outbox[1]) == {"failed": float(len(AGAIN_S)), "dropped": 1.0}


def test_gone_ends_it(receiver: Receiver, outbox: tuple[Outbox, Metrics]) -> None:
    """A receiver that answers 410 is not asked again."""
    receiver.status = 410
    Webhook(outbox[0], receiver.url, SECRET, outbox[1]).send_due(2e9)
    assert results(outbox[1]) == {"dropped": 1.0}
    assert outbox[0].due(9e9, 10) == []


def test_what_is_told() -> None:
    """Ids and figures; nothing without a webhook."""
    task = Task(
        tenant="a",
        kind="replan",
        request={"trace": "t", "name": None},
        start=None,
        best=None,
        trace_name=None,
        facts={},
    )
    job = SimpleNamespace(webhook=True, claim=SimpleNamespace(plan_id="replan_1"))
    attempt: Any = SimpleNamespace(job=job)
    told = json.loads(replan_pays(attempt, task, saved_s=2.5) or "")
    assert told["type"] == "replan.pays"
    assert told["data"] == {
        "id": "replan_1",
        "kind": "replan",
        "tenant": "a",
        "name": None,
        "trace": "t",
        "series": None,
        "saved_s": 2.5,
    }
    job.webhook = False
    assert replan_pays(attempt, task) is None


@pytest.mark.parametrize(
    ("url", "secret", "told"),
    [
        ("https://example.com/hook", None, "both"),
        ("http://example.com/hook", SECRET, "https://"),
        ("https://example.com/hook", "short", "whsec_"),
        ("https://example.com/hook", "whsec_" + base64.b64encode(b"1234").decode(), "24 to 64"),
    ],
)
def test_settings_that_are_refused(url: str, secret: str | None, told: str) -> None:
    """Half a setting, a place that others could read, a weak secret."""
    with pytest.raises(ValidationError, match=told):
        Settings(webhook_url=url, webhook_secret=None if secret is None else SecretStr(secret))
