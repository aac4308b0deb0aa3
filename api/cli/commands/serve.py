"""``moe-placement serve``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from api.cli.console import Json, print_json

__all__ = ["serve"]


def serve(
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Address to listen on.  [default: 127.0.0.1]", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", help="Port to listen on; 0 takes a free one.  [default: 8000]", show_default=False
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Traces and plans are kept there.  [default: $XDG_DATA_HOME/moe-placement, or below ~/.local/share]",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the REST interface until Ctrl-C; what it was asked survives a restart.

    Options that are left out are taken from the environment, MOE_PLACEMENT_*; docs/rest.md lists all settings. The log,
    on stderr, tells the address; --json prints it as soon as the service listens.
    """
    from api.service.server import serve as run

    with suppress(KeyboardInterrupt):  # the way to stop it
        run(host, port, data_dir, on_listening=print_json if as_json else None)
