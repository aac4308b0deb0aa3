"""``moe-placement topologies``: ways to name a machine, and what was understood of one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.console import Json, print_json, say, write
from api.cli.reading import read_topology
from api.report.tables import table

if TYPE_CHECKING:
    from placement import Topology

__all__ = ["topologies"]

SHORTHANDS = {
    "4x8": "4 nodes of 8 GPUs",
    "1x8": "one node: a flat topology",
    "8+8+4": "nodes of different sizes",
    "PRESET:4": "4 nodes of a preset below",
    "FILE.json": "own links, costs, speeds, memory",
    "FILE,hosts=4": "from nvidia-smi, rocm-smi, amd-smi, NCCL's or RCCL's XML",
}
SHOWN_GPUS = 16  # a larger matrix does not fit on a screen

topologies = typer.Typer(
    help="List the ways to name a topology; show what is understood of one.", rich_markup_mode=None
)


@topologies.callback(invoke_without_command=True, epilog="moe-placement topologies show topo.txt,hosts=4")
def listing(context: typer.Context, as_json: Json = False) -> None:
    """List the ways to name a topology, and the presets; `show` tells what is understood of one."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise typer.BadParameter(f"Write it behind {context.invoked_subcommand}.", param_hint="--json")
        return
    from placement import PRESETS

    if as_json:
        presets = [{"name": name} | asdict(preset) for name, preset in PRESETS.items()]
        print_json({"shorthands": SHORTHANDS, "presets": presets})
        return
    write(table(["--topology", "meaning"], list(SHORTHANDS.items()), left=2) + "\n")
    header = ["preset", "GPUs per\nnode", "GB/s inside,\nper GPU", "GB/s between\nnodes", "GB per\nGPU"]
    rows = [
        [
            name,
            str(preset.gpus_per_node),
            f"{preset.intra.bandwidth_gb_s:g}",
            f"{preset.inter.bandwidth_gb_s:g}",
            f"{preset.memory_gb:g}",
        ]
        for name, preset in PRESETS.items()
    ]
    write(table(header, rows))


@topologies.command(epilog="moe-placement topologies show topo.txt,hosts=4,network_gb_s=50")
def show(
    topology: Annotated[
        str, typer.Argument(metavar="TOPOLOGY", help="As for --topology: a shorthand, or a file with its options.")
    ],
    as_json: Json = False,
) -> None:
    """Show what is understood of a topology: nodes, hosts, links, costs, and what is assumed."""
    from placement.topology.assumed import shorthand_note
    from placement.topology.file import topology_to_dict
    from traces import InputError

    machine = read_topology(topology)
    notes = machine.notes
    with suppress(InputError):  # no shorthand
        notes = (*notes, *filter(None, [shorthand_note(topology)]))
    if as_json:
        sizes = {"num_nodes": machine.num_nodes, "num_gpus": machine.num_gpus}
        content = topology_to_dict(machine) | {"notes": list(notes)}
        print_json({"topology": content, **sizes, "warnings": list(machine.warnings)})
        return
    rows = [line.strip().partition(": ")[::2] for line in repr(machine).split("\n")[1:]]
    facts = [[name, text] for name, text in rows if not name.startswith("note ")]
    write(table(["topology", machine.name], facts, left=2))
    if 1 < machine.num_gpus <= SHOWN_GPUS:
        write("\n" + _pairs(machine))
    for note in notes:
        say(note, "note")
    for warning in machine.warnings:
        say(warning, "warning")


def _pairs(machine: Topology) -> str:
    """Return what each pair of GPUs is understood to have, as a table; a column per GPU."""
    known = machine.bandwidth_gb_s is not None
    matrix = machine.bandwidth_gb_s if machine.bandwidth_gb_s is not None else machine.hop_cost
    gpus = range(machine.num_gpus)
    header = ["GB/s" if known else "cost", "node", *map(str, gpus)]
    rows = [
        [str(a), str(machine.node_of_gpu[a]), *("-" if a == b else f"{matrix[a, b]:.3g}" for b in gpus)] for a in gpus
    ]
    return table(header, rows)
