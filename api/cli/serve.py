"""``moe-placement serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import Json, print_json, say

__all__ = ["serve"]


def serve(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65_535, help="Port to listen on.")] = 8000,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Traces and plans are kept there.  [default: .data]", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the REST interface until Ctrl-C; what it was asked survives a restart."""
    from api.server import serve as run

    shown = f"[{host}]" if ":" in host else host
    if as_json:
        print_json({"url": f"http://{shown}:{port}", "data_dir": None if data_dir is None else str(data_dir)})
    say(f"Listening on http://{shown}:{port}; Ctrl-C stops it.")
    run(host, port, data_dir)
