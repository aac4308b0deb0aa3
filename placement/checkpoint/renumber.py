"""A plan applied to a checkpoint: its experts get new numbers, and the model computes the same."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from placement.checkpoint.changes import Change, changes_of, explained
from placement.checkpoint.families import is_proven
from placement.checkpoint.files import Checkpoint, read_checkpoint
from placement.checkpoint.orders import orders_of
from placement.checkpoint.proof import check_same, proof_needs
from placement.checkpoint.rewriting import rewrite
from placement.checkpoint.stack import find_stack
from placement.exports import Context, export_named, load_placement
from placement.plan.plan import Plan
from placement.support.json_files import read_json, write_json
from traces import InputError, ModelLayout, Violation, Violations
from traces.model.config import layout_from_config
from traces.support.atomic import PREFIX
from traces.support.kinds import checked

__all__ = ["Renumbered", "renumber", "write_files"]

ORDER = "expert_order.json"
OF_READERS = re.compile(r"`(model|layer_ids|fill_missing|num_layers|first_moe_layer|num_experts|without_mtp|topology)`")
EXPERT = re.compile(r"experts\\*[._]\\*\d")


@dataclass(frozen=True, kw_only=True)
class Renumbered:
    """What was written.

    Attributes
    ----------
    folder : Path
    layers : int
        MoE layers with a new order.
    num_experts : int
    renamed, moved : int
        Tensors that have another name, and tensors whose content was put into another order.
    difference : float or None
        Largest difference of the logits before and after, over the largest logit; None without a proof.
    notes : tuple of str
        What was left out, or left as it is.
    """

    folder: Path
    layers: int
    num_experts: int
    renamed: int
    moved: int
    difference: float | None
    notes: tuple[str, ...]


@checked
def renumber(
    plan: Plan | str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    prove: bool = False,
    format: str | None = None,  # noqa: A002  the word that users expect
) -> Renumbered:
    """Write a checkpoint whose experts are numbered by the slots of a plan, and that computes the same.

    Router rows, selection biases, listed and stacked experts, their biases and scales, and tables from tokens to
    experts move together. Tensors are streamed: no tensor is ever whole in memory.

    Parameters
    ----------
    plan : Plan or path
        Without redundant experts. A path may name a placement file of any format.
    checkpoint : path
        Folder with ``config.json`` and safetensors files, as transformers' `save_pretrained` writes it.
    out : path
        Folder to write; it must not exist. Its ``expert_order.json`` says which expert each new number was.
    prove : bool
        Run both models on random tokens, with transformers on the CPU in float32, and refuse if their logits differ by
        more than 1e-5 of the largest. Needed for model types that this version was not tried on.
    format : str, optional
        Format of the placement file that `plan` names; by content by default.

    Returns
    -------
    Renumbered

    Raises
    ------
    InputError
        With every violation: replicas or empty slots, layers that are not the model's, pickled weights, tensors of the
        MoE layers that no rule explains, an order that mixes groups of experts that the router limits tokens to, a
        folder that exists. Nothing is written then.
    """
    source, target = Path(checkpoint), Path(out)
    found = Violations()
    _check_target(source, target, found)
    try:
        files = read_checkpoint(source)
        layout = layout_from_config(files.config, f"{source / 'config.json'}#")
        if isinstance(plan, Plan) and format is not None:
            found.add("option_unused", "/format", "A Plan has no format: it is for paths.", "Leave `format` out.")
        plan = plan if isinstance(plan, Plan) else _loaded(plan, layout, format)
    except InputError as error:
        found.extend(error)
        raise found.error() from None
    changes, notes = _changes(plan, files, layout, found)
    _check_family(files, layout, prove=prove, found=found)
    found.raise_if_any()
    with _folder(target) as written:
        write_files(files, written, changes)
        content = export_named("megatron").write(plan, Context(model=layout)).content
        (written / ORDER).write_bytes(content)
        difference = check_same(source, written, files.config) if prove else None
    return Renumbered(
        folder=target,
        layers=plan.num_layers,
        num_experts=plan.num_experts,
        renamed=sum(change.name != name for name, change in changes.items()),
        moved=sum(change.order is not None or change.numbers is not None for change in changes.values()),
        difference=difference,
        notes=notes,
    )


def _loaded(path: str | Path, layout: ModelLayout, form: str | None) -> Plan:
    """Read a placement; where it does not state the number of GPUs, that is no matter here."""
    known: dict[str, Any] = {}
    while True:
        try:
            return load_placement(path, Context(model=layout, **known), format=form)
        except InputError as error:
            if error.violations[0].code != "num_gpus_unknown" or known:
                raise InputError(tuple(map(_of_checkpoint, error.violations))) from None
            known = {"gpus_per_node": (1,)}


def _of_checkpoint(violation: Violation) -> Violation:
    """Return a violation of a placement file without parameters that say another model: it is the checkpoint's."""
    if not OF_READERS.search(violation.remedy):
        return violation
    remedy = "Check that the plan is for this checkpoint: its config.json says which layers have experts, and how many."
    return replace(violation, remedy=remedy)


