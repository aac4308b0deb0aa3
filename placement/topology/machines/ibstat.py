"""``ibstat``: the rates of a host's network ports."""

from __future__ import annotations

import re

from traces import InputError

__all__ = ["read"]

PORT = re.compile(r"^\s*Port \d+:\s*$", re.MULTILINE)
STATE = re.compile(r"^\s*State:\s*(\w+)", re.MULTILINE)
RATE = re.compile(r"^\s*Rate:\s*(\d{1,5})\b", re.MULTILINE)
BITS_PER_BYTE = 8


def read(data: bytes, name: str) -> tuple[float, ...]:
    """Return GB/s of the fastest ports that are active: slower ones are for storage or management.

    Raises
    ------
    InputError
        If there is none.
    """
    rates = []
    for block in PORT.split(data.decode("utf-8", "replace"))[1:]:
        state, rate = STATE.search(block), RATE.search(block)
        if state is not None and rate is not None and state[1] == "Active" and int(rate[1]) > 0:
            rates.append(int(rate[1]))
    if not rates:
        detail = "There is no active port with a rate."
        raise InputError.of("ibstat", name, detail, "Record the output of `ibstat` on a node with its network up.")
    return tuple(rate / BITS_PER_BYTE for rate in rates if rate == max(rates))
