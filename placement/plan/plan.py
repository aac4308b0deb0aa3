"""The artefact: which logical expert every physical slot holds, in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from placement.plan.checks import check_plan
from placement.plan.file import plan_arguments, plan_content, read_plan_file
from placement.plan.termination import Termination, gap_of
from placement.plan.writing import writer
from placement.support.fields import check_figures
from placement.support.json_files import write_json
from traces import InputError, ModelLayout, Violations
from traces.support.content import ByContent
from traces.support.frames import frame
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, number, runs, shorten

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Plan", "replicas_on_gpu"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan(Shown, ByContent):
    """A placement of experts, in the terms of the serving engines.

    Attributes
    ----------
    physical_to_logical_map : (L, S) int32
        Logical expert of each slot; slot s is on GPU ``s // slots_per_gpu``; -1 is an empty slot.
    layer_ids : (L,) int64
        Model layer of each row.
    num_experts : int
        Logical experts per layer, E.
    num_gpus, slots_per_gpu : int
        G and C, ``S = G * C``.
    gpus_per_node : tuple of int
        Sizes of the nodes.
    score, bound : float or None
        Objective value, and a value that no plan can beat; None where unknown.
    termination : Termination or None
    provenance : mapping
        Trace digest, solver, parameters, seed, version, objective, constraints, topology.
    warnings : tuple of str
        What the reader of the plan must know, such as a load cap that was missed.
    """

    MADE_BY: ClassVar = "Take one of a solution, or read one with placement.Plan.load(path)."

    physical_to_logical_map: npt.NDArray[np.int32]
    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    num_gpus: int
    slots_per_gpu: int
    gpus_per_node: tuple[int, ...]
    score: float | None = None
    bound: float | None = None
    termination: Termination | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        table = np.asarray(self.physical_to_logical_map)
        sizes = {name: getattr(self, name) for name in ("num_gpus", "slots_per_gpu", "num_experts")}
        check_plan(table, np.asarray(self.layer_ids), sizes, self.gpus_per_node)
        frozen, layers = table.astype(np.int32), np.array(self.layer_ids, dtype=np.int64)
        for array in (frozen, layers):
            array.flags.writeable = False
        object.__setattr__(self, "physical_to_logical_map", frozen)
        object.__setattr__(self, "layer_ids", layers)

    @classmethod
    @checked
    def of(
        cls,
        table: npt.ArrayLike,
        *,
        layer_ids: npt.ArrayLike,
        num_experts: int,
        gpus_per_node: tuple[int, ...],
        **fields: Any,
    ) -> Plan:
        """Make a plan of a map; GPUs and slots follow from the nodes and the map's width.

        Parameters
        ----------
        table : (L, S) integers
            Physical-to-logical map.
        layer_ids : (L,) integers
        num_experts : int
        gpus_per_node : tuple of int
        **fields
            Other attributes, such as the score.

        Raises
        ------
        InputError
            If it is no plan.
        """
        array, gpus = np.asarray(table), sum(gpus_per_node)
        slots = array.shape[1] if array.ndim == 2 else 0
        return cls(
            physical_to_logical_map=array,
            layer_ids=np.asarray(layer_ids),
            num_experts=num_experts,
            num_gpus=gpus,
            slots_per_gpu=max(slots // max(gpus, 1), 1),
            gpus_per_node=gpus_per_node,
            **fields,
        )

    def _shown(self) -> tuple[str, Facts]:
        nodes = runs(sorted(set(self.gpus_per_node)))
        redundant = self.num_gpus * self.slots_per_gpu - self.num_experts
        shown = {
            "layers": f"{self.num_layers} ({runs(self.layer_ids.tolist())})",
            "experts": f"{self.num_experts} per layer, {redundant} slots beyond that",
            "GPUs": f"{self.num_gpus} of {self.slots_per_gpu} slots, on {len(self.gpus_per_node)} node(s) of {nodes}",
            "score": f"{number(self.score)}, bound {number(self.bound)}",
        }
        if self.termination is not None:
            ended = f", ended by {self.termination.limit}" if self.termination.limit else ""
            shown["search"] = shorten(f"{self.termination.reason}{ended}. {self.termination.detail}")
        if solver := self.provenance.get("solver"):
            shown["solver"] = shorten(str(solver))
        if self.warnings:
            more = f" (and {len(self.warnings) - 1} more)" if len(self.warnings) > 1 else ""
            shown["warning"] = shorten(self.warnings[0], 90) + more
        return "Plan", shown

    def as_dict(self) -> dict[str, Any]:
        """Return the plan file's content, JSON-ready."""
        return plan_content(self.__dict__, self.gap)

    @classmethod
    def from_dict(cls, content: Any, place: str = "") -> Plan:
        """Make a plan of a plan file's content; `gap` is derived, so it is not read.

        Parameters
        ----------
        content : object
            As JSON gives it.
        place : str
            Pointer to it, for errors.

        Raises
        ------
        InputError
            With a pointer for each violation.
        """
        arguments = plan_arguments(content, place)
        found = Violations()
        try:
            return cls(**arguments)
        except InputError as error:
            found.extend(error, place)
            raise found.error() from None

    @checked
    def save(self, path: str | Path) -> None:
        """Write a plan file.

        Raises
        ------
        InputError
            If the score or the bound is not finite, or the bound is above the score: it could not be read again.
        """
        found = Violations()
        check_figures(found, self.score, self.bound, "")
        found.raise_if_any()
        write_json(self.as_dict(), path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file; `placement.exports.load_placement` reads those of engines as well.

        Raises
        ------
        InputError
        """
        return cls.from_dict(read_plan_file(path), f"{Path(path).name}#")

    @checked
    def export(
        self, to: str, path: str | Path, *, model: str | Path | ModelLayout | None = None, **known: Any
    ) -> tuple[str, ...]:
        """Write the file that an engine loads.

        Parameters
        ----------
        to : str
            An engine (``"sglang"``), or a placement format (``"csv"``).
        path : path
        model : path or ModelLayout, optional
            The model's ``config.json``, or its layers.
        **known
            See `placement.exports.export_plan`.

        Returns
        -------
        tuple of str
            Notes on what could not be checked, or was added.

        Raises
        ------
        InputError
            With everything that the engine would reject or misread; nothing is written then.
        """
        return writer()(self, to, path, model=model, **known)

    def to_frame(self) -> pd.DataFrame:
        """Return the slots as a pandas DataFrame, one row each: `layer_id`, `gpu`, `slot`, `expert`.

        `slot` counts within its GPU; -1 is the expert of an empty slot.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        slot = np.arange(self.num_gpus * self.slots_per_gpu)
        return frame(
            {
                "layer_id": np.repeat(self.layer_ids, len(slot)),
                "gpu": np.tile(slot // self.slots_per_gpu, self.num_layers),
                "slot": np.tile(slot % self.slots_per_gpu, self.num_layers),
                "expert": self.physical_to_logical_map.ravel(),
            }
        )

    @property
    def num_layers(self) -> int:
        """Number of layers, L."""
        return len(self.layer_ids)

    @property
    def gap(self) -> float | None:
        """``(score - bound) / score``; None where the bound is unknown, 0 where the score is 0."""
        return gap_of(self.score, self.bound)

    @cached_property
    def gpu_of_slot(self) -> npt.NDArray[np.int64]:
        """GPU of each slot, (S,)."""
        return np.arange(self.num_gpus * self.slots_per_gpu) // self.slots_per_gpu

    @cached_property
    def replicas_on_gpu(self) -> npt.NDArray[np.int64]:
        """``replicas_on_gpu[l, e, g]``: replicas of expert e that GPU g holds, (L, E, G)."""
        return replicas_on_gpu(self.physical_to_logical_map, self.num_experts, self.num_gpus)

    @cached_property
    def replicas(self) -> npt.NDArray[np.int64]:
        """Replicas of each expert, (L, E)."""
        counts: npt.NDArray[np.int64] = self.replicas_on_gpu.sum(axis=2)
        return counts

    @cached_property
    def gpu_of_expert(self) -> npt.NDArray[np.int64]:
        """GPU of each expert, (L, E); only for plans without replicas."""
        if (self.replicas > 1).any():
            layer, expert = np.argwhere(self.replicas > 1)[0]
            raise InputError.of(
                "has_replicas",
                f"/physical_to_logical_map/{layer}",
                f"Expert {expert} has {self.replicas[layer, expert]} replicas, so it has no single GPU.",
                "Use replicas_on_gpu.",
            )
        gpu: npt.NDArray[np.int64] = self.replicas_on_gpu.argmax(axis=2)
        return gpu

    def replacing(self, **changes: Any) -> Plan:
        """Return a plan with some attributes changed."""
        return replace(self, **changes)


def replicas_on_gpu(table: npt.NDArray[Any], num_experts: int, num_gpus: int) -> npt.NDArray[np.int64]:
    """Count the replicas of each expert on each GPU, (L, E, G), from a map (L, S)."""
    layers, slots = table.shape
    counts = np.zeros((layers, num_experts, num_gpus), np.int64)
    layer, slot = np.nonzero(table >= 0)
    np.add.at(counts, (layer, table[layer, slot], slot // (slots // num_gpus)), 1)
    return counts
