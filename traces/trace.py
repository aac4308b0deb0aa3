"""The routing trace: which experts every token chose in every MoE layer, as a stream of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.batch import COLUMNS, Batch, as_column
from traces.provenance import Provenance
from traces.support.declared import check_word
from traces.support.errors import InputError, Violations
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, runs
from traces.support.words import HoldOutBy
from traces.tokens import Arrays, Selected

__all__ = ["BATCH_TOKENS", "Trace"]

BATCH_TOKENS = 32_768
IN_MEMORY = Provenance()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trace(Shown):
    """A routing trace that streams: metadata, and a way to read the batches again and again.

    Traces are equal when layers, experts, columns and `digest` are: the same content, wherever it lay. Comparing traces
    whose axes agree hashes their sources. A trace pickles: arrays with their tokens, one that was opened from a path as
    that path with its reading options, a part of either as that and what was selected.

    Attributes
    ----------
    layer_ids : (L,) int64
        Model layer of each of the L MoE layers.
    num_experts : int
        Routed (logical) experts per layer, E.
    top_k : int
        Largest number of experts per token and layer, K.
    num_tokens : int or None
        Tokens, or None where only a full read can tell.
    columns : frozenset of str
        Optional columns that are present, out of `COLUMNS`.
    provenance : Provenance
    read : callable
        ``read(max_tokens)`` yields unchecked batches from the start.
    hash_source : callable
        Returns the SHA-256 of the source, as hexadecimal digits.
    """

    MADE_BY: ClassVar = "Open one with traces.load(path)."

    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    top_k: int
    num_tokens: int | None
    read: Callable[[int], Iterator[Batch]]
    hash_source: Callable[[], str]
    columns: frozenset[str] = frozenset()
    provenance: Provenance = IN_MEMORY

    def __post_init__(self) -> None:
        found = Violations()
        checks.check_layout(found, self.layer_ids, self.num_experts, self.top_k)
        found.raise_if_any()
        self.layer_ids.flags.writeable = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return self is other or (self._axes == other._axes and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self._axes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "digest"}  # the source may change

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.layer_ids.flags.writeable = False

    def _shown(self) -> tuple[str, Facts]:
        tokens = "tokens not counted yet" if self.num_tokens is None else f"{self.num_tokens:,} tokens"
        layers = f"{self.num_layers} MoE layers ({runs(self.layer_ids.tolist())})"
        facts = [
            ("columns", ", ".join(name for name in COLUMNS if name in self.columns) or "none"),
            ("source", str(self.provenance)),
            *(("note", note) for note in self.provenance.notes),
        ]
        return f"Trace of {tokens}, {layers}, {self.num_experts} experts, top-{self.top_k}", facts

    @property
    def _axes(self) -> tuple[Any, ...]:
        return (tuple(self.layer_ids.tolist()), self.num_experts, self.top_k, self.columns)

    @property
    def engine(self) -> str | None:
        """The serving engine whose format the trace was read from, or None where that may be any."""
        return self.provenance.engine

    @property
    def num_layers(self) -> int:
        """Number of MoE layers, L."""
        return len(self.layer_ids)

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` of the source file, or of the arrays."""
        return f"sha256:{self.hash_source()}"

    def batches(self, max_tokens: int = BATCH_TOKENS) -> Iterator[Batch]:
        """Read the trace from its start.

        Parameters
        ----------
        max_tokens : int
            Upper bound of the tokens per batch, and so of the memory.

        Yields
        ------
        Batch
            Checked: shapes, ids in range, no expert twice within a token and layer, no NaN.

        Raises
        ------
        InputError
            Naming file, row, layer and rule of the first violations.
        """
        from traces.duplicates import check_duplicates  # compiles, so it is imported when tokens are read

        for batch in self.read(max_tokens):
            checks.check_batch(batch, self)
            check_duplicates(batch, self)
            yield batch

    @checked
    def split(self, held_out: float, by: HoldOutBy = "sequence") -> tuple[Trace, Trace]:
        """Split into a part to fit and a part to hold out.

        By sequence, sequence s is held out when ``floor((s + 1) f + d) > floor(s f + d)`` with d = 1e-9: for f = 0.5
        the odd ones. The rule is computed in integers, in units of 2^-64, so it holds for every 64-bit `seq_id`, hashes
        included. The shift d keeps products such as 10 * 0.7 from falling just below the integer they stand for.
        Without `seq_id`, blocks of 64 consecutive tokens take the place of sequences, which the provenance says.

        Parameters
        ----------
        held_out : float
            Share f to hold out, 0 < f < 1.
        by : {"sequence", "time", "source"}
            Of what the share is: of whole sequences; of the tokens in the order of the recording, the last ones; or of
            the sources that `data_source` names, the last ones, rounded, at least one of each part. All but
            ``sequence`` take a pass over the trace.

        Returns
        -------
        fit, held : Trace
            Lazy views.

        Raises
        ------
        InputError
            If the share is out of range, or the trace does not tell what is to be split by.
        """
        from traces.splitting import parts_of

        if not 0 < held_out < 1:
            raise InputError.of(
                "hold_out_range", "/hold_out", f"The held-out share is {held_out}.", "Give a share between 0 and 1."
            )
        check_word("by", by, HoldOutBy)
        parts = parts_of(self, held_out, by)
        return self.where(parts.fit, parts.fit_note), self.where(parts.held_out, parts.held_note)

    @checked
    def where(self, keep: Callable[[Batch], npt.NDArray[np.bool_]], note: str) -> Trace:
        """Return a lazy view with only the tokens for which `keep(batch)` is true.

        Parameters
        ----------
        keep : callable
            Returns a (T,) mask for a batch. The view pickles if this does: a function at the top of a module, say.
        note : str
            What is selected; part of the provenance and of the digest.
        """
        selected = Selected(read_all=self.read, hash_all=self.hash_source, keep=keep, note=note)
        return replace(
            self,
            read=selected.read,
            hash_source=selected.sha256,
            num_tokens=None,
            provenance=self.provenance.noting(note),
        )

    @classmethod
    @checked
    def of(
        cls,
        topk_ids: npt.ArrayLike,
        *,
        num_experts: int,
        layer_ids: npt.ArrayLike | None = None,
        provenance: Provenance | None = None,
        **columns: npt.ArrayLike | None,
    ) -> Trace:
        """Wrap arrays that are in memory.

        Parameters
        ----------
        topk_ids : (T, L, K) integers
            Logical experts; -1 where an entry is missing. Not copied: do not change it while the trace is in use.
        num_experts : int
            Experts per layer, E.
        layer_ids : (L,) integers, optional
            Model layers; 0..L-1 by default.
        provenance : Provenance, optional
        **columns
            Any of `COLUMNS`, with one entry per token.
        """
        ids = np.asarray(topk_ids)
        checks.check_ids_shape(ids.shape, ids.dtype)
        ids = ids.astype(ids.dtype.newbyteorder("="), copy=False)  # compiled loops read native byte order only
        unknown = sorted(set(columns) - set(COLUMNS))
        if unknown:
            raise InputError.of(
                "unknown_column", f"/{unknown[0]}", f"No such column: {unknown}.", f"Columns are {sorted(COLUMNS)}."
            )
        present = {name: np.asarray(value) for name, value in columns.items() if value is not None}
        checks.check_columns(ids.shape, present)
        present = {name: as_column(name, value) for name, value in present.items()}
        layers = np.arange(ids.shape[1]) if layer_ids is None else checks.as_layer_ids(layer_ids, ids.shape[1])

        arrays = Arrays(topk_ids=ids, layer_ids=layers, num_experts=num_experts, columns=present)
        return cls(
            layer_ids=np.array(layers, dtype=np.int64),
            num_experts=num_experts,
            top_k=ids.shape[2],
            num_tokens=len(ids),
            read=arrays.read,
            hash_source=arrays.sha256,
            columns=frozenset(present),
            provenance=provenance or IN_MEMORY,
        )
