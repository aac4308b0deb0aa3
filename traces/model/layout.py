"""Which layers of a model are MoE layers, and how many experts they have: what most recordings don't say themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from traces.rules import MAX_EXPERTS
from traces.support.errors import InputError, Violations

__all__ = ["ModelLayout"]

MAX_LAYERS = 100_000
REMEDY = "Give the config.json of the model that was recorded (`model`), or `num_layers` with `first_moe_layer`."


@dataclass(frozen=True, kw_only=True)
class ModelLayout:
    """The layers of a model, in its own (absolute) numbering.

    Engines count layers in three ways: *rows* are all ``num_hidden_layers`` of the decoder, with filler in dense
    layers; *ordinals* count MoE layers only; *keys* name MoE layers by their absolute number. This class translates.

    Attributes
    ----------
    num_layers : int
        Layers of the decoder (``num_hidden_layers``), without those of multi-token prediction (MTP).
    moe_layers : tuple of int
        MoE layers of the decoder, rising, each below `num_layers`.
    mtp_layers : tuple of int
        MoE layers for multi-token prediction; engines number them on from `num_layers`.
    num_experts, top_k : int or None
        E and K, where known. Shared experts are not counted, as no router chooses them, and neither are experts that
        compute nothing.
    num_groups, groups_per_token : int or None
        Groups of experts that the router limits a token to (``n_group``, ``topk_group``); None where it does not.
    num_shared_experts : int or None
        Experts that every token uses, where known.
    zero_experts : int or None
        Experts that compute nothing, which the router may choose beside the routed ones; engines number them from E.
    name : str
        Model type, to show.
    notes : tuple of str
        What was assumed.
    architecture : str
        The model's class, as ``architectures`` of its config has it; empty where it is not known. Layouts that differ
        in it only are equal.
    """

    num_layers: int
    moe_layers: tuple[int, ...]
    mtp_layers: tuple[int, ...] = ()
    num_experts: int | None = None
    top_k: int | None = None
    num_groups: int | None = None
    groups_per_token: int | None = None
    num_shared_experts: int | None = None
    zero_experts: int | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    architecture: str = field(default="", compare=False)

    @property
    def parameter(self) -> str:
        """What the caller gave to say it, as messages name it: a config, or numbers."""
        return "`model`" if self.name else "`num_layers`"

    def __post_init__(self) -> None:
        found = Violations()
        layers, experts = self.num_layers, self.num_experts
        if not 1 <= layers <= MAX_LAYERS:
            found.add("model_layers", "/num_layers", f"{layers} layers.", f"Give 1 to {MAX_LAYERS} layers.")
        for name, numbers, least, below in (
            ("moe_layers", self.moe_layers, 0, layers),
            ("mtp_layers", self.mtp_layers, layers, MAX_LAYERS + layers),
        ):
            rising = all(one < other for one, other in pairwise(numbers))
            if not rising or not all(least <= number < below for number in numbers):
                detail = f"Layers {list(numbers[:8])} do not rise from {least} to at most {below - 1}."
                found.add(name, f"/{name}", detail, "MoE layers of the decoder are below num_layers, MTP layers not.")
        if not self.all_moe_layers:
            found.add("no_layers", "/moe_layers", "The model has no MoE layer.", "Check the first MoE layer.")
        if experts is not None and not 1 <= experts <= MAX_EXPERTS:
            found.add("num_experts_range", "/num_experts", f"{experts} experts.", f"Give 1 to {MAX_EXPERTS}.")
        elif self.top_k is not None and not 1 <= self.top_k <= (experts or MAX_EXPERTS):
            detail = f"A token can't choose {self.top_k} experts of {experts or MAX_EXPERTS}."
            found.add("top_k_range", "/top_k", detail, "Correct the number of experts, or of experts per token.")
        groups = self.num_groups
        if groups is not None and (groups < 1 or (experts is not None and experts % groups)):
            detail = f"{experts} experts do not fill {groups} groups."
            found.add("num_groups", "/num_groups", detail, "Give a divisor of the number of experts.")
        elif groups is not None and self.groups_per_token is not None and not found.found:
            chosen = self.groups_per_token
            reached = (experts or MAX_EXPERTS * groups) // groups * chosen
            if not 1 <= chosen <= groups or (self.top_k or 0) > reached:
                detail = f"{self.top_k} experts per token out of {chosen} of {groups} groups, {reached} experts in all."
                found.add("num_groups", "/groups_per_token", detail, "Correct the groups, or the experts per token.")
        found.raise_if_any()

    @classmethod
    def of(
        cls,
        num_layers: int,
        *,
        first_moe_layer: int = 0,
        moe_layers: Sequence[int] | None = None,
        num_mtp_layers: int = 0,
        num_experts: int | None = None,
        top_k: int | None = None,
    ) -> ModelLayout:
        """Describe a model whose MoE layers run from `first_moe_layer` to the last, or are listed.

        Parameters
        ----------
        num_layers : int
        first_moe_layer : int
            Dense layers before it. Not beside `moe_layers`.
        moe_layers : sequence of int, optional
        num_mtp_layers : int
        num_experts, top_k : int, optional

        Raises
        ------
        InputError
        """
        if moe_layers is not None and first_moe_layer:
            detail = "`first_moe_layer` and `moe_layers` say the same thing twice."
            raise InputError.of("moe_layers_twice", "/first_moe_layer", detail, "Give one of them.")
        if not 1 <= num_layers <= MAX_LAYERS or not 0 <= num_mtp_layers <= MAX_LAYERS or first_moe_layer < 0:
            detail = f"{num_layers} layers from {first_moe_layer}, and {num_mtp_layers} for multi-token prediction."
            remedy = (
                f"Give 1 to {MAX_LAYERS} layers (`num_layers`), as num_hidden_layers of the model's config.json has "
                f"them, a first MoE layer of at least 0, and 0 to {MAX_LAYERS} layers for multi-token prediction."
            )
            raise InputError.of("model_layers", "/num_layers", detail, remedy)
        if moe_layers is None and first_moe_layer >= num_layers and not num_mtp_layers:
            detail = f"Of {num_layers} layers, none comes at or after layer {first_moe_layer}."
            remedy = "Layers count from 0: give a `first_moe_layer` below the number of layers."
            raise InputError.of("no_layers", "/moe_layers", detail, remedy)
        return cls(
            num_layers=num_layers,
            moe_layers=tuple(range(first_moe_layer, num_layers)) if moe_layers is None else tuple(moe_layers),
            mtp_layers=tuple(range(num_layers, num_layers + num_mtp_layers)),
            num_experts=num_experts,
            top_k=top_k,
        )

    @property
    def _called(self) -> str:
        return f" ({self.name[:60]})" if self.name else ""

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """Layers of the decoder without experts."""
        moe = set(self.moe_layers)
        return tuple(layer for layer in range(self.num_layers) if layer not in moe)

    @property
    def all_moe_layers(self) -> tuple[int, ...]:
        """MoE layers of the decoder, then those for multi-token prediction."""
        return self.moe_layers + self.mtp_layers

    def of_ordinals(self, count: int, place: str) -> npt.NDArray[np.int64]:
        """Return the absolute numbers of `count` rows that are MoE layers only, with or without the MTP layers.

        Parameters
        ----------
        count : int
            Rows of the file.
        place : str
            For the error: the file, and where in it.

        Returns
        -------
        (count,) int64
            The file's row i is layer ``result[i]`` of the model.

        Raises
        ------
        InputError
            If the model has another number of MoE layers.
        """
        for layers in (self.moe_layers, self.all_moe_layers):
            if count == len(layers):
                return np.array(layers, dtype=np.int64)
        also = f", {len(self.all_moe_layers)} with MTP" if self.mtp_layers else ""
        detail = (
            f"The file has {count} layers, but the model{self._called} has {len(self.moe_layers)} MoE layers{also}."
        )
        raise InputError.of("layer_count", place, detail, REMEDY)

    def of_rows(self, count: int, place: str) -> npt.NDArray[np.int64]:
        """Return the MoE layers among `count` rows that are all layers of the model, with or without MTP.

        Parameters
        ----------
        count : int
            Rows of the file, `num_layers` or those and one per MTP layer.
        place : str

        Returns
        -------
        (L,) int64
            Rows to keep, which are the absolute numbers of the layers too.

        Raises
        ------
        InputError
            If the model has another number of layers.
        """
        if count == self.num_layers and self.moe_layers:
            return np.array(self.moe_layers, dtype=np.int64)
        if self.mtp_layers and count == self.mtp_layers[-1] + 1:
            return np.array(self.all_moe_layers, dtype=np.int64)
        also = f", {self.mtp_layers[-1] + 1} with MTP" if self.mtp_layers else ""
        detail = f"The file has {count} layers, but the model{self._called} has {self.num_layers}{also}."
        raise InputError.of("layer_count", place, detail, REMEDY)
