"""``moe-placement profile``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import Json, print_json, say, write
from api.cli.declared import Asked, asks
from api.cli.knobs import LIMITS, WHAT
from api.cli.options import WorkersOption, output_option
from api.cli.progress import Progress, progress
from api.cli.reading import TraceReading
from api.cli.remote.service import ServerOption, check_server, service_at
from api.cli.remote.trace import send_trace
from api.report.tables import table

if TYPE_CHECKING:
    from traces import Profile

__all__ = ["profile"]

WIDTH = 100


@asks(TraceReading, "reading")
def profile(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE...",
            help="Traces or saved profiles of one model, patterns ('traces/*.parquet'), or URLs "
            "(s3://BUCKET/*.parquet); several are merged.",
        ),
    ],
    reading: Asked,
    output: Annotated[
        Path | None,
        output_option("--output", "-o", metavar="FILE", text="Profile to write (.npz), which `solve` takes."),
    ] = None,
    distance: Annotated[
        list[int] | None,
        typer.Option(
            metavar="D", rich_help_panel=WHAT, help="Also count pairs of layers that are D apart; repeatable."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, rich_help_panel=LIMITS, help="Seed of the permutation null.")
    ] = 0,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            rich_help_panel=LIMITS,
            help="Who counts: processes (one per core), or the cluster at dask://HOST:PORT.  "
            "[default: threads of this process]",
            show_default=False,
        ),
    ] = None,
    workers: WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Count traces in one pass, and tell their load, their affinity between layers, and whether the tokens suffice.

    With --server the profile, which is much smaller than its traces, is uploaded as well; its id stands for it in
    solve, front and evaluate.
    """
    from api.cli.outputs import Checks, check_outputs
    from api.jobs.executors import executor_factory
    from traces.profile.locations import list_shards
    from traces.profile.shards import profile_shards
    from traces.statistics import summary

    with Checks() as checks:
        read = reading.build(checks)
    loading = read.load_options(read.layout())
    shards = list_shards(sources)
    check_outputs({"--output": output}, tuple(shard for shard in shards if "://" not in shard))
    if server is not None:
        check_server(server)
    make = None if executor is None else executor_factory(executor, "--executor")
    with progress() as shown:
        tokens, done = 0, ""

        def tell(counted: int, total: int) -> None:
            nonlocal done
            done = f"{counted} of {total} files, " if total > 1 else ""
            shown.phase(f"counting: {done}{tokens:,} tokens")

        def tell_tokens(more: int) -> None:
            nonlocal tokens
            tokens += more
            shown.phase(f"counting: {done}{tokens:,} tokens")

        shown.phase(f"counting {shards[0].rpartition('/')[2] if len(shards) == 1 else f'{len(shards)} files'}")
        merged = profile_shards(
            shards,
            make,
            workers=workers,
            distances=tuple(distance or (1,)),
            progress=tell,
            read=None if make is not None else tell_tokens,
            **loading,
        )
        if output is not None:
            merged.save(output)
        shown.phase("testing affinity against permutations")
        facts = summary(merged, seed=seed)
        sent = None if server is None else _send(merged, server, output, shards, shown)
    for note in dict.fromkeys(note for item in facts["sources"] for note in item["notes"]):
        say(note, "note")
    for missing in facts["not_available"].values():
        say(f"{missing['detail']} {missing['remedy']}".rstrip(), "note")
    if as_json:
        known = {"profile": None if output is None else str(output)}
        print_json(facts | known | ({} if server is None else {"trace": sent}))
        return
    _show(facts)
    if output is not None:
        write(f"\nProfile written to {output}")
    if sent is not None:
        write(f"\nProfile uploaded as {sent}")


def _send(merged: Profile, server: str, output: Path | None, shards: Sequence[str], shown: Progress) -> str:
    """Upload a profile, named like its file or its first source, and return its id."""
    shown.phase("uploading")
    with TemporaryDirectory() as folder, service_at(server) as service:
        if output is None:
            name = f"{shards[0].rpartition('/')[2][:180]}.profile.npz"
            path = Path(folder) / "profile.npz"
            merged.save(path)
        else:
            name, path = output.name, output
        return send_trace(service, path, {}, name=name)


def _show(facts: dict[str, Any]) -> None:
    """Print a profile's summary for people."""
    top = "" if facts["top_k"] is None else f", top-{facts['top_k']}"
    counted = f"{facts['tokens']:,} tokens" if facts["tokens"] else "counts without tokens"
    write(f"{counted}, {facts['num_layers']} layers of {facts['num_experts']} experts{top}\n")
    header = ["layer", "busiest expert\nby the mean"]
    columns: list[list[float]] = [facts["load"]["max_over_mean"]]
    for number, share in facts["load"]["topk_share"].items():
        header.append(f"share of\ntop {number}")
        columns.append(share)
    if (affinity := facts["affinity"]) is not None:
        # One entry per pair of layers: shown with the first of the two.
        titles = {
            "strength": "affinity to next\nlayer, bits",
            "top_share": f"share of best\n{affinity['successors']} successors",
            "top_share_null": "the same\nby chance",
        }
        header += titles.values()
        columns += [affinity["layer_pairs"][name] for name in titles]
    rows = [
        [str(layer), *(f"{column[row]:.3f}" if row < len(column) else "" for column in columns)]
        for row, layer in enumerate(facts["layer_ids"])
    ]
    write(table(header, rows))
    if (enough := facts["enough_tokens"]) is not None:
        told = (
            f"Tokens to trust the affinity: {enough['verdict']} ({enough['tokens']:,} counted, "
            f"about {enough['tokens_needed']:,} needed, reliability {enough['reliability']:.2f})."
        )
        write("\n" + fill(told, WIDTH))
    write("\nIs there anything to gain?\n" + fill(facts["gain"]["words"], WIDTH))
