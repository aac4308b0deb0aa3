"""A placement file's content: read whole, parsed once, in whatever notation it has."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.support.json_files import parse_json, read_bytes
from traces import InputError
from traces.decoding.files import guarded
from traces.support.text_marks import refuse_marks

__all__ = ["Document"]

MAX_ARRAY_BYTES = 256 << 20
MAX_ARRAYS = 64


@dataclass(frozen=True)
class Document:
    """The bytes of a placement file.

    Attributes
    ----------
    name : str
        First part of every pointer.
    data : bytes
    """

    name: str
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, path: str | Path) -> Document:
        """Read a regular file of at most 256 MiB."""
        return cls(Path(path).name, read_bytes(Path(path)))

    @cached_property
    def start(self) -> bytes:
        """First bytes without white space."""
        return self.data[:4096].lstrip()

    @cached_property
    def json(self) -> Any:
        """Content as JSON, strictly.

        Raises
        ------
        InputError
        """
        return parse_json(self.data, self.name)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The top-level JSON object; empty where the content is none, so that sniffing never fails."""
        if not self.start.startswith(b"{"):
            return {}
        try:
            content = self.json
        except InputError:
            return {}
        return content if isinstance(content, dict) else {}

    @cached_property
    def text(self) -> str:
        """Content as UTF-8 text.

        Raises
        ------
        InputError
        """
        refuse_marks(self.data[:4], self.name)
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            detail = "The file is not UTF-8 text."
            raise InputError.of("not_text", self.name, detail, "Check the file's format.") from error

    @cached_property
    def array_names(self) -> tuple[str, ...]:
        """Names of the arrays of an ``.npz``; empty where the content is none."""
        if not self.data.startswith(b"PK"):
            return ()
        try:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                names = archive.namelist()[:MAX_ARRAYS]
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
            return ()
        return tuple(name.removesuffix(".npy") for name in names)

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an array of an ``.npz``, of at most 256 MiB; nothing in it is ever unpickled.

        Raises
        ------
        InputError
        """
        place = f"{self.name}#/{name}"
        with guarded(place), zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            info = next((entry for entry in archive.infolist() if entry.filename == f"{name}.npy"), None)
            if info is None:
                raise InputError.of("missing_array", place, "There is no such array.", "Check the file's format.")
            if info.file_size > MAX_ARRAY_BYTES:
                detail = f"The array takes {info.file_size} bytes."
                raise InputError.of("array_too_large", place, detail, "Check the file.")
            with archive.open(info) as member:  # reads no more than the size it states
                value = np.lib.format.read_array(io.BytesIO(member.read(MAX_ARRAY_BYTES + 1)), allow_pickle=False)
        return np.asarray(value)
