"""What a placement format is: rules that the engine has, a way to write a table of slots, and a way to read one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from placement.exports.context import TAKERS, Context
from placement.exports.shared import checks
from placement.exports.shared.document import Document
from placement.exports.table import Rules, Table
from placement.plan.plan import Plan
from traces import InputError, Violations

__all__ = ["Export", "Exported"]

BORNE = ("layer_missing", "mtp_not_loaded", "replicas_on_one_gpu")


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


def _no_notes(context: Context) -> tuple[str, ...]:
    """Have nothing to tell."""
    return ()


def _no_more(table: Table, context: Context, found: Violations) -> None:
    """Check nothing."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """One placement format.

    Attributes
    ----------
    name : str
        As people write it, underscores for hyphens.
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
    rules : Rules
    sniff : callable
        ``sniff(document)``: is this the format of the content?
    encode : callable
        ``encode(table, context)``: the file's content; the table keeps the rules.
    decode : callable
        ``decode(document, context, found)``: the table, or None where violations leave none.
    also : callable
        ``also(table, context, found)``: checks before writing that only this format has.
    warn : callable
        ``warn(context)``: what the engine will do with a right file that its user should know.
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
    warn: Callable[[Context], tuple[str, ...]] = field(default=_no_notes)
    by_suffix: bool = False
    also_named: tuple[str, ...] = ()

    @property
    def takes(self) -> tuple[str, ...]:
        """Fields of `Context` that only some formats have a use for, and this one has."""
        return tuple(name for name, formats in TAKERS.items() if self.name in formats)

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
        given = Context() if context is None else context
        found = Violations()
        checks.check_options(self.name, self.rules, given, found, writing=True)
        table = checks.arrange(plan, self.rules, given, found)
        checks.check_table(table, self.rules, found)
        self.also(table, given, found)
        found.raise_if_any()
        return Exported(content=self.encode(table, given), notes=(*self.warn(given), *table.notes))

    def check(self, document: Document, context: Context | None = None) -> tuple[Violations, tuple[str, ...]]:
        """Return everything that the engine would reject or misread in a file, and notes on what was not checked."""
        given = Context() if context is None else context
        found, table = self._checked(document, given)
        checks.check_options(self.name, self.rules, given, found)
        if table is not None and table.plan is not None:
            checks.check_machine(table.plan, given, document.name, found)
        notes = (
            () if table is None else (*self.warn(given), *table.notes, *checks.layers_lacking(table, self.rules, given))
        )
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
        if table is None or len(borne) < found.count:
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
                "Name the machine: give `topology` (gpus_per_node), 4x8 for instance.",
            )
        return Plan.of(
            table.slots,
            layer_ids=table.layer_ids,
            num_experts=table.num_experts,
            gpus_per_node=given.gpus_per_node or (table.num_gpus,),
            provenance={"placement": {"source": document.name, "format": self.name, "notes": notes}},
        )

    def _checked(self, document: Document, context: Context) -> tuple[Violations, Table | None]:
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
            found.add("layer_ids_differ", document.name, detail, "Leave `layer_ids` out.")
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
