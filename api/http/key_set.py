"""The public keys of an identity provider: fetched one at a time, kept for a stated time, failures remembered."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from jwt import PyJWK

__all__ = ["LIFETIME_S", "KeySet", "ProviderError"]

LIFETIME_S = 300.0  # a key that the provider has withdrawn is valid no longer than this
REFRESH_S = LIFETIME_S / 2  # fetched again ahead of need, so that nobody waits
AGAIN_S = 30.0  # between two fetches, failed ones included: strangers can't make more of them
FETCH_S = 10.0
MAX_BYTES = 1 << 20
SIGNS = ("sig", None)
log = structlog.get_logger(__name__)


class ProviderError(Exception):
    """There are no keys to check a token with: the provider did not answer for too long."""


class KeySet:
    """Keys by id. Used on the event loop only.

    A token of an unknown key makes at most one fetch in `AGAIN_S`, in a thread that serves nobody else; who asks
    meanwhile waits for that one, without holding a thread.

    Parameters
    ----------
    url : str
    fetch : callable, optional
        Returns the keys by id; `ProviderError` or `OSError` if it can't.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        url: str,
        fetch: Callable[[], dict[str, PyJWK]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch or (lambda: fetch_keys(url))
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._as_of = self._tried_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> PyJWK | None:
        """Return the key, None if the provider has none of this id.

        Raises
        ------
        ProviderError
            If the provider has not answered since what it last said is too old.
        """
        for last in (False, True):
            age = self._clock() - self._as_of
            if age < LIFETIME_S and (key := self._keys.get(key_id)) is not None:
                if age > REFRESH_S:
                    self._begin()
                return key
            if last or (task := self._begin()) is None:
                break
            await asyncio.shield(task)
        if age >= LIFETIME_S:
            raise ProviderError
        return None

    def _begin(self) -> asyncio.Task[None] | None:
        """Return the fetch that is under way, or begin one; None if the last was not long ago."""
        if self._task is None and self._clock() - self._tried_at >= AGAIN_S:
            self._task = asyncio.get_running_loop().create_task(self._update())
        return self._task

    async def _update(self) -> None:
        begin = self._clock()
        try:
            self._keys = await asyncio.wait_for(_in_thread(self._fetch), FETCH_S)
            self._as_of = begin
        except (OSError, HTTPException, ProviderError, TimeoutError) as error:
            log.warning("provider.unreachable", error=str(error)[:200] or type(error).__name__)
        finally:
            self._tried_at, self._task = self._clock(), None


async def _in_thread(work: Callable[[], dict[str, PyJWK]]) -> dict[str, PyJWK]:
    """Call a function in a thread of its own: neither a request nor the end of the server waits for it."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[dict[str, PyJWK]] = loop.create_future()

    def settle(keys: dict[str, PyJWK] | None, error: Exception | None) -> None:
        if found.done():  # nobody waits any more
            return
        if error is not None:
            found.set_exception(error)
        elif keys is not None:
            found.set_result(keys)

    def run() -> None:
        keys: dict[str, PyJWK] | None = None
        failed: Exception | None = None
        try:
            keys = work()
        except Exception as error:
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, keys, failed)

    threading.Thread(target=run, name="provider", daemon=True).start()
    return await found


def fetch_keys(url: str) -> dict[str, PyJWK]:
    """Return the keys that a provider publishes for signatures, by id; those of kinds that are not known are left out.

    Raises
    ------
    OSError
    ProviderError
        If the answer is no key set.
    """
    import jwt

    deadline, content = time.monotonic() + FETCH_S, bytearray()
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  # settings check it
    with urllib.request.urlopen(request, timeout=FETCH_S / 2) as answer:  # noqa: S310
        while chunk := answer.read1(1 << 16):
            content += chunk
            if len(content) > MAX_BYTES or time.monotonic() > deadline:
                raise ProviderError("The key set is too large, or comes too slowly.")
    try:
        listed: list[Any] = json.loads(content)["keys"]
        named = [item for item in listed if isinstance(item, dict) and isinstance(item.get("kid"), str)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProviderError("The answer is no JSON Web Key Set.") from None
    keys: dict[str, PyJWK] = {}
    for item in named:
        try:
            if item.get("use") in SIGNS:
                keys[item["kid"]] = jwt.PyJWK(item)
        except (jwt.PyJWTError, TypeError, ValueError):
            log.warning("provider.key_unknown", kid=item["kid"][:100])
    return keys
