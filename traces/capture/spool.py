"""Recorded tokens on disk: appended call by call, read back as a trace."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from traces.batch import COLUMNS, Batch
from traces.capture.sequences import Placed
from traces.provenance import Provenance
from traces.support.atomic import PREFIX
from traces.support.errors import InputError
from traces.trace import Trace

__all__ = ["Spool"]

HASH_BYTES = 1 << 20


class Spool:
    """One raw file per column, in a temporary folder that goes when nothing reads it any more.

    Parameters
    ----------
    folder : path or None
        Where to make it; the system's temporary folder by default.
    num_layers, top_k : int
        L and K.
    weights : bool
        Whether gate weights are recorded.
    """

    def __init__(self, folder: Path | None, num_layers: int, top_k: int, weights: bool) -> None:
        self.tokens = 0
        self.row = (num_layers, top_k)
        self.columns = ("seq_id", "token_pos", "phase", *(("gate_weights",) if weights else ()))
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder, ignore_cleanup_errors=True)
        self._files: dict[str, IO[bytes]] = {name: self._path(name).open("wb") for name in ("topk_ids", *self.columns)}

    def append(
        self, ids: npt.NDArray[np.integer[Any]], weights: npt.NDArray[np.float32] | None, placed: Placed
    ) -> None:
        """Add tokens.

        Parameters
        ----------
        ids : (T, L, K) integers that fit int16
        weights : (T, L, K) float32 or None
        placed : Placed
            Of T tokens.

        Raises
        ------
        InputError
            If the disk is full, or K or the presence of weights differs from call to call.
        """
        if ids.shape[1:] != self.row or (weights is not None) != ("gate_weights" in self.columns):
            raise InputError.of(
                "calls_differ",
                "/top_k",
                f"A call chose {ids.shape[2]} experts {'without' if weights is None else 'with'} weights; earlier ones"
                f" {self.row[1]} {'with' if 'gate_weights' in self.columns else 'without'}.",
                "Record such calls on their own.",
            )
        values: dict[str, Any] = {
            "topk_ids": ids,
            "seq_id": placed.seq_id,
            "token_pos": placed.token_pos,
            "phase": placed.phase,
            "gate_weights": weights,
        }
        try:
            for name, file in self._files.items():
                file.write(np.ascontiguousarray(values[name], dtype=_dtype(name)).data)
        except OSError as error:
            raise InputError.of(
                "cannot_write", self._folder.name, f"Can't keep the recording: {error.strerror}.", "Free some room."
            ) from error
        self.tokens += len(ids)

    def close(self, *, discard: bool = False) -> None:
        """Close the files; with `discard`, remove them."""
        for file in self._files.values():
            file.close()
        if discard:
            self._folder.cleanup()

    def trace(self, *, num_experts: int, layer_ids: npt.NDArray[np.int64], provenance: Provenance) -> Trace:
        """Return the tokens as a trace that holds on to the folder; the files must be closed."""
        tokens, row, names = self.tokens, self.row, ("topk_ids", *self.columns)

        def read(max_tokens: int) -> Iterator[Batch]:
            with ExitStack() as stack:
                files = {name: stack.enter_context(self._path(name).open("rb")) for name in names}
                for start in range(0, tokens, max_tokens):
                    count = min(max_tokens, tokens - start)
                    part: dict[str, Any] = {name: _read(file, name, count, row) for name, file in files.items()}
                    yield Batch(rows=np.arange(start, start + count), **part)

        def hash_files() -> str:
            digest = hashlib.sha256(f"{row}{layer_ids.tolist()}{num_experts}{names}".encode())
            for name in names:
                with self._path(name).open("rb") as file:
                    while block := file.read(HASH_BYTES):
                        digest.update(block)
            return digest.hexdigest()

        return Trace(
            layer_ids=layer_ids,
            num_experts=num_experts,
            top_k=row[1],
            num_tokens=tokens,
            read=read,
            hash_source=hash_files,
            columns=frozenset(self.columns),
            provenance=provenance,
        )

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(np.int16) if name == "topk_ids" else np.dtype(COLUMNS[name])


def _read(file: IO[bytes], name: str, count: int, row: tuple[int, int]) -> npt.NDArray[Any]:
    shape = (count, *row) if name in ("topk_ids", "gate_weights") else (count,)
    return np.fromfile(file, dtype=_dtype(name), count=int(np.prod(shape))).reshape(shape)
