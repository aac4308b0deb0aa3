"""What the rules of the doctor look at: loads of layers and experts, whether from tokens or from counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.profile.profile import Profile

__all__ = ["Evidence", "share"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Loads of layers and experts.

    Attributes
    ----------
    layer_ids : (L,) int64
    load : (L, E) float64
        Assignments; of tokens, those whose ids are below E.
    tokens : (L,) float64 or None
        Tokens with anything in the layer; None where only counts are known.
    top_k : int or None
        None for counts.
    """

    layer_ids: npt.NDArray[np.int64]
    load: Floats
    tokens: Floats | None
    top_k: int | None

    @classmethod
    def of_counts(cls, counts: LoadCounts | Profile) -> Evidence:
        """Take counts, or the loads of a profile."""
        tokens: Any = None
        if isinstance(counts, Profile) and counts.tokens:
            tokens = np.full(counts.num_layers, float(counts.tokens))
        return cls(
            layer_ids=counts.layer_ids,
            load=counts.load,
            tokens=tokens,
            top_k=counts.top_k if isinstance(counts, Profile) and counts.tokens else None,
        )

    @property
    def recorded(self) -> npt.NDArray[np.bool_]:
        """Layers that have any load, (L,)."""
        there: npt.NDArray[np.bool_] = np.any(self.load > 0, axis=1)
        return there

    @property
    def is_counted(self) -> bool:
        """Whether the loads are numbers of tokens, so that noise can be told from them: whole, and more than shares."""
        whole = bool((self.load == np.floor(self.load)).all())
        return whole and float(self.load.max(initial=0)) > 1

    @property
    def each(self) -> int:
        """Experts that a token has in a layer, as it is recorded: on average, rounded; K is taken as 1 for counts."""
        if self.tokens is None or self.top_k is None:
            return 1
        return min(self.top_k, max(1, round(float(self.load.sum()) / max(float(self.tokens.sum()), 1.0))))

    def most_common(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return each layer's most used expert, and what the K most used have of its assignments, (L,) each.

        Were they all of them, every token would choose the same K experts. Counts don't say K; it is taken as 1.
        """
        whole, first = self.load.sum(axis=1), self.each
        most = np.sort(self.load, axis=1)[:, -first:].sum(axis=1)
        shares = np.divide(most, whole, out=np.zeros(len(self.load)), where=whole > 0)
        return self.load.argmax(axis=1), shares


def share(part: float, whole: float) -> str:
    """Return a share in per cent."""
    percent = 100 * part / max(whole, 1)
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"
