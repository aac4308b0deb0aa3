"""What the caller says about a file that does not say everything itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from traces.decoding.unpacking import UnpackLimits
from traces.model.layout import ModelLayout
from traces.support.errors import InputError

__all__ = ["Hints"]

MAX_TOP_K = 32_767
DEFAULT_LIMITS = UnpackLimits()


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the caller says about a file that may not say it itself.

    Attributes
    ----------
    num_experts : int, optional
        Routed experts per layer, E.
    layer_ids : array-like of int, optional
        Model layers that are MoE layers. Of formats whose layer axis counts every layer of the model, these rows are
        taken.
    model : ModelLayout, optional
        The model's layers. Where a file has a row per MoE layer, `Axes.settle` names them by it; a reader of files
        with a row per layer of the model picks its rows with ``model.of_rows``.
    layers : tuple of int, optional
        The only model layers that are wanted; `num_experts` is theirs then, and others may have more.
    top_k : int, optional
        Experts per token, for formats that don't state it.
    drop_dummy_rows : bool
        Leave out rows that repeat the row before, and rows of a single id: `traces.formats.shared.dummies`.
    ids_beyond_experts : {"refuse", "none"}, optional
        What an id of `num_experts` or above is: an error, or no routed expert (`traces.formats.shared.beyond`).
    layer_base : {0, 1}, optional
        What layers are counted from, for formats of which there are both.
    unpack : UnpackLimits
        How much an archive may hold.
    lenient : bool
        Read what is refused otherwise, though its content can be told: ids beyond the experts, rows and layers of
        nothing but zeros. For the doctor (`traces.doctor`), which says what is wrong with it.
    """

    num_experts: int | None = None
    layer_ids: npt.ArrayLike | None = None
    model: ModelLayout | None = None
    layers: tuple[int, ...] | None = None
    top_k: int | None = None
    drop_dummy_rows: bool = False
    ids_beyond_experts: str | None = None
    layer_base: int | None = None
    unpack: UnpackLimits = DEFAULT_LIMITS
    lenient: bool = False

    def __post_init__(self) -> None:
        value: Any = self.top_k
        if value is not None and (type(value) is not int or not 1 <= value <= MAX_TOP_K):
            detail = f"Expected an integer between 1 and {MAX_TOP_K}; got {value!r:.40}."
            raise InputError.of("top_k_range", "/top_k", detail, "Correct it, or leave it out.")
        if self.layer_base is not None and (type(self.layer_base) is not int or self.layer_base not in (0, 1)):
            detail = f"Layers are counted from 0 or from 1, not from {self.layer_base!r:.40}."
            raise InputError.of("layer_base_range", "/layer_base", detail, "Give 0 or 1, or leave it out.")

    @property
    def beyond_is_none(self) -> bool:
        """Whether ids of `num_experts` and above are no routed experts."""
        return self.ids_beyond_experts == "none"

    @property
    def experts(self) -> int | None:
        """Experts per layer as the caller says, or as the model has them."""
        if self.num_experts is None and self.model is not None:
            return self.model.num_experts
        return self.num_experts

    @property
    def experts_per_token(self) -> int | None:
        """Experts per token as the caller says, or as the model has them."""
        if self.top_k is None and self.model is not None:
            return self.model.top_k
        return self.top_k
