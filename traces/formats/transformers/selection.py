"""The chosen experts of a capture that is stored layer by layer, turned into rows of tokens by a temporary file."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.decoding.archive import open_archive
from traces.decoding.files import TraceFile, guarded
from traces.formats.transformers.kernels import largest
from traces.support.errors import InputError

__all__ = ["Selection"]

PART_BYTES = 1 << 20


class Selection:
    """Ids (tokens, L, K) of an array (L, positions, E or K), of which one layer after the other is stored.

    Tokens of all layers are far apart there, and in a compressed file can't be jumped to. So the first read goes
    through the file once and writes the ids, which are small, to an unnamed temporary file.

    Parameters
    ----------
    file : TraceFile
    key : str
        Array in the archive: floats are logits, of which the largest are chosen; integers are ids.
    kept : (T,) int64
        Positions that hold tokens, rising.
    top_k : int
    """

    def __init__(self, *, file: TraceFile, key: str, kept: npt.NDArray[np.int64], top_k: int) -> None:
        self._file, self._key, self._kept, self._top_k = file, key, kept, top_k
        self._spool: IO[bytes] | None = None
        self._layers = 0
        self._lock = threading.Lock()

    def rows(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        """Return the ids (stop - start, L, K) of some tokens.

        Raises
        ------
        InputError
            On the first call, if the file is damaged, a chosen logit is not finite, or an id is out of range.
        """
        with self._lock:
            if self._spool is None:
                self._spool = self._select()
            spool = self._spool
        row_bytes = 2 * self._top_k
        shape = (stop - start, self._top_k)
        layers = [
            np.frombuffer(
                os.pread(spool.fileno(), (stop - start) * row_bytes, (layer * len(self._kept) + start) * row_bytes),
                np.int16,
            ).reshape(shape)
            for layer in range(self._layers)
        ]
        return np.stack(layers, axis=1)

    def _select(self) -> IO[bytes]:
        spool = tempfile.TemporaryFile()  # noqa: SIM115  closed with the trace
        with self._file.open() as stream, open_archive(stream, self._file.name) as archive:
            part = archive.stream(self._key)
            self._layers, positions, width = part.header.shape
            step = max(1, PART_BYTES // max(1, width * part.header.dtype.itemsize))
            buffer = bytearray(step * width * part.header.dtype.itemsize)
            for layer in range(self._layers):
                for start in range(0, positions, step):
                    count = min(step, positions - start)
                    values = part.values(count * width, buffer).reshape(count, width)
                    first, last = np.searchsorted(self._kept, (start, start + count))
                    rows = self._kept[first:last] - start
                    place = f"{self._file.name}#/{self._key}/{layer}"
                    ids = self._chosen(values, rows, place, start)
                    with guarded(self._file.name):
                        spool.write(ids.astype(np.int16).tobytes())
        spool.flush()
        return spool

    def _chosen(
        self, values: npt.NDArray[Any], rows: npt.NDArray[np.int64], place: str, start: int
    ) -> npt.NDArray[Any]:
        """Return the ids of some rows of a part of a layer, which begins at position `start`."""
        if values.dtype.kind == "f":
            ids = np.empty((len(rows), self._top_k), np.int16)
            found = largest(values, rows, ids)
            if found != -1:
                rule = "A logit is NaN." if found >= 0 else "A chosen logit is infinite."
                row = rows[found if found >= 0 else -2 - found] + start
                raise InputError.of("logit_not_finite", f"{place}/{row}", rule, "Record it again.")
            return ids
        taken = values[rows]
        bad = ((taken < -1) | (taken >= checks.MAX_EXPERTS)).any(axis=1)
        if bad.any():
            row = rows[int(np.argmax(bad))] + start
            raise InputError.of("id_out_of_range", f"{place}/{row}", "An index is out of range.", "Record it again.")
        return taken
