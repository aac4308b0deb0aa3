"""The file of a profile: an `.npz` of its arrays, and a header for the rest."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.decoding.archive import check_zip, read_arrays
from traces.profile.sample import TokenSample
from traces.profile.sources import ProfileSource
from traces.profile.windows import WindowedLoad
from traces.support.atomic import atomic_write
from traces.support.errors import InputError

__all__ = ["is_profile", "read_profile", "reading", "write_profile"]

SCHEMA_VERSION = 2
NUMBERS = ("num_experts", "top_k", "tokens")
ARRAYS = ("layer_ids", "load", "affinity", "coactivation", "source_load", "sequence_load")
WINDOW_ARRAYS = ("source", "index", "tokens", "load")
SAMPLE_ARRAYS = ("topk_ids", "rows", "seq_id", "source_rank", "priority")


def write_profile(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write the fields of a profile as a compressed `.npz`, whole or not at all."""
    arrays: dict[str, Any] = {name: values[name] for name in ARRAYS if values[name] is not None}
    arrays |= {f"distant_{distance}": counts for distance, counts in values["distant"].items()}
    header: dict[str, Any] = {"profile_version": SCHEMA_VERSION, **{name: values[name] for name in NUMBERS}}
    header["sources"] = [{item.name: getattr(one, item.name) for item in fields(one)} for one in values["sources"]]
    if (windows := values["windows"]) is not None:
        header["windows"] = [windows.window_tokens, windows.limit]
        arrays |= {f"windows_{name}": getattr(windows, name) for name in WINDOW_ARRAYS}
    if (sample := values["sample"]) is not None:
        header["sample"] = sample.capacity
        arrays |= {f"sample_{name}": getattr(sample, name) for name in SAMPLE_ARRAYS}
    with atomic_write(path) as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def read_profile(path: str | Path) -> dict[str, Any]:
    """Return the fields of a profile that `write_profile` wrote.

    Raises
    ------
    InputError
        If the file is not a profile of this version, or is damaged.
    """
    arrays = read_arrays(Path(path))
    with reading(path):
        header = json.loads(str(arrays.pop("header")))
        if header["profile_version"] != SCHEMA_VERSION:
            raise InputError.of(
                "profile_version",
                f"{Path(path).name}#/profile_version",
                f"Version {header['profile_version']} is not {SCHEMA_VERSION}.",
                "Profile the trace again with this version of moe-placement.",
            )
        return _fields(header, arrays)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn what arrays and headers of another kind raise into an InputError on the file."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        detail = f"This is not a profile: {error}."
        remedy = "Make one of a trace: Profile.of(trace).save(path)."
        raise InputError.of("not_a_profile", Path(path).name, detail, remedy) from error


def is_profile(path: Path) -> bool:
    """Whether a file looks like a profile that `Profile.save` wrote."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as stream:
            check_zip(stream, path.name)
            with zipfile.ZipFile(stream) as archive:
                return "header.npy" in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False  # whatever it is, the trace readers say what is wrong with it


def _fields(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {name: header[name] for name in NUMBERS} | {name: arrays.get(name) for name in ARRAYS}
    values |= {"layer_ids": arrays["layer_ids"], "load": arrays["load"], "windows": None, "sample": None}
    if "windows" in header:
        width, limit = header["windows"]
        parts = {name: arrays[f"windows_{name}"] for name in WINDOW_ARRAYS}
        values["windows"] = WindowedLoad(window_tokens=width, limit=limit, **parts)
    if "sample" in header:
        parts = {name: arrays[f"sample_{name}"] for name in SAMPLE_ARRAYS}
        values["sample"] = TokenSample(capacity=header["sample"], **parts)
    values["distant"] = {
        int(key.removeprefix("distant_")): v for key, v in arrays.items() if key.startswith("distant_")
    }
    values["sources"] = tuple(ProfileSource(**one) for one in header["sources"])
    return values
