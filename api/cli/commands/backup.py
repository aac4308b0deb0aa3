"""``moe-placement backup`` and ``moe-placement restore``: a service's data folder as one file, and back."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.console import BAD_INPUT, Json, print_json, say, write

if TYPE_CHECKING:  # settings take longer to load than --help may
    from api.settings.settings import Settings
    from api.store.backup import Kept

__all__ = ["backup", "restore"]

DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Data folder of the service; its settings tell if left out.", show_default=False
    ),
]
BackupFile = Annotated[Path, typer.Argument(metavar="FILE.tar", help="The backup.", show_default=False)]


def backup(file: BackupFile, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Write the data folder of a service, running or not, to one tar file: its database and its traces.

    What is damaged is told and left out, and the exit code is 1 then: the backup holds the rest.
    Traces in an object store are not included, and a PostgreSQL database is saved with pg_dump; see docs/operations.md.
    """
    from api.store.backup import backup as run
    from traces import InputError

    settings = _settings(data_dir)
    if settings.database_url:
        detail = "The service keeps its database in PostgreSQL."
        remedy = "Save it with pg_dump, then copy the folder blobs; see docs/operations.md."
        raise InputError.of("database_url", "/database_url", detail, remedy)
    os.umask(0o077)  # the traces and the digests of the keys are nobody else's business
    _tell(run(settings.data_dir, file, blobs=settings.blobs_url is None), file, as_json)


def restore(file: BackupFile, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Make a data folder from a backup, every digest checked. A folder that is not empty is left as it is.

    What is damaged is told and left out, and the exit code is 1 then: the folder has the rest.
    """
    from api.store.restore import restore as run

    os.umask(0o077)
    _tell(run(file, _settings(data_dir).data_dir), file, as_json)


def _settings(data_dir: Path | None) -> Settings:
    from api.settings.settings import read_settings

    return read_settings(data_dir=data_dir)


def _tell(kept: Kept, file: Path, as_json: bool) -> None:
    for name in kept.missing:
        say(f"{name} is missing: its trace was deleted meanwhile, or is lost.", "warning")
    for name in kept.damaged:
        say(f"{name} is damaged, and was left out.", "warning")
    if as_json:
        print_json({"file": str(file), **asdict(kept)})
    else:
        write(f"{file}: {kept.traces} traces, {kept.plans} plans, {kept.uploads} open uploads, {kept.bytes} bytes.")
    if kept.lost:
        say("Not everything is there: upload the traces again that are named above, which heals them.")
        raise typer.Exit(BAD_INPUT)
