"""``moe-placement synthetic``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.console import Json, print_json, write
from api.cli.progress import progress

__all__ = ["synthetic"]

DEFAULT_TOKENS = 100_000


def synthetic(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Trace to write: .npz, .jsonl or .parquet.")
    ],
    layers: Annotated[int | None, typer.Option(metavar="L", help="MoE layers.")] = None,
    experts: Annotated[int | None, typer.Option(metavar="E", help="Experts per layer.")] = None,
    top_k: Annotated[int | None, typer.Option(metavar="K", help="Experts per token.")] = None,
    tokens: Annotated[int, typer.Option(metavar="T", help="Tokens.")] = DEFAULT_TOKENS,
    seed: Annotated[int, typer.Option(metavar="N", help="Same parameters, same trace.")] = 0,
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trace or profile to resemble; sizes that are not given are its own."),
    ] = None,
    topics: Annotated[int | None, typer.Option(metavar="N", help="Planted topics.")] = None,
    affinity: Annotated[
        float | None, typer.Option(metavar="X", help="Strength of the topics; 0 plants nothing.")
    ] = None,
    skew: Annotated[
        float | None, typer.Option(metavar="X", help="Exponent of the experts' popularity; 0 is even.")
    ] = None,
    groups: Annotated[int | None, typer.Option(metavar="N", help="Groups of experts (DeepSeek-V3: 8).")] = None,
    group_limit: Annotated[int | None, typer.Option(metavar="N", help="Groups that a token may use (4).")] = None,
    drift: Annotated[
        float | None, typer.Option(metavar="X", help="How far the topics change over the trace, 0 to 1.")
    ] = None,
    sequence_tokens: Annotated[int | None, typer.Option(metavar="T", help="Tokens per sequence.")] = None,
    source_ranks: Annotated[
        int | None, typer.Option(metavar="R", help="Data-parallel ranks that own the sequences.")
    ] = None,
    compress: Annotated[bool, typer.Option(help="Smaller files, or files that read faster.")] = True,
    as_json: Json = False,
) -> None:
    """Write a synthetic trace with planted topics, of any size, or one that resembles a real one."""
    sizes = {"--layers": layers, "--experts": experts, "--top-k": top_k}
    if like is None and (missing := [name for name, value in sizes.items() if value is None]):
        raise typer.BadParameter("Needed unless --like names a trace to resemble.", param_hint=" ".join(missing))
    shape = {
        "topics": topics,
        "affinity": affinity,
        "skew": skew,
        "groups": groups,
        "group_limit": group_limit,
        "drift": drift,
        "tokens_per_sequence": sequence_tokens,
        "source_ranks": source_ranks,
    }
    given = {name: value for name, value in shape.items() if value is not None}

    from api.cli.outputs import check_outputs
    from traces import save
    from traces.synthetic import generate

    check_outputs({"--output": output}, (like,))
    with progress() as shown:
        shown.phase("fitting the parameters")
        params = _parameters(
            like, given, num_layers=layers, num_experts=experts, top_k=top_k, num_tokens=tokens, seed=seed
        )
        shown.phase("writing the trace")
        save(generate(params), output, compress=compress)
    if as_json:
        print_json({"trace": str(output), "parameters": asdict(params)})
        return
    sizes_text = f"{params.num_layers} layers of {params.num_experts} experts, top-{params.top_k}"
    write(f"{params.num_tokens:,} tokens, {sizes_text}, written to {output}")


def _parameters(like: Path | None, given: dict[str, Any], **sizes: Any) -> Any:
    """Return the generator's parameters: fitted to a trace, with what the caller gave in their place."""
    from dataclasses import replace

    from solvers.sources.source import open_source
    from traces import Profile
    from traces.synthetic import Synthetic
    from traces.synthetic import like as fitted_to

    if like is None:
        return Synthetic(**sizes, **given)
    source = open_source(like)
    profile = source if isinstance(source, Profile) else Profile.of(source)
    return replace(fitted_to(profile, **sizes), **given)