def _check_target(source: Path, target: Path, found: Violations) -> None:
    if target.exists() or target.is_symlink():
        found.add("output_exists", str(target), "The output is there already.", "Name a folder that does not exist.")
    elif not target.parent.is_dir():
        detail = f"There is no folder {target.parent}."
        found.add("cannot_write", str(target), detail, "Make it, or name another one.")
    elif source.is_dir():
        size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        free = shutil.disk_usage(target.parent).free
        if free < size:
            detail = f"The disk has {free >> 20} MiB left, and the checkpoint needs {size >> 20} MiB."
            found.add("no_room", str(target), detail, "Name a folder on another disk.")


def _changes(
    plan: Plan, files: Checkpoint, layout: ModelLayout, found: Violations
) -> tuple[dict[str, Change], tuple[str, ...]]:
    """Return what happens to each tensor, and notes; violations are recorded."""
    _check_config(files.config, str(files.folder / "config.json") + "#", found)
    stack = find_stack(files, layout, found)
    if stack is None:
        return {}, ()
    orders = orders_of(plan, layout, stack.layers, found)
    roles = explained(files, stack, layout, plan.num_experts, found)
    if found.found:
        return {}, ()
    notes = [*layout.notes]
    if left := sorted(set(stack.layers) - set(orders)):
        notes.append(f"Layers {left[:8]} are for multi-token prediction and not in the plan; they stay as they are.")
    if stack.others:
        notes.append(f"Experts of {', '.join(stack.others)} stay as they are: the plan is for the language model.")
    if files.left:
        notes.append(f"Not copied, as they may hold weights by the old numbers: {', '.join(files.left[:8])}.")
    if any(path.name == ORDER for path in files.beside):
        notes.append(
            "The checkpoint was renumbered before: the plan must come from a recording of it, not of the first."
        )
    return changes_of(roles, orders), tuple(notes)


def _check_config(content: Any, place: str, found: Violations) -> None:
    """Record texts that name single experts, such as modules that are not quantised."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            _check_config(value, f"{place}/{key}", found)
            if isinstance(key, str) and EXPERT.search(key):
                _check_config(key, f"{place}/{key}", found)
    elif isinstance(content, str) and EXPERT.search(content):
        detail = f"{content!r:.100} names a single expert, by its old number."
        found.add("expert_named", place, detail, "Name modules of all experts alike, or none.")


def _check_family(files: Checkpoint, layout: ModelLayout, *, prove: bool, found: Violations) -> None:
    place = str(files.folder / "config.json")
    if prove:
        try:
            proof_needs(files.config, place)
        except InputError as error:
            found.extend(error)
    elif not is_proven(layout.name):
        kind = f"checkpoints of model type {layout.name!r:.60}" if layout.name else "a config without model_type"
        detail = f"This version was not tried on {kind}."
        remedy = (
            "Ask for a proof (`prove`): the model is run before and after, and refused if it computes something else."
        )
        found.add("model_type_not_tried", f"{place}#/model_type", detail, remedy)


@contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside the target that takes its name when the block ends without an error."""
    try:
        written = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target.parent))
        try:
            yield written
            written.chmod(0o755)
            written.rename(target)
        except BaseException:
            shutil.rmtree(written, ignore_errors=True)
            raise
    except OSError as error:
        detail = f"The output can't be written: {error.strerror or error}."
        raise InputError.of(
            "cannot_write", str(target), detail, "Choose a folder that is writable and has room."
        ) from error


def write_files(files: Checkpoint, folder: Path, changes: dict[str, Change]) -> None:
    """Write a checkpoint's files with changes into an empty folder."""
    for shard in files.shards:
        rewrite(shard, folder / shard.path.name, changes)
    if files.index is not None:
        content = read_json(files.index)
        parts = content["weight_map"].items()
        content["weight_map"] = {changes[name].name if name in changes else name: file for name, file in parts}
        write_json(content, folder / files.index.name)
    for path in files.beside:
        shutil.copyfile(path, folder / path.name)
    again = read_checkpoint(folder)  # the library's check of every header, and of the index
    assert {name for shard in again.shards for name in shard.tensors} == {
        changes[name].name if name in changes else name for shard in files.shards for name in shard.tensors
    }
