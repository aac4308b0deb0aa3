"""What changes from one plan to another: which experts a GPU has to be sent, and which slots only change places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from placement.plan.plan import Plan
from traces import Violations
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Diff", "diff"]

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Diff(Shown, ByContent):
    """From one plan to another.

    Attributes
    ----------
    layer_ids : (L,) int64
        Model layer of each row.
    arrivals : (M, 4) int64
        Experts that a GPU holds after, and not before: `layer_id`, `expert`, `gpu`, and the GPU to send it from, the
        nearest that held it before (on the same node if there is one, then the lowest number).
    departures : (D, 3) int64
        Experts that a GPU held before, and not after: `layer_id`, `expert`, `gpu`.
    between_nodes : int
        Arrivals that no GPU of their node held before.
    reordered : (L,) int64
        Slots that hold another expert than before, one that their GPU had: they move inside the GPU.
    expert_bytes : int or None
        Bytes of an expert's weights in one layer.
    """

    layer_ids: Counts
    arrivals: Counts
    departures: Counts
    between_nodes: int
    reordered: Counts
    expert_bytes: int | None = None

    @property
    def moved(self) -> int:
        """Experts that are sent to a GPU, all layers together."""
        return len(self.arrivals)

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that are sent to GPUs; None where the size of an expert is unknown."""
        return None if self.expert_bytes is None else self.moved * self.expert_bytes

    @cached_property
    def moved_by_layer(self) -> Counts:
        """Experts that are sent to a GPU, per layer, (L,)."""
        rows = np.searchsorted(self.layer_ids, self.arrivals[:, 0])
        return np.bincount(rows, minlength=len(self.layer_ids)).astype(np.int64)

    def _shown(self) -> tuple[str, Facts]:
        layers = int((self.moved_by_layer > 0).sum())
        shown = {
            "sent to a GPU": f"{self.moved:,} experts, in {layers} of {len(self.layer_ids)} layers",
            "between nodes": f"{self.between_nodes:,} of these",
            "dropped by a GPU": f"{len(self.departures):,} experts",
            "only reordered": f"{int(self.reordered.sum()):,} slots",
        }
        if self.moved_bytes is not None:
            shown["bytes"] = f"{number(self.moved_bytes / 1e9)} GB"
        return "Diff", shown

    def to_frame(self) -> pd.DataFrame:
        """Return the arrivals as a pandas DataFrame, one row each: `layer_id`, `expert`, `gpu`, `from_gpu`.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        names = ("layer_id", "expert", "gpu", "from_gpu")
        return frame({name: self.arrivals[:, column] for column, name in enumerate(names)})


@checked
def diff(a: Plan, b: Plan, expert_bytes: int | None = None) -> Diff:
    """Return what changes from plan `a` to plan `b`.

    An expert counts as moved where a GPU holds it in `b` and not in `a`; how many slots of the GPU it has, and in
    which order, costs no transfer.

    Parameters
    ----------
    a, b : Plan
        Of the same layers, experts and nodes; the slots per GPU may differ.
    expert_bytes : int, optional
        Bytes of an expert's weights in one layer.

    Raises
    ------
    InputError
        If the plans are not of the same layers, experts and nodes, or `expert_bytes` is below 1.
    """
    found = Violations()
    for name in ("num_experts", "gpus_per_node"):
        if getattr(a, name) != getattr(b, name):
            detail = f"{name} is {getattr(a, name)} in the first plan and {getattr(b, name)} in the second."
            found.add("plans_differ", f"/b/{name}", detail, "Compare plans of one model on one machine.")
    if a.layer_ids.tolist() != b.layer_ids.tolist():
        detail = "The plans have other layers."
        found.add("plans_differ", "/b/layer_ids", detail, "Compare plans of one model on one machine.")
    if expert_bytes is not None and expert_bytes < 1:
        detail = f"An expert of {expert_bytes} bytes."
        found.add("expert_bytes_range", "/expert_bytes", detail, "Give the size of one expert's weights, at least 1.")
    found.raise_if_any()
    before, after = a.replicas_on_gpu > 0, b.replicas_on_gpu > 0
    node = np.repeat(np.arange(len(b.gpus_per_node)), b.gpus_per_node)
    row, expert, gpu = np.nonzero(after & ~before)
    held = before[row, expert]  # (M, G): by which GPUs
    near = held & (node[None, :] == node[gpu][:, None])
    source = np.where(near.any(axis=1), near.argmax(axis=1), held.argmax(axis=1))
    left = np.nonzero(before & ~after)
    return Diff(
        layer_ids=a.layer_ids,
        arrivals=_rows(a.layer_ids[row], expert, gpu, source),
        departures=_rows(a.layer_ids[left[0]], *left[1:]),
        between_nodes=int((~near.any(axis=1)).sum()),
        reordered=_reordered(a, b, before),
        expert_bytes=expert_bytes,
    )


def _rows(*columns: npt.NDArray[np.int64]) -> Counts:
    rows = np.stack(columns, axis=1).astype(np.int64)
    rows.flags.writeable = False
    return rows


def _reordered(a: Plan, b: Plan, before: npt.NDArray[np.bool_]) -> Counts:
    """Return how many slots of `b` hold another expert than in `a`, one that their GPU held, (L,)."""
    most = max(a.slots_per_gpu, b.slots_per_gpu)
    old, new = (_by_gpu(plan, most) for plan in (a, b))
    layer, gpu, slot = np.nonzero((new != old) & (new >= 0))
    kept = before[layer, new[layer, gpu, slot], gpu]
    counts = np.bincount(layer[kept], minlength=a.num_layers).astype(np.int64)
    counts.flags.writeable = False
    return counts


def _by_gpu(plan: Plan, size: int) -> npt.NDArray[np.int32]:
    """Return the slots as (L, G, size), filled up with empty ones."""
    table = plan.physical_to_logical_map.reshape(plan.num_layers, plan.num_gpus, plan.slots_per_gpu)
    return np.pad(table, ((0, 0), (0, 0), (0, size - plan.slots_per_gpu)), constant_values=-1)
