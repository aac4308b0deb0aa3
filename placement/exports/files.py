"""Placement files by name and by content: read as plans, written from plans, converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from placement.engines.fit import check_travel, engine_of_export
from placement.engines.registry import ENGINES
from placement.exports.context import Context
from placement.exports.export import Export, Exported
from placement.exports.registry import EXPORTS
from placement.exports.shared.document import Document
from placement.plan.plan import Plan
from traces import InputError, ModelLayout
from traces.model.presets import layout_of
from traces.support.atomic import atomic_write
from traces.support.kinds import check_names, checked
from traces.support.text_marks import refuse_marks

__all__ = [
    "check_suffix",
    "convert_placement",
    "export_named",
    "export_plan",
    "load_placement",
    "recognise",
    "recognised",
]


@checked
def export_named(name: str) -> Export:
    """Return the format of this name, or the one that an engine of this name loads.

    Raises
    ------
    InputError
        If there is none.
    """
    found = next((export for export in EXPORTS if export.is_named(name)), None)
    if found is not None:
        return found
    engine = next((engine for engine in ENGINES.values() if engine.named(name.partition(":")[0])), None)
    if engine is not None and engine.export is not None:
        return next(export for export in EXPORTS if export.name == engine.export)
    names = ", ".join(export.name for export in EXPORTS)
    raise InputError.of("unknown_format", "/format", f"There is no placement format {name!r:.60}.", f"Use {names}.")


def recognise(document: Document) -> Export | None:
    """Return the format of a file by its content; None if it is no known placement file."""
    return next((export for export in EXPORTS if export.sniff(document)), None)


def recognised(document: Document) -> Export:
    """Return the format of a file by its content.

    Raises
    ------
    InputError
        If it is no known placement file; with the list of formats.
    """
    refuse_marks(document.data[:4], document.name)
    export = recognise(document)
    if export is not None:
        return export
    refuse_marks(document.data[:4], document.name, utf8=True)
    if document.start.startswith((b"{", b"[")):
        document.json  # noqa: B018  says what is wrong with it, if it is that
    names = "; ".join(f"{export.name} ({export.content})" for export in EXPORTS)
    detail = "The content is no known placement format."
    raise InputError.of("unknown_format", document.name, detail, f"Formats: {names}.")


@checked
def load_placement(path: str | Path, context: Context | None = None, *, format: str | None = None) -> Plan:  # noqa: A002  the word that users expect
    """Read a placement file of any format as a plan.

    Parameters
    ----------
    path : path
        A regular file of at most 256 MiB.
    context : Context, optional
        What the file does not say: the model's layers, the nodes.
    format : str, optional
        Name of a format. By default, the one that recognises the content.

    Returns
    -------
    Plan
        Its provenance says which file and format it comes from, and what was assumed. A plan file is read as it is.

    Raises
    ------
    InputError
    """
    document = Document.of(path)
    export = recognised(document) if format is None else export_named(format)
    return export.read(document, context)


@checked
def convert_placement(
    path: str | Path,
    to: str,
    context: Context | None = None,
    *,
    format: str | None = None,  # noqa: A002  the word that users expect
) -> tuple[Plan, Exported]:
    """Read a placement file of any format, and write it as another.

    Parameters
    ----------
    path : path
    to : str
        Name of the format to write.
    context : Context, optional
    format : str, optional
        Name of the file's format. By default, the one that recognises the content.

    Returns
    -------
    plan : Plan
        What was read.
    exported : Exported
        The content to write, with the notes on both.

    Raises
    ------
    InputError
        If either format refuses it; or if they count layers differently and nobody says which layers the rows are: what
        is a mere note where a plan is only looked at would put every layer in the wrong place.
    """
    target, given = export_named(to), Context() if context is None else context
    document = Document.of(path)
    source = recognised(document) if format is None else export_named(format)
    known = given.model is not None or given.layer_ids is not None or source.rules.layers == "keys"
    if not known and source.rules.layers != target.rules.layers:
        detail = f"{source.name} and {target.name} count layers differently, and nobody says which layers have experts."
        raise InputError.of("layers_unknown", document.name, detail, "Give `model` or `layer_ids`.")
    plan = source.read(document, given)
    read_from = plan.provenance.get("placement")
    notes = read_from.get("notes", ()) if isinstance(read_from, dict) else ()
    # Names that choose a part of what is read say nothing about what is written.
    unused: dict[str, Any] = dict.fromkeys(set(source.takes) - set(target.takes))
    exported = target.write(plan, replace(given, **unused))
    return plan, Exported(content=exported.content, notes=(*notes, *exported.notes))


@checked
def export_plan(
    plan: Plan,
    to: str,
    path: str | Path,
    *,
    model: str | Path | ModelLayout | None = None,
    force: bool = False,
    **known: Any,
) -> tuple[str, ...]:
    """Write the file that an engine loads.

    Parameters
    ----------
    plan : Plan
    to : str
        An engine (``"sglang"``), or a placement format (``"csv"``).
    path : path
    model : path or ModelLayout, optional
        The model's ``config.json``, or its layers. Engines that want every layer need it.
    force : bool
        Write it even for an engine where tokens travel otherwise than the plan was made for.
    **known
        Other fields of `Context`, such as `fill_missing`.

    Returns
    -------
    tuple of str
        Notes on what could not be checked, or was added.

    Raises
    ------
    InputError
        With everything that the engine would reject or misread; nothing is written then.
    """
    check_names(known, [name for name in Context.__dataclass_fields__ if name != "model"], "an export")
    form, target = export_named(to), Path(path)
    check_suffix(form, target)
    engine = engine_of_export(form.name)
    if engine is not None and not force:
        check_travel(plan.provenance, engine)
    layers = model if isinstance(model, ModelLayout) or model is None else layout_of(model)
    exported = form.write(plan, Context(model=layers, **known))
    with atomic_write(target) as file:
        file.write(exported.content)
    return exported.notes


def check_suffix(form: Export, path: Path) -> None:
    """Refuse a name that the engine would take for another kind of file.

    Raises
    ------
    InputError
    """
    if form.by_suffix and not path.name.endswith(form.suffix):
        detail = f"{form.engine} goes by the file's name, which has to end in {form.suffix}."
        raise InputError.of("output_suffix", str(path), detail, f"Name it {path.name}{form.suffix}.")
