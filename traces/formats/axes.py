"""What every reader settles alike: the layers and the number of experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.decoding.bundles import Bundle
from traces.decoding.files import TraceFile
from traces.formats.hints import Hints
from traces.provenance import Provenance
from traces.support.errors import InputError, Violations
from traces.support.shown import layers_that
from traces.trace import Trace

__all__ = ["Axes", "check_largest"]

MAX_LAYERS = 100_000


def check_largest(hints: Hints, largest_id: int, place: str) -> None:
    """Refuse ids beyond the experts that the caller or the model states, where a pass has found the largest one."""
    taken = hints.beyond_is_none or hints.lenient or hints.layers is not None
    if hints.experts is not None and largest_id >= hints.experts and not taken:
        detail = _experts_differ(hints, f"Tokens chose experts up to {largest_id}")
        remedy = f"{_experts_remedy(hints)} {checks.as_none([largest_id], hints.experts)}"
        raise InputError.of("num_experts_differ", f"{place}#/num_experts", detail, remedy)


def _are_others(hints: Hints) -> bool:
    """Whether the experts that the caller states are those of some layers only."""
    return hints.layers is not None and hints.num_experts is not None


def _experts_differ(hints: Hints, what: str) -> str:
    if hints.num_experts is not None:
        return f"{what}, but `num_experts` is {hints.num_experts}."
    name = "" if hints.model is None or not hints.model.name else f" ({hints.model.name[:60]})"
    return f"{what}, but the model{name} has {hints.experts}."


def _experts_remedy(hints: Hints) -> str:
    wrong = "Leave `num_experts` out"
    if hints.model is None:
        return f"{wrong}."
    check = f"heck that {hints.model.parameter} says what was recorded."
    return f"C{check}" if hints.num_experts is None else f"{wrong}, and c{check}"


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The layers and experts of a file, and the notes on how they were found.

    Attributes
    ----------
    layer_ids : (L,) int64
    num_experts : int
    notes : tuple of str
    inferred : bool
        Whether the number of experts is the largest id plus one, as nobody states it.
    stated : bool
        Whether the caller or the model says the number of experts.
    lenient : bool
        See `Hints`.
    """

    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    notes: tuple[str, ...]
    inferred: bool = False
    stated: bool = False
    lenient: bool = False

    @classmethod
    def settle(
        cls,
        file: TraceFile | Bundle,
        hints: Hints,
        num_layers: int,
        largest_id: Callable[[], int],
        *,
        layer_ids: npt.ArrayLike | None = None,
        num_experts: Any = None,
    ) -> Axes:
        """Reconcile what the file states, what the caller says, and defaults.

        Parameters
        ----------
        file : TraceFile or Bundle
        hints : Hints
        num_layers : int
            L, from the shape of the data.
        largest_id : callable
            Reads the file for its largest id; called only if nobody states E.
        layer_ids, num_experts : optional
            As the file states them.

        Raises
        ------
        InputError
            If the file and the caller disagree, or the axes break a rule.
        """
        if not 1 <= num_layers <= MAX_LAYERS:
            raise InputError.of(
                "topk_ids_shape",
                file.name,
                f"{num_layers} layers.",
                "Check the order of the axes (tokens, layers, top-k).",
            )
        found = Violations()
        notes: list[str] = []
        layers = np.arange(num_layers, dtype=np.int64)
        if hints.layer_ids is not None:
            layers = checks.as_layer_ids(hints.layer_ids, num_layers)
        elif hints.model is not None and layer_ids is None:
            layers = hints.model.of_ordinals(num_layers, file.name)
        if layer_ids is not None:
            hinted, layers = layers, checks.as_layer_ids(layer_ids, num_layers)
            if hints.layer_ids is not None and (hinted != layers).any():
                found.add(
                    "layer_ids_differ",
                    f"{file.name}#/layer_ids",
                    f"The file says {layers.tolist()}.",
                    "Leave `layer_ids` out.",
                )
        elif hints.layer_ids is None and hints.model is None:
            notes.append(f"`layer_ids` are not given; taken as 0..{num_layers - 1}.")
        if hints.model is not None:
            notes += hints.model.notes
            if other := sorted(set(layers.tolist()) - set(hints.model.all_moe_layers)):
                detail = f"{layers_that(other, 'is no MoE layer', 'are no MoE layers')} of the model."
                found.add(
                    "layer_ids_differ",
                    f"{file.name}#/layer_ids",
                    detail,
                    f"Check that {hints.model.parameter} says the layers of the model that was recorded.",
                )
            if missing := sorted(set(hints.model.moe_layers) - set(layers.tolist())):
                more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
                notes.append(
                    f"The trace has {num_layers} layers, the model {len(hints.model.moe_layers)} with experts: "
                    f"{missing[:8]}{more} are missing. Is it this model's, and whole? If they are dense, say so with "
                    "`first_moe_layer`; engines want every MoE layer in a plan."
                )
        experts = hints.experts if num_experts is None else num_experts
        if experts is not None and (isinstance(experts, bool) or not isinstance(experts, int | np.integer)):
            found.add(
                "num_experts_type", f"{file.name}#/num_experts", f"{experts!r:.40} is no integer.", "Give an integer."
            )
            experts = None
        elif experts is not None and hints.beyond_is_none and hints.experts is not None and hints.experts < experts:
            experts = hints.experts
        elif experts is not None and hints.experts not in (None, experts) and not (hints.lenient or _are_others(hints)):
            found.add(
                "num_experts_differ",
                f"{file.name}#/num_experts",
                _experts_differ(hints, f"The file has {experts} experts per layer"),
                _experts_remedy(hints),
            )
        if experts is None and hints.beyond_is_none:
            detail = "Which ids are beyond the routed experts is not known: nobody says how many there are."
            found.add("num_experts_needed", "/num_experts", detail, "Give `num_experts`, or `model`, its config.json.")
        found.raise_if_any()
        inferred = experts is None
        if experts is None:
            experts = largest_id() + 1
            if hints.lenient:
                experts = min(max(experts, 1), checks.MAX_EXPERTS)  # fillers are no experts
            if experts < 1:
                raise InputError.of(
                    "zero_tokens",
                    file.name,
                    "There is no id to infer num_experts from.",
                    "Check the recording, or give `num_experts`.",
                )
            notes.append(f"`num_experts` is not given; inferred as {experts} from the largest id.")
        return cls(
            layer_ids=layers,
            num_experts=int(experts),
            notes=tuple(notes),
            inferred=inferred,
            stated=hints.experts is not None,
            lenient=hints.lenient,
        )

    def trace(self, file: TraceFile | Bundle, format_name: str, notes: tuple[str, ...] = (), **fields: Any) -> Trace:
        """Return the trace of `file`; `fields` are those that the reader knows: top_k, num_tokens, columns, read."""
        # A trace of nothing but zeros is for the doctor to tell.
        experts = max(self.num_experts, fields["top_k"]) if self.lenient and self.inferred else self.num_experts
        return Trace(
            layer_ids=self.layer_ids,
            num_experts=experts,
            hash_source=file.sha256,
            provenance=Provenance(
                source=file.name, format=format_name, notes=(*self.notes, *notes), experts_inferred=self.inferred
            ),
            **fields,
        )
