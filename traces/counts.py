"""Tokens per expert without the tokens: what load matrices and engines' statistics give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from traces.provenance import Provenance
from traces.support.content import ByContent
from traces.support.shown import as_text, runs

__all__ = ["LoadCounts"]


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
    """

    load: npt.NDArray[np.float64]
    layer_ids: npt.NDArray[np.int64]
    provenance: Provenance = field(compare=False)
    digest: str
    affinity: npt.NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        title = f"LoadCounts of {self.num_layers} MoE layers ({runs(self.layer_ids.tolist())}), "
        pairs = "no pairs of layers" if self.affinity is None else "with pairs of neighbouring layers"
        return as_text(
            f"{title}{self.num_experts} experts",
            [
                ("load", f"{float(self.load.sum()):,.6g} in all; {pairs}"),
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
