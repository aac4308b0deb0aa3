"""Addresses in settings: of executors, of this machine, of databases."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

__all__ = ["LOCAL", "Cluster", "is_local_database", "is_loopback", "is_safe_url", "parse_executor"]

LOCAL = "processes"
SCHEMES = {"dask": "tcp", "dask+tls": "tls"}
FORMS = "processes, dask://HOST:PORT or dask+tls://HOST:PORT"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Address of a Dask scheduler.

    Attributes
    ----------
    transport : str
        ``tcp``, or ``tls`` with the certificates of Dask's own configuration.
    host : str
    port : int
    """

    transport: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Address as Dask writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"


def parse_executor(text: str) -> Cluster | None:
    """Read ``processes`` (None) or ``dask://HOST:PORT``.

    Raises
    ------
    ValueError
        With a sentence that says what is wrong.
    """
    if text == LOCAL:
        return None
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in SCHEMES or not parts.hostname or not port or more:
        raise ValueError(f"{text!r} is no executor. Give {FORMS}.")
    return Cluster(transport=SCHEMES[parts.scheme], host=parts.hostname, port=port)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe_url(url: str) -> bool:
    """Whether what is fetched from there can't be changed on the way."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def is_local_database(url: str) -> bool:
    """Whether only this machine can reach it: a file, a loopback address, or a socket in the file system."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return True
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    return not host or host.startswith("/") or is_loopback(host)
