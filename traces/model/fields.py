"""The fields of a model's config, checked as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from traces.model.layout import MAX_LAYERS
from traces.support.errors import Violations

__all__ = ["BY_HAND", "EXPERTS", "LAYERS", "TOP_K", "Fields"]

LAYERS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
EXPERTS = (
    "n_routed_experts",
    "num_local_experts",
    "num_experts",
    "moe_num_experts",
    "num_routed_experts",
    "moe_num_routed_experts",
    "moe_num_primary_experts",
)
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_top_k",
    "moe_topk",
    "moe_k",
    "top_k_experts",
    "num_selected_experts",
    "moe_num_active_primary_experts",
    "moe_router_topk",
    "n_activated_experts",
)
BY_HAND = (
    "Say the layers by hand instead: `num_layers` with `first_moe_layer`, or with `moe_layers` where they interleave."
)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of a config, and what is wrong with them.

    Attributes
    ----------
    values : mapping
        The config's part for the language model.
    place : str
        Its place, for errors.
    name : str
        Model type.
    found : Violations
        What was found so far.
    """

    values: Mapping[str, Any]
    place: str
    name: str
    found: Violations

    @property
    def called(self) -> str:
        """What messages call the model: by its type, if the config has one."""
        return f"{self.name!r:.60}" if self.name else "a config without model_type"

    def has(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.values.get(name) is not None

    def present(self, names: tuple[str, ...]) -> list[str]:
        """Return which of several names for one thing are there."""
        return [name for name in names if self.has(name)]

    def unknown(self, code: str, name: str, detail: str) -> None:
        """Note that a field says something that this version does not know."""
        self.found.add(code, f"{self.place}/{name}", f"This version doesn't know what it means: {detail}", BY_HAND)

    def whole(self, names: tuple[str, ...], default: int | None = None, least: int = 0) -> int:
        """Return the number under the first of `names` that is there; without a default, one must be.

        A list that has the same number for every layer is that number.
        """
        present = self.present(names)
        if not present:
            if default is None:
                detail = f"This version doesn't know how else this model says it: there is no {' or '.join(names)}."
                self.found.add("missing_field", f"{self.place}/{names[0]}", detail, BY_HAND)
            return least if default is None else default
        first: int | None = None
        for name in present:
            value = self.values[name]
            if isinstance(value, list) and value and all(entry == value[0] for entry in value):
                value = value[0]
            if isinstance(value, list):
                self.unknown("layer_specific", name, f"{value!r:.40} differs from layer to layer.")
                return least
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_LAYERS:
                self.unknown("field_type", name, f"{value!r:.40} is no whole number of {least} to {MAX_LAYERS}.")
                return least
            if first is not None and value != first:
                detail = f"{value}, but {present[0]} is {first}."
                self.found.add("fields_differ", f"{self.place}/{name}", detail, "Keep the one that the model uses.")
            first = value if first is None else first
        return least if first is None else first

    def wholes(self, name: str, below: int) -> list[int] | None:
        """Return a list of layers, or a text such as ``"3,4,5"``; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            value = [int(part) if part.isdecimal() and len(part) < 7 else part for part in parts]
        if not isinstance(value, list) or not all(type(entry) is int and 0 <= entry < below for entry in value):
            self.unknown("field_type", name, f"this is no list of layers below {below}.")
            return []
        return sorted(set(value))

    def words(self, name: str) -> list[str] | None:
        """Return a list of words, one per layer; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self.unknown("field_type", name, "this is no list of words, one per layer.")
            return None
        return value
