"""What a placement format is: rules that the engine has, a way to write a table of slots, and a way to read one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.exports.shared.document import Document
from placement.plan.plan import Plan
from traces import InputError, ModelLayout, Violations

__all__ = ["Context", "Export", "Exported", "Rules", "Table"]

BORNE = ("layer_missing", "mtp_not_loaded", "replicas_on_one_gpu")
Layers = Literal["rows", "ordinals", "keys", "none"]
Mtp = Literal["no", "may", "must"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the caller knows that a plan or a file does not say.

    Attributes
    ----------
    model : ModelLayout, optional
        The model's layers: translates layer indices, and tells whether layers are missing.
    layer_ids : tuple of int, optional
        Reading: layers of the model, for files that count them, in place of `model`.
    num_experts : int, optional
        Reading: experts per layer, for files that don't state it.
    gpus_per_node : tuple of int, optional
        Reading: the nodes; gives the number of GPUs, which many files don't state.
    fill_missing : bool
        Writing: give layers that the plan lacks the contiguous layout.
    without_mtp : bool
        The engine runs without multi-token prediction: its layers are neither written nor asked for.
    layer : int, optional
        Writing: the one layer to write, for formats that hold one.
    model_class, mtp_model_class, model_name : str, optional
        Names of the engine's classes for the model and its MTP part, and of the model, for formats that are keyed by
        them.
    """

    model: ModelLayout | None = None
    layer_ids: tuple[int, ...] | None = None
    num_experts: int | None = None
    gpus_per_node: tuple[int, ...] | None = None
    fill_missing: bool = False
    without_mtp: bool = False
    layer: int | None = None
    model_class: str | None = None
    mtp_model_class: str | None = None
    model_name: str | None = None

    @property
    def num_gpus(self) -> int | None:
        """Number of GPUs, where the nodes are known."""
        return None if self.gpus_per_node is None else sum(self.gpus_per_node)

    @property
    def experts(self) -> int | None:
        """Experts per layer as the caller says, or as the model has them."""
        if self.num_experts is None and self.model is not None:
            return self.model.num_experts
        return self.num_experts


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What an engine takes.

    Attributes
    ----------
    layers : {"rows", "ordinals", "keys", "none"}
        How the file names layers: all layers of the model, MoE layers counted from 0, MoE layers by their number in the
        model, or not at all (one map for every layer).
    replicas : bool
        Whether an expert may have several slots.
    distinct : bool
        Whether two replicas of an expert on one GPU are refused.
    empty : bool
        Whether slots may be empty.
    mtp : {"no", "may", "must"}
        Whether the layers for multi-token prediction are part of the file.
    covered : bool
        Whether every MoE layer must be there.
    order : bool
        Whether the file keeps the order of the slots of a GPU; where not, a plan that is read back lists them by
        expert.
    """

    layers: Layers
    replicas: bool = True
    distinct: bool = True
    empty: bool = False
    mtp: Mtp = "no"
    covered: bool = True
    order: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """A placement that is to be checked: nothing about it is certain but the shapes.

    Attributes
    ----------
    slots : (L, S) int64
        Expert of each slot; -1 is empty.
    layer_ids : (L,) int64
        Rising.
    num_experts : int
    num_gpus : int or None
        None where neither file nor caller says it.
    places : tuple of str
        Pointer to each row, for errors.
    notes : tuple of str
        What was assumed.
    plan : Plan or None
        Where it comes from, if it is written.
    """

    slots: npt.NDArray[np.int64]
    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    num_gpus: int | None
    places: tuple[str, ...]
    notes: tuple[str, ...] = ()
    plan: Plan | None = None

    def rows_of_gpus(self, row: int) -> list[list[int]]:
        """Return the experts of each GPU in a layer, in the order of the slots, empty ones left out."""
        gpus = self.slots[row].reshape(self.num_gpus or 1, -1)
        return [[expert for expert in slots if expert >= 0] for slots in gpus.tolist()]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that is ready to be written.

    Attributes
    ----------
    content : bytes
    notes : tuple of str
        What could not be checked, or was added.
    """

    content: bytes
    notes: tuple[str, ...] = ()


