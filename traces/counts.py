"""Tokens per expert without the tokens: what load matrices and engines' statistics give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from traces.provenance import Provenance
from traces.support.content import ByContent
from traces.support.errors import InputError
from traces.support.shown import as_text, runs

__all__ = ["CountsDump", "LoadCounts"]

Load = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class CountsDump:
    """The counts of one point in time, out of several that make one recording; they are read again when asked for.

    Attributes
    ----------
    name : str
        Of the file, or of what the file calls the time.
    time : float or None
        Where the file or its name says it: seconds, a step or an iteration; only the order counts.
    read : callable
        Returns the (L, E) float64 tokens per layer and expert, on the layers and experts of the whole recording.
    """

    name: str
    time: float | None
    read: Callable[[], Load]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LoadCounts(ByContent):
    """Tokens per expert without token identity: what an EPLB weight matrix gives, and statistics of pairs where known.

    Counts are equal when they are of the same content, wherever it lay.

    Attributes
    ----------
    load : (L, E) float64
        Tokens (or any weight) per layer and expert; a layer's sum lies between 1e-100 and 1e100.
    layer_ids : (L,) int64
    provenance : Provenance
    digest : str
    affinity : (L-1, E, E) int64, optional
        Pairs of experts in neighbouring layers, in any unit, where the source has them in place of tokens.
    source_load : (R, L, E) int64, optional
        Tokens by the rank that they come from, where the source tells; they sum to `load`.
    unrecorded : tuple of int
        Layers of the model that the source has, but without any count: missing in the recording. Plans leave them
        out, and exports give them the default layout.
    dumps : tuple of CountsDump
        The counts of each point in time, in order, where the source has several; they sum to `load`.
    recorded_at : float or None
        When the counts were dumped, in seconds, where the source says it.
    """

    load: Load
    layer_ids: npt.NDArray[np.int64]
    provenance: Provenance = field(compare=False)
    digest: str
    affinity: npt.NDArray[np.int64] | None = None
    source_load: npt.NDArray[np.int64] | None = None
    unrecorded: tuple[int, ...] = ()
    dumps: tuple[CountsDump, ...] = field(default=(), compare=False)
    recorded_at: float | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        title = f"LoadCounts of {self.num_layers} MoE layers ({runs(self.layer_ids.tolist())}), "
        pairs = "no pairs of layers" if self.affinity is None else "with pairs of neighbouring layers"
        dumps = f"; {len(self.dumps)} dumps over time" if self.dumps else ""
        return as_text(
            f"{title}{self.num_experts} experts",
            [
                ("load", f"{float(self.load.sum()):,.6g} in all; {pairs}{dumps}"),
                ("source", str(self.provenance)),
                *(("note", note) for note in self.provenance.notes),
            ],
        )

    @property
    def num_layers(self) -> int:
        """Number of MoE layers, L."""
        return len(self.layer_ids)

    @property
    def num_experts(self) -> int:
        """Experts per layer, E."""
        return int(self.load.shape[1])

    @property
    def engine(self) -> str | None:
        """The serving engine whose format the counts were read from, or None."""
        return self.provenance.engine

    @classmethod
    def of(
        cls, load: npt.ArrayLike, *, layer_ids: npt.ArrayLike | None = None, provenance: Provenance | None = None
    ) -> LoadCounts:
        """Return counts that are in memory, such as the load of a profile.

        Parameters
        ----------
        load : (L, E) numbers
            Not negative; every layer has some.
        layer_ids : (L,) integers, optional
            0..L-1 by default.
        provenance : Provenance, optional

        Raises
        ------
        InputError
            If a load is not finite, or negative, or a layer has none.
        """
        array = np.array(load, dtype=np.float64)
        if array.ndim != 2 or not np.isfinite(array).all() or (array < 0).any() or not array.any(axis=1).all():
            detail = "Expected finite loads (layers, experts), some in every layer."
            raise InputError.of("load_shape", "/load", detail, "Leave layers without counts out.")
        layers = np.arange(len(array)) if layer_ids is None else np.array(layer_ids)
        digest = hashlib.sha256(array.tobytes() + f"{array.shape} {layers.tolist()}".encode()).hexdigest()
        array.flags.writeable = False
        return cls(
            load=array,
            layer_ids=layers.astype(np.int64),
            provenance=provenance or Provenance(),
            digest=f"sha256:{digest}",
        )

    def of_dumps(self, dumps: Sequence[CountsDump], note: str) -> LoadCounts:
        """Return the counts of some of the dumps.

        Parameters
        ----------
        dumps : sequence of CountsDump
            Out of `dumps`, at least one.
        note : str
            What was selected; part of the provenance and of the digest.

        Raises
        ------
        InputError
            If they hold no count at all.
        """
        load = dumps[0].read()
        for dump in dumps[1:]:
            load = load + dump.read()
        there = load.any(axis=1)
        if not there.any():
            detail = "These dumps hold no counts."
            raise InputError.of("zero_tokens", self.provenance.source, detail, "Choose others.")
        load = np.ascontiguousarray(load[there])
        load.flags.writeable = False
        digest = hashlib.sha256(f"{self.digest}|{note}".encode()).hexdigest()
        missing = (*self.unrecorded, *self.layer_ids[~there].tolist())
        return replace(
            self,
            load=load,
            layer_ids=self.layer_ids[there],
            provenance=self.provenance.noting(note),
            digest=f"sha256:{digest}",
            affinity=None,
            source_load=None,
            unrecorded=tuple(sorted(missing)),
            dumps=() if not there.all() else tuple(dumps),
        )
