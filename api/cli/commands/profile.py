"""``moe-placement profile``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options as shared
from api.cli import reading
from api.cli.console import Json, print_json, say, write
from api.cli.progress import Progress, progress
from api.cli.remote.service import ServerOption, check_server, service_at
from api.cli.remote.trace import send_trace
from api.report.tables import table

if TYPE_CHECKING:
    from traces import Profile

__all__ = ["profile"]

WIDTH = 100


def profile(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE...",
            help="Traces or saved profiles of one model, patterns ('traces/*.parquet'), or URLs "
            "(s3://BUCKET/*.parquet); several are merged.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Profile to write (.npz), which `solve` takes."),
    ] = None,
    distance: Annotated[
        list[int] | None, typer.Option(metavar="D", help="Also count pairs of layers that are D apart; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the permutation null.")] = 0,
    top_k: shared.TopKOption = None,
    drop_dummy: shared.DropDummyOption = False,
    ids_beyond_experts: shared.BeyondOption = None,
    layer_base: shared.LayerBaseOption = None,
    phase: shared.PhaseOption = None,
    layers: shared.LayersOption = None,
    num_experts: shared.NumExpertsOption = None,
    layer_ids: shared.LayerIdsOption = None,
    format_name: shared.FormatOption = None,
    model_config: shared.ModelConfigOption = None,
    model_layers: shared.ModelLayersOption = None,
    first_moe_layer: shared.FirstMoeLayerOption = None,
    moe_layers: shared.MoeLayersOption = None,
    mtp_layers: shared.MtpLayersOption = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Who counts: processes (one per core), or the cluster at dask://HOST:PORT.  "
            "[default: threads of this process]",
            show_default=False,
        ),
    ] = None,
    workers: shared.WorkersOption = None,
    server: ServerOption = None,
    as_json: Json = False,
) -> None:
    """Count traces in one pass, and tell their load, their affinity between layers, and whether the tokens suffice.

    With --server the profile, which is much smaller than its traces, is uploaded as well; its id stands for it in
    solve, front and evaluate.
    """
    model = reading.read_model(model_config, model_layers, first_moe_layer, mtp_layers, moe_layers)
    loading = reading.load_options(num_experts, layer_ids, format_name, model)

    from api.cli.outputs import check_outputs
    from api.jobs.executors import executor_factory
    from traces.profile.locations import list_shards
    from traces.profile.shards import profile_shards
    from traces.statistics import summary

    rows: dict[str, Any] = {"ids_beyond_experts": ids_beyond_experts, "layer_base": layer_base, "phase": phase}
    rows |= {"layers": reading.read_layer_ids(layers, "--layers")}
    loading |= reading.row_options(top_k, drop_dummy, **rows)
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

        def read(more: int) -> None:
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
            read=None if make is not None else read,
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