def _no_more(table: Table, context: Context, found: Violations) -> None:
    """Check nothing."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """One placement format.

    Attributes
    ----------
    name : str
        As in ``--engine NAME`` and ``--to NAME``.
    content : str
        One line about the format, for lists.
    engine : str
        Engine and version whose reader was looked at.
    usage : str
        How the engine is told to load the file: FILE is its name, REDUNDANT the slots beyond one per expert.
    suffix : str
        Usual ending of the file's name.
    by_suffix : bool
        Whether the engine goes by that ending.
    also_named : tuple of str
        Other names that people give it.
    takes : tuple of str
        Fields of `Context` that only some formats have a use for, and this one has: `layer`, and names of classes.
    rules : Rules
    sniff : callable
        ``sniff(document)``: is this the format of the content?
    encode : callable
        ``encode(table, context)``: the file's content; the table keeps the rules.
    decode : callable
        ``decode(document, context, found)``: the table, or None where violations leave none.
    also : callable
        ``also(table, context, found)``: checks before writing that only this format has.
    """

    name: str
    content: str
    engine: str
    usage: str
    suffix: str
    rules: Rules
    sniff: Callable[[Document], bool]
    encode: Callable[[Table, Context], bytes]
    decode: Callable[[Document, Context, Violations], Table | None]
    also: Callable[[Table, Context, Violations], None] = field(default=_no_more)
    by_suffix: bool = False
    also_named: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    def is_named(self, name: str) -> bool:
        """Whether it goes by this name; case does not matter, and hyphens are as good as underscores."""
        return name.strip().lower().replace("-", "_") in (self.name, *self.also_named)

    def load_with(self, file: str, plan: Plan) -> str:
        """Return how the engine is told to load `file`, written for `plan`."""
        redundant = plan.physical_to_logical_map.shape[1] - plan.num_experts
        return self.usage.replace("REDUNDANT", str(redundant)).replace("FILE", file)

    def write(self, plan: Plan, context: Context | None = None) -> Exported:
        """Return the engine's file for a plan.

        Parameters
        ----------
        plan : Plan
        context : Context, optional

        Raises
        ------
        InputError
            With everything that the engine would reject or misread; nothing is returned then.
        """
        from placement.exports.shared import checks

        given = Context() if context is None else context
        found = Violations()
        checks.check_options(self, given, found, writing=True)
        table = checks.arrange(plan, self, given, found)
        checks.check_table(table, self.rules, found)
        self.also(table, given, found)
        found.raise_if_any()
        return Exported(content=self.encode(table, given), notes=table.notes)

    def check(self, document: Document, context: Context | None = None) -> tuple[Violations, tuple[str, ...]]:
        """Return everything that the engine would reject or misread in a file, and notes on what was not checked."""
        from placement.exports.shared import checks

        given = Context() if context is None else context
        found, table = self._checked(document, given)
        checks.check_options(self, given, found)
        if table is not None and table.plan is not None:
            checks.check_machine(table.plan, given, document.name, found)
        notes = () if table is None else (*table.notes, *checks.layers_lacking(table, self.rules, given))
        if table is not None and table.num_gpus is None:
            notes = (*notes, "The file does not state the number of GPUs: what depends on it was not checked.")
        return found, notes

    def read(self, document: Document, context: Context | None = None) -> Plan:
        """Return the placement in a file as a plan.

        What the engine would not load, but a plan can be, becomes a note: layers of the model that are missing, layers
        for multi-token prediction, two replicas of an expert on one GPU.

        Raises
        ------
        InputError
            If the file breaks another rule of the format, or does not say enough: the number of GPUs, say.
        """
        given = Context() if context is None else context
        found, table = self._checked(document, given)
        borne = [violation for violation in found.found if violation.code in BORNE]
        if table is None or len(borne) < len(found.found):
            found.raise_if_any()
            raise AssertionError("a reader gave neither a table nor a violation")
        if table.plan is not None:
            return table.plan
        notes = [*table.notes, *(f"{self.engine} would not load this: {violation.detail}" for violation in borne)]
        if table.num_gpus is None:
            raise InputError.of(
                "num_gpus_unknown",
                document.name,
                "The file does not state the number of GPUs.",
                "Name the machine with --topology, 4x8 for instance.",
            )
        nodes = given.gpus_per_node or (table.num_gpus,)
        return Plan(
            physical_to_logical_map=table.slots,  # type: ignore[arg-type]  # Plan narrows what it has checked
            layer_ids=table.layer_ids,
            num_experts=table.num_experts,
            num_gpus=table.num_gpus,
            slots_per_gpu=table.slots.shape[1] // table.num_gpus,
            gpus_per_node=nodes,
            provenance={"placement": {"source": document.name, "format": self.name, "notes": notes}},
        )

    def _checked(self, document: Document, context: Context) -> tuple[Violations, Table | None]:
        from placement.exports.shared import checks

        found = Violations()
        try:
            table = self.decode(document, context, found)
        except InputError as error:
            found.extend(error)
            return found, None
        if table is None or found.found:
            return found, table
        own = table.plan is not None  # a plan of ours stands for itself, whatever machine is asked about
        if context.num_gpus is not None and table.num_gpus not in (None, context.num_gpus) and not own:
            detail = f"The file is for {table.num_gpus} GPUs, the topology has {context.num_gpus}."
            found.add("num_gpus_differ", document.name, detail, "Name the machine that the file was made for.")
            return found, table
        if own and context.layer_ids is not None and tuple(context.layer_ids) != tuple(table.layer_ids.tolist()):
            detail = f"The file names its layers, {table.layer_ids[:8].tolist()}, and they are others."
            found.add("layer_ids_differ", document.name, detail, "Leave layer_ids (--layer-ids) out.")
            return found, table
        if context.experts not in (None, table.num_experts):
            detail = f"The file has {table.num_experts} experts per layer, the model {context.experts}."
            found.add("num_experts_differ", document.name, detail, "Check that it is this model's file.")
            return found, table
        if table.num_gpus is None:
            table = replace(table, num_gpus=context.num_gpus)
        checks.check_layers(table, self.rules, context, document.name, found)
        checks.check_table(table, self.rules, found)
        return found, table
