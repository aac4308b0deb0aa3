"""``evaluate`` and ``compare`` on counts: the loads that plans are expected to have, in all and at each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, write

if TYPE_CHECKING:
    from api.cli.declared import Asked
    from api.cli.replaying import Replays
    from traces import LoadCounts

__all__ = ["tell_expected"]

NEED_TOKENS = ("execution", "dedup", "ownership", "decode_batch")


def tell_expected(
    replays: Replays, counts: LoadCounts, names: Mapping[str, Path], asked: Asked, trace: Path, part: str, as_json: bool
) -> None:
    """Print what plans make of counts.

    Parameters
    ----------
    replays : Replays
    counts : LoadCounts
    names : mapping of str to path
        The plans' files by name, in the order of `replays.plans`.
    asked : Asked
        The command's options.
    trace : path
    part : str
    as_json : bool

    Raises
    ------
    InputError
        If an option that is given needs tokens, or a plan is of another model.
    """
    from api.report.summary import expected_text
    from placement import expected_loads
    from solvers.counted import DumpFigures, dump_loads
    from traces import Violations

    found = Violations()
    for name in NEED_TOKENS:
        if asked.get("objective", name) is not None:
            detail = "These are counts, whose expected loads don't depend on it."
            found.add("without_effect", f"/objective/{name}", detail, "Leave it out, or give a trace with tokens.")
    found.raise_if_any()
    whole, dumps, documents = {}, {}, []
    for (name, file), (plan, where) in zip(names.items(), replays.plans, strict=True):
        policy = replays.objective(plan, asked).replica_policy
        whole[name] = expected_loads(plan, counts, where, replica_policy=policy)
        dumps[name] = [
            DumpFigures(name=dump.name, part=part, loads=loads)
            for dump, loads in dump_loads(plan, counts, where, policy)
        ]
        listed = [{"name": dump.name} | dump.loads.as_dict() for dump in dumps[name]]
        own: dict[str, Any] = {"plan": str(file), "topology": where.name, "replica_policy": policy}
        documents.append(own | whole[name].as_dict() | {"dumps": listed})
    for note in replays.notes:
        say(note, "note")
    if as_json:
        print_json(
            {"kind": "counts", "trace": str(trace), "part": part, "notes": list(replays.notes), "plans": documents}
        )
        return
    write(expected_text(whole, dumps))
