"""Topologies by name: a file of any kind that says what a machine is, or a shorthand."""

from __future__ import annotations

from pathlib import Path

from placement.topology.machines import load_machine
from placement.topology.shorthand import is_shorthand
from placement.topology.topology import Topology
from traces import InputError
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
        if not _is_file(path) and is_shorthand(path):
            key = options.partition("=")[0].strip()
            detail = f"{key:.40} completes the file of a machine, and {path:.60} is none: shorthands have no options."
            remedy = "Leave it out. Links of one's own are said in a topology file, by intra_node and inter_node."
            raise InputError.of("topology_options", f"/topology/{key:.40}", detail, remedy)
        return load_machine(path, options)
    return Topology.parse(whole)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a name that can't be
        return False
