"""Recorded tokens on disk: appended call by call, read back as a trace."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
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
        self._files: dict[str, IO[bytes]] = {name: self.path(name).open("wb") for name in ("topk_ids", *self.columns)}

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
        stored = _Stored(spool=self, layer_ids=layer_ids, num_experts=num_experts)
        return Trace(
            layer_ids=layer_ids,
            num_experts=num_experts,
            top_k=self.row[1],
            num_tokens=self.tokens,
            read=stored.read,
            hash_source=stored.sha256,
            columns=frozenset(self.columns),
            provenance=provenance,
        )

    def path(self, name: str) -> Path:
        """Return the file of a column."""
        return Path(self._folder.name) / name


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stored:
    """The tokens of a spool."""

    spool: Spool
    layer_ids: npt.NDArray[np.int64]
    num_experts: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("topk_ids", *self.spool.columns)

    def read(self, max_tokens: int) -> Iterator[Batch]:
        tokens, row = self.spool.tokens, self.spool.row
        with ExitStack() as stack:
            files = {name: stack.enter_context(self.spool.path(name).open("rb")) for name in self.names}
            for start in range(0, tokens, max_tokens):
                count = min(max_tokens, tokens - start)
                part: dict[str, Any] = {name: _read(file, name, count, row) for name, file in files.items()}
                yield Batch(rows=np.arange(start, start + count), **part)

    def sha256(self) -> str:
        content = f"{self.spool.row}{self.layer_ids.tolist()}{self.num_experts}{self.names}"
        digest = hashlib.sha256(content.encode())
        for name in self.names:
            with self.spool.path(name).open("rb") as file:
                while block := file.read(HASH_BYTES):
                    digest.update(block)
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        detail = "A recording lies in a temporary folder, which goes with this process: it can't be pickled."
        remedy = "Save it (`traces.save`), and pickle the trace that `traces.load` makes of the file."
        raise InputError.of("recording_unsaved", "/trace", detail, remedy)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(np.int16) if name == "topk_ids" else np.dtype(COLUMNS[name])


def _read(file: IO[bytes], name: str, count: int, row: tuple[int, int]) -> npt.NDArray[Any]:
    shape = (count, *row) if name in ("topk_ids", "gate_weights") else (count,)
    return np.fromfile(file, dtype=_dtype(name), count=int(np.prod(shape))).reshape(shape)
