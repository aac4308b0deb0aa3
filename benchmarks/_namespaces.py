"""Nodes and ranks as network namespaces, joined by bridges, with links of stated speed; removed at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cluster", "cluster", "why_not"]

CAPABILITIES = (12, 21)  # CAP_NET_ADMIN, CAP_SYS_ADMIN: bits of capability sets, linux/capability.h
BURST_MS, LEAST_BURST, QUEUE_MS = 1.0, 40_000, 20_000  # of a shaped link: bursts that hide nothing, and no losses
# Few and large packets: a core's backlog holds 1,000 (net.core.netdev_max_backlog), and drops others beside other work.
# A burst holds the largest, so that none is cut.
MTU, LARGEST = "9000", "36000"
# Queues of seconds build up within milliseconds, which TCP would take for losses; there are none.
ROUTE = ("rto_min", "5s", "congctl", "reno")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Namespaces that were made.

    Attributes
    ----------
    ranks : tuple of str
        Namespace of each rank.
    addresses : tuple of str
    """

    ranks: tuple[str, ...]
    addresses: tuple[str, ...]


def why_not() -> str | None:
    """Return why there can be no cluster here; None where there can."""
    if os.geteuid() != 0:
        return "Making network namespaces needs root."
    status = Path("/proc/self/status").read_text(encoding="ascii")
    allowed = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    if not all(allowed >> number & 1 for number in CAPABILITIES):
        return "Making network namespaces needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which root lacks here."
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} of iproute2 {'is' if len(missing) == 1 else 'are'} not installed."
    return None


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def _shaped(space: str, device: str, mbit: float) -> None:
    """Give what leaves a device a speed."""
    burst = max(LEAST_BURST, round(mbit * 125 * BURST_MS))
    shape = ("tbf", "rate", f"{mbit:.3f}mbit", "burst", f"{burst}b", "latency", f"{QUEUE_MS}ms")
    _run("ip", "netns", "exec", space, "tc", "qdisc", "replace", "dev", device, "root", *shape)


def _joined(one: str, device: str, other: str, peer: str, bridge: str, mbit: float) -> None:
    """Join two namespaces by a pair of devices of a speed each way; the far end is a port of a bridge."""
    near, far = ("mtu", MTU, "netns", one), ("mtu", MTU, "netns", other)
    _run("ip", "link", "add", device, *near, "type", "veth", "peer", "name", peer, *far)
    _run("ip", "-n", other, "link", "set", peer, "master", bridge, "up")
    _run("ip", "-n", one, "link", "set", device, "gso_max_size", LARGEST, "up")
    _shaped(one, device, mbit)
    _shaped(other, peer, mbit)


@contextmanager
def cluster(nodes: int, per_node: int, rank_mbit: Sequence[float], uplink_mbit: Sequence[float]) -> Iterator[Cluster]:
    """Make a cluster, and remove it whatever happens.

    Everything is inside of namespaces that are made here: one per rank, one per node with a bridge, and one for the
    bridge between nodes. No device, address or route of the machine changes.

    Parameters
    ----------
    nodes, per_node : int
    rank_mbit : (G,) floats
        Speed of each rank's link, per direction.
    uplink_mbit : (N,) floats
        Speed of each node's uplink, per direction.
    """
    mark = f"moe{os.getpid()}"
    core = f"{mark}-core"
    made: list[str] = []

    def space(name: str) -> str:
        _run("ip", "netns", "add", name)
        made.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def bridge(name: str) -> None:
        _run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", name, "link", "set", "br0", "up")

    try:
        bridge(space(core))
        ranks, addresses = [], []
        for node in range(nodes):
            inside = space(f"{mark}-n{node}")
            bridge(inside)
            _joined(inside, "uplink", core, f"n{node}", "br0", uplink_mbit[node])
            _run("ip", "-n", inside, "link", "set", "uplink", "master", "br0")
            for place in range(per_node):
                rank = node * per_node + place
                own = space(f"{mark}-r{rank}")
                _joined(own, "eth0", inside, f"r{rank}", "br0", rank_mbit[rank])
                address = f"10.88.{node}.{place + 1}"
                _run("ip", "-n", own, "addr", "add", f"{address}/16", "dev", "eth0")
                _run("ip", "-n", own, "route", "change", "10.88.0.0/16", "dev", "eth0", *ROUTE)
                ranks.append(own)
                addresses.append(address)
        yield Cluster(ranks=tuple(ranks), addresses=tuple(addresses))
    finally:
        for name in reversed(made):  # devices and bridges go with their namespaces
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
