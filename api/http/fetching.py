"""Requests of the service itself: to the address that was meant, and no other."""

from __future__ import annotations

import urllib.request
from typing import Any

__all__ = ["direct_opener"]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An address that is allowed must not lead to one that is not."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nothing."""
        return


def direct_opener() -> urllib.request.OpenerDirector:
    """Return what opens http(s) addresses, without redirects and proxies."""
    return urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
