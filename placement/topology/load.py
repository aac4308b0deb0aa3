"""Topologies by name: a file of any kind that says what a machine is, or a shorthand."""

from __future__ import annotations

from pathlib import Path

from placement.topology.machines import load_machine
from placement.topology.topology import Topology
from traces.support.kinds import checked

__all__ = ["load_topology"]


@checked
def load_topology(text: str | Path) -> Topology:
    """Read a topology from a file, or parse a shorthand such as ``4x8``.

    Parameters
    ----------
    text : str or path
        A file that `placement.topology.machines.load_machine` reads, perhaps with its options behind a comma
        (``topo.txt,hosts=4``), or a shorthand.

    Raises
    ------
    InputError
    """
    whole = str(text)
    path, _, options = whole.partition(",")
    if whole.lower().endswith(".json") or _is_file(whole):
        return load_machine(whole)
    if _is_file(path) or (options and "=" in options):
        return load_machine(path, options)
    return Topology.parse(whole)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a name that can't be
        return False
