"""How fast the network is for each GPU: as the caller says, as a description says, else what fits the rest of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from placement.topology.assumed import BEYOND, assumed_network
from placement.topology.links import GENERIC
from placement.topology.machines.options import Overrides

__all__ = ["network_of", "slowest_inside"]


def network_of(
    overrides: Overrides,
    *,
    stated: float | None,
    slowest: float | None,
    port: float | None,
    per_host: int,
    ports: int | None,
) -> tuple[float, tuple[str, ...]]:
    """Return GB/s per GPU and direction between hosts, and notes on what was assumed or looks wrong.

    Parameters
    ----------
    overrides : Overrides
    stated : float or None
        GB/s per GPU of the network ports that the description lists.
    slowest : float or None
        GB/s of the slowest link between GPUs of a host; None where a host has one GPU.
    port : float or None
        GB/s of the PCIe port of each GPU, which carries its network traffic; None where nobody knows it.
    per_host : int
        GPUs of a host.
    ports : int or None
        Network ports of a host that are listed without their speed.
    """
    if overrides.network_gb_s is not None or overrides.nics:
        speed = sum(overrides.nics) / per_host if overrides.network_gb_s is None else overrides.network_gb_s
        if port is not None and speed > port:
            note = f"The network is taken as stated, {speed:.4g} GB/s per GPU, but the PCIe port of a GPU, which"
            return speed, (f"{note} carries it, is read or assumed to have {port:.4g}.",)
        return speed, ()
    if stated is not None:
        if port is not None and stated > port:
            note = f"The network ports have {stated:.4g} GB/s per GPU, but PCIe carries only {port:.4g} of them."
            return port, (note,)
        return stated, (f"The network has {stated:.4g} GB/s per GPU, by the ports that are listed.",)
    usual = GENERIC.inter.bandwidth_gb_s
    most = [(usual, "a 400 Gb/s port for each GPU")]
    if slowest is not None:
        most.append((assumed_network(slowest), f"{BEYOND:g} of the slowest link inside a host, {slowest:.4g}"))
    if port is not None:
        most.append((port, "no more than the PCIe port of each GPU"))
    if ports is not None and 0 < ports < per_host:
        each = usual if port is None else min(usual, port)
        most.append((each * ports / per_host, f"{per_host} GPUs share {ports} port(s) of {each:.4g} GB/s"))
    speed, reason = min(most, key=lambda pair: pair[0])
    note = f"The network's speed is not known: {speed:.4g} GB/s per GPU between hosts are assumed ({reason})."
    none = " No network port is listed." if ports == 0 else ""
    return speed, (f"{note}{none} Give network_gb_s, or ibstat.",)


def slowest_inside(bandwidth: npt.NDArray[np.float64]) -> float | None:
    """Return GB/s of the slowest link between two GPUs that is known; None if there is none."""
    known = bandwidth[bandwidth > 0]
    return float(known.min()) if known.size else None
