"""JSON files: read strictly, written whole or not at all."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traces import InputError
from traces.support.atomic import atomic_write
from traces.support.text_marks import refuse_marks

__all__ = ["MAX_INT", "parse_json", "read_bytes", "read_json", "write_json"]

MAX_INT = 2**63 - 1
MAX_BYTES = 256 << 20


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : path
        A regular file of at most 256 MiB: a pipe or a device may never end.

    Raises
    ------
    InputError
        If it can't be read, is not JSON in UTF-8, or has a duplicate key, a number that is not finite or does not fit
        64 bits, or text that is not valid Unicode.
    """
    return parse_json(read_bytes(Path(path)), Path(path).name)


def parse_json(data: bytes, name: str) -> Any:
    """Parse JSON by the rules of `read_json`.

    Parameters
    ----------
    data : bytes
    name : str
        What errors call it.

    Raises
    ------
    InputError
    """
    refuse_marks(data[:4], name, utf8=True)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError.of("not_json", name, "The file is not UTF-8 text.", "Give a JSON file.") from error

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise InputError.of("duplicate_key", name, f"A key occurs twice among {sorted(keys)[:8]}.", "Keep one.")
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise InputError.of("not_finite", name, f"{constant} is not a finite number.", "Use finite numbers, or null.")

    def finite(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else refuse(digits)

    def whole(digits: str) -> int:
        if len(digits) > 20 or abs(int(digits)) > MAX_INT:
            detail = f"{digits[:20]}{'...' * (len(digits) > 20)} does not fit 64 bits."
            raise InputError.of("number_range", name, detail, "Correct the number.")
        return int(digits)

    try:
        content = json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite, parse_int=whole)
        # A lone surrogate ("\ud800") is valid in JSON, but can't be printed or written.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError.of("not_json", name, f"This is not JSON: {error}.", "Check that the file is whole.") from error
    except UnicodeEncodeError as error:
        found = f"{error.object[error.start]!a}"
        detail = f"A text holds {found}, half of a surrogate pair, which is no character."
        raise InputError.of("not_unicode", name, detail, "Correct the text.") from error
    return content


def write_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, allow_nan=False).encode() + b"\n")


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most 256 MiB.

    Raises
    ------
    InputError
    """
    try:
        status = path.stat()  # before it is opened: that alone blocks on a pipe
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise InputError.of("not_a_file", str(path), f"This is {kind}, not a file.", "Name a JSON file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError.of("cannot_read", str(path), f"Can't read the file: {reason}.", "Check the path.") from error
    if len(content) > MAX_BYTES:
        detail = f"The file is larger than {MAX_BYTES >> 20} MiB."
        raise InputError.of("file_too_large", str(path), detail, "Name a plan or a topology file.")
    return content
