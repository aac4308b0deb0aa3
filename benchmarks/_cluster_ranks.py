"""The ranks of an emulated cluster: all-to-alls of stated sizes through gloo, timed between barriers.

One process imports PyTorch and forks a process per rank, which moves into its own network namespace.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

CLONE_NEWNET = 0x40000000  # os.setns is there from Python 3.12 on


def enter(space: str) -> None:
    """Move this process into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", space).open("rb") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"{space}: {os.strerror(ctypes.get_errno())}")


def exchange(rank: int, address: str, port: str, folder: Path, together: Barrier) -> None:
    """Run every job in the order given; write when each began and ended to a file.

    Gloo sends once the receiver has said that it is ready, and what it says waits behind what it sends to that peer
    itself. So all receive before any sends, and ranks begin by a barrier in memory: gloo's own `all_to_all_single`
    leaves pairs that send one after the other where ranks don't begin within microseconds.
    """
    world = together.parties
    others = [(rank + step) % world for step in range(1, world)]
    with suppress(PermissionError):  # links hold ranks up, and not what else runs here, where that may be said
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    Path("/proc/sys/net/ipv4/tcp_early_retrans").write_text("0")  # of this namespace: probes for losses that are none
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    dist.init_process_group("gloo", init_method=f"tcp://{address}:{port}", rank=rank, world_size=world)
    sizes = np.load(folder / "jobs.npy")  # (J, G, G) bytes
    outgoing = torch.zeros(int(max(sizes[:, rank].max(), 1)), dtype=torch.uint8)
    incoming = torch.zeros((world, int(max(sizes[:, :, rank].max(), 1))), dtype=torch.uint8)
    times = []
    for job in sizes:
        waiting = [dist.irecv(incoming[peer, : job[peer, rank]], peer) for peer in others if job[peer, rank]]
        together.wait()
        start = time.perf_counter()
        waiting += [dist.isend(outgoing[: job[rank, peer]], peer) for peer in others if job[rank, peer]]
        for work in waiting:
            work.wait()
        times.append((start, time.perf_counter()))
    together.wait()
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(times), encoding="utf-8")


def main() -> None:
    """Fork the ranks, and wait for them; none is left behind if one of them fails or this process is stopped."""
    folder, address, port, *spaces = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    torch.set_num_threads(1)
    together, ranks = get_context("fork").Barrier(len(spaces)), []
    for rank, space in enumerate(spaces):
        if child := os.fork():
            ranks.append(child)
            continue
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        failed = 1
        try:
            enter(space)
            exchange(rank, address, port, Path(folder), together)
            failed = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(failed)
    try:
        for _ in spaces:
            child, status = os.wait()
            ranks.remove(child)
            if status:
                sys.exit(f"a rank ended with {os.waitstatus_to_exitcode(status)}")
    finally:
        for child in ranks:
            with suppress(ProcessLookupError):  # it may have ended while this process was stopped
                os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
