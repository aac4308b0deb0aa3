"""Traces for a service (``--server URL``): uploaded, with how to read them, or named by their ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.cli.reading import TraceReading
    from api.client import Client
    from traces import ModelLayout

__all__ = ["is_trace", "reading_of", "send_trace"]


def is_trace(text: str | Path) -> bool:
    """Whether this is the id of a trace of a service, rather than a file."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", str(text)) is not None


def reading_of(trace: Path, read: TraceReading, model: ModelLayout | None) -> dict[str, Any]:
    """Return how to read a trace, with what its model says of it: layers are told by number, as any service takes them.

    Raises
    ------
    InputError
        If the file can't be read, or does not fit the model.
    """
    from api.cli.reading import open_planned
    from traces import Profile

    known = read.load_options(None)
    if model is None or is_trace(trace):
        return known
    opened = open_planned(trace, read, model)
    if isinstance(opened, Profile):
        return known
    said = {"layer_ids": opened.layer_ids.tolist(), "num_experts": model.num_experts, "top_k": model.top_k}
    return said | {name: value for name, value in known.items() if value is not None}


def send_trace(service: Client, trace: Path, reading: Mapping[str, Any], *, name: str | None = None) -> str:
    """Upload a trace and return its id; what is an id already (``sha256:...``) is not uploaded.

    Parameters
    ----------
    service : Client
    trace : Path
    reading : mapping
        Keyword arguments of `traces.load`.
    name : str, optional
        Name to show; the file's by default.

    Raises
    ------
    InputError
        If the file can't be read, or a service can't be told how to read it.
    """
    from traces import InputError

    known = _reading(reading)
    if is_trace(trace):
        if known:
            detail = "A trace of the service was read when it was uploaded."
            raise InputError.of("trace_known", f"/{next(iter(known))}", detail, "Leave it out, or give the file.")
        return str(trace)
    if trace.is_dir():
        detail = "A folder can't be uploaded."
        remedy = "Pack it as .tar, or upload its profile: `moe-placement profile FOLDER --server URL`."
        raise InputError.of("is_a_folder", str(trace), detail, remedy)
    try:
        return service.upload(trace, name=name, **known).id
    except OSError as error:
        detail = f"Can't read the file: {error.strerror or error}."
        raise InputError.of("cannot_read", str(trace), detail, "Check the path.") from error


def _reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to read the trace, as the service takes it."""
    from traces import InputError

    known = {name: value for name, value in options.items() if value is not None and name != "model"}
    model = options.get("model")
    if model is None:
        return known
    if model.mtp_layers:
        detail = "A service can't be told of layers for multi-token prediction."
        remedy = "Count the trace here, where the model is known: `moe-placement profile TRACE --server URL`."
        raise InputError.of("model_layers", "--server", detail, remedy)
    said = {"num_experts": model.num_experts, "top_k": model.top_k}
    known = {name: value for name, value in said.items() if value is not None} | known
    first = model.moe_layers[0]
    if model.moe_layers == tuple(range(first, model.num_layers)):
        return known | {"model_layers": model.num_layers, "first_moe_layer": first}
    return known | {"model_layers": model.num_layers, "moe_layers": list(model.moe_layers)}
