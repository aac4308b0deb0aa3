"""``moe-placement key``: make, list and revoke the keys of a service, on the machine of its database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.console import Json, print_json, say, write
from api.report.tables import table

if TYPE_CHECKING:  # the database library takes longer to load than --help may
    from api.store.keys import Keys
    from api.store.rows import KeyRow

__all__ = ["key"]

key = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)

DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Data folder of the service; its settings tell if left out.", show_default=False
    ),
]


@key.command()
def create(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose traces and plans the key opens.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="read, write or admin; once or more.  [default: read]", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What the key is for.")] = None,
    days: Annotated[float | None, typer.Option(metavar="N", help="Days that it is valid; always if left out.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it. It is shown this once, and kept nowhere."""
    from api.store.keys import SCOPES, is_tenant
    from traces import Violations

    scopes, found = scope or ["read"], Violations()
    for given in scopes:
        if given not in SCOPES:
            found.add("scope", "--scope", f"There is no scope {given!r}.", f"Use {', '.join(SCOPES)}.")
    if not is_tenant(tenant):
        found.add("tenant", "--tenant", "A tenant's name has 1 to 80 printable characters.", "Choose another name.")
    if days is not None and not 0 < days <= 36_500:
        found.add("days", "--days", f"{days:g} days.", "Give more than 0, at most 36500.")
    found.raise_if_any()
    made, row = _keys(data_dir, make=True).create(tenant, scopes, name, days)
    if as_json:
        print_json({"key": made, **_document(row)})
        return
    say(f"Key {row.id} of {tenant}: {', '.join(row.scopes)}. It is not shown again.", "note")
    write(made)


@key.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only the keys of one tenant.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List the keys, revoked ones included."""
    rows = [_document(row) for row in _keys(data_dir).list(tenant)]
    if as_json:
        print_json({"keys": rows})
        return
    shown = ("id", "tenant", "name", "scopes", "expires_at", "revoked_at", "last_used_at")
    write(table(shown, [[_text(row[column]) for column in shown] for row in rows]))


@key.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as `key list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """End a key's validity, at once and for good."""
    from traces import InputError

    if _keys(data_dir).revoke(key_id) is None:
        raise InputError.of("unknown_key", key_id, "There is no such key.", "See `moe-placement key list`.")
    say(f"Key {key_id} opens nothing any more.", "note")


def _keys(data_dir: Path | None, *, make: bool = False) -> Keys:
    from api.settings.settings import read_settings
    from api.store.database import Database
    from api.store.keys import Keys
    from traces import InputError

    settings = read_settings(data_dir=data_dir)
    folder = settings.data_dir
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        elif settings.database_url is None and not (folder / "service.db").exists():
            detail = f"There is no service in {folder}."
            raise InputError.of("no_service", "/data_dir", detail, "Give its data folder: --data-dir.")
    except OSError as error:
        detail = f"Can't write to {folder}: {error.strerror}."
        raise InputError.of("data_dir", "/data_dir", detail, "Give a data folder that is writable.") from error
    database = Database(settings.store_url)
    database.upgrade()
    return Keys(database)


def _document(row: KeyRow) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    known = {"id": row.id, "tenant": row.tenant, "name": row.name, "scopes": row.scopes}
    return known | {
        name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items()
    }


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
