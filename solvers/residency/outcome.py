"""What was found about residency: a row per policy, and the best of those that an engine can follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.shown import Facts, Shown

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["PolicyFigures", "Residency"]


@dataclass(frozen=True, kw_only=True)
class PolicyFigures:
    """A policy on steps that nothing was fitted on.

    Attributes
    ----------
    name, summary : str
    practical : bool
        Whether an engine can follow it.
    hit_rate : float
        Share of the accesses whose expert is in the cache, or was fetched ahead.
    cache_hit_rate, prefetch_hit_rate : float
        Its parts.
    transfers_per_step : float
        Experts that are moved, on demand or ahead.
    wasted_per_step : float
        Those fetched ahead for nothing.
    moved : mapping of str to float
        Transfers per step from each tier.
    gb_per_step : float or None
        None where the size of an expert is not known.
    step : float
        Time of a step, mean; see ``Residency.unit``.
    step_p99 : float
        99 % of the steps take no longer.
    waited : float
        Of a step: waiting for experts.
    budget : str
        How slots are split over the layers.
    slots_per_layer : tuple of int
        Empty where all layers share them.
    settings : mapping of str to float
        What was chosen on the part that was fitted: ``half_life_steps``, ``confidence``, ``prefetch_experts``.
    """

    name: str
    summary: str
    practical: bool
    hit_rate: float
    cache_hit_rate: float
    prefetch_hit_rate: float
    transfers_per_step: float
    wasted_per_step: float
    moved: Mapping[str, float]
    gb_per_step: float | None
    step: float
    step_p99: float
    waited: float
    budget: str
    slots_per_layer: tuple[int, ...]
    settings: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Residency(Shown, ByContent):
    """Which experts should stay in a GPU's memory, and what the others cost.

    Attributes
    ----------
    best : str
        The practical policy whose step takes the least time.
    reference : str
        What bounds the others: ``belady``, which moves the least; ``hindsight`` where nothing moves.
    fits : bool
        Whether all experts fit: then all of them stay, on every GPU where there are several.
    unit : {"ms", "transfers"}
        Of times: ``transfers`` are of one expert from the fastest tier, where its size is not known.
    slots, experts : int
        Experts that are resident, and that there are, in all layers.
    expert_bytes : float or None
    memory_gb : float or None
        Of the resident experts.
    steps, accesses, tokens : int
        Judged.
    batch_tokens : int
    phase : str
    policies : tuple of PolicyFigures
    layer_ids : (L,) tuple of int
        Model layers.
    resident : (L,) tuple of tuples of int
        Experts of each layer that ``static`` keeps: what stays for good, or what a cache should begin with.
    notes : tuple of str
    """

    best: str
    reference: str
    fits: bool
    unit: str
    slots: int
    experts: int
    expert_bytes: float | None
    memory_gb: float | None
    steps: int
    accesses: int
    tokens: int
    batch_tokens: int
    phase: str
    policies: tuple[PolicyFigures, ...]
    layer_ids: tuple[int, ...]
    resident: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> PolicyFigures:
        return next(each for each in self.policies if each.name == name)

    @property
    def sentence(self) -> str:
        """What to do, in a sentence."""
        size = "" if self.memory_gb is None else f" ({self.memory_gb:.3g} GB)"
        if self.fits:
            return f"All {self.experts:,} experts fit{size}: keep every one, on each GPU; nothing is moved."
        best = self[self.best]
        share = f"{self.slots:,} of {self.experts:,} experts resident{size}"
        return f"{share}: {self.best} is best, {best.hit_rate:.1%} hits, {best.step:.4g} {self.unit} per step."

    def _shown(self) -> tuple[str, Facts]:
        rows = [
            (each.name, f"{each.hit_rate:.1%} hits, {each.step:.4g} {self.unit} per step") for each in self.policies
        ]
        return self.sentence, rows

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {
            "policies": [
                asdict(each)
                | {"moved": dict(each.moved), "settings": dict(each.settings)}
                | {"slots_per_layer": list(each.slots_per_layer)}
                for each in self.policies
            ],
            "layer_ids": list(self.layer_ids),
            "resident": [list(experts) for experts in self.resident],
            "notes": list(self.notes),
        }

    def to_frame(self) -> DataFrame:
        """Return the policies as a table, a row each; needs pandas (the extra ``frame``).

        Raises
        ------
        ImportError
        """
        return frame([asdict(each) for each in self.policies])
