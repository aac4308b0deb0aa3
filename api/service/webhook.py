"""The operator's webhook: told when a re-plan pays, by a thread of its own, signed, and not for ever."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.http.fetching import direct_opener
from api.settings.settings import webhook_key
from api.store.outbox import Outbox, Told
from api.telemetry.metrics import Metrics

__all__ = ["AGAIN_S", "Webhook", "signature"]

EVERY_S = 2.0
TIMEOUT_S = 10.0
AT_ONCE = 20
AGAIN_S = (10.0, 60.0, 600.0, 3600.0, 4 * 3600.0, 12 * 3600.0)  # after each time in vain; after the last it is dropped
GONE = 410
log = structlog.get_logger(__name__)


def signature(key: bytes, message_id: str, sent_at: int, body: str) -> str:
    """Return the field ``webhook-signature`` (Standard Webhooks 1.0: HMAC-SHA256 of id, time and body)."""
    digest = hmac.new(key, f"{message_id}.{sent_at}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhook:
    """A thread that sends what waits.

    Parameters
    ----------
    outbox : Outbox
    url, secret : str
        As the operator has set them.
    metrics : Metrics
    """

    def __init__(self, outbox: Outbox, url: str, secret: str, metrics: Metrics) -> None:
        self._outbox, self._url, self._metrics = outbox, url, metrics
        self._key = webhook_key(secret)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a message that is being sent may be sent again."""
        self._stopping.set()
        self._thread.join(1.0)

    def send_due(self, now: float) -> None:
        """Send what is due, each once."""
        for message in self._outbox.due(now, AT_ONCE):
            if self._stopping.is_set():
                return
            trouble = self._send(message, int(now))
            if trouble is None:
                self._outbox.drop(message)
                self._metrics.webhooks.labels("delivered").inc()
            elif trouble == str(GONE) or message.attempts >= len(AGAIN_S):
                self._outbox.drop(message)
                self._metrics.webhooks.labels("dropped").inc()
                log.error("webhook.dropped", message=message.id, attempts=message.attempts + 1, reason=trouble)
            else:
                self._outbox.postpone(message, now + AGAIN_S[message.attempts])
                self._metrics.webhooks.labels("failed").inc()
                log.warning("webhook.failed", message=message.id, attempts=message.attempts + 1, reason=trouble)

    def _send(self, message: Told, now: int) -> str | None:
        """Send a message; return why that failed, None if it did not."""
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._key, message.id, now, message.body),
        }
        request = urllib.request.Request(self._url, message.body.encode(), headers, method="POST")  # noqa: S310  # set
        try:
            with direct_opener().open(request, timeout=TIMEOUT_S) as answer:
                status: Any = answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))[:200]
        return None if 200 <= status < 300 else str(status)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.send_due(time.time())
            except SQLAlchemyError:
                log.exception("webhook.unreadable")  # the next round tries again
