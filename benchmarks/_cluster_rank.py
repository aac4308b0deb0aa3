"""One rank of an emulated cluster: all-to-alls of stated sizes through gloo, timed between barriers."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist


def main() -> None:
    """Run every job in the order given; write the seconds of each to a file."""
    rank, world, address, port, jobs, out = sys.argv[1:]
    torch.set_num_threads(1)
    os.nice(-10)  # links are to hold ranks up, and not what else runs on the machine; they need little of it
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    dist.init_process_group("gloo", init_method=f"tcp://{address}:{port}", rank=int(rank), world_size=int(world))
    sizes = np.load(jobs)  # (J, G, G) bytes
    most = int(max(sizes[:, int(rank)].sum(axis=1).max(), sizes[:, :, int(rank)].sum(axis=1).max(), 1))
    outgoing, incoming = torch.zeros(most, dtype=torch.uint8), torch.zeros(most, dtype=torch.uint8)
    seconds = []
    for job in sizes:
        sent, received = job[int(rank)].tolist(), job[:, int(rank)].tolist()
        dist.barrier()
        start = time.perf_counter()
        dist.all_to_all_single(incoming[: sum(received)], outgoing[: sum(sent)], received, sent)
        seconds.append(time.perf_counter() - start)
    dist.barrier()
    dist.destroy_process_group()
    Path(out).write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    main()
