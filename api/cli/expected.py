"""``evaluate`` and ``compare`` on counts: the loads that plans are expected to have, in all and at each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.console import print_json, say, write

if TYPE_CHECKING:
    from api.cli.declared import Asked
    from api.cli.replaying import Replays

__all__ = ["tell_expected"]


def tell_expected(
    replays: Replays, names: Mapping[str, Path], asked: Asked, trace: Path, part: str, as_json: bool
) -> None:
    """Print what plans make of counts.

    Parameters
    ----------
    replays : Replays
        Of counts.
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
    from api.cli.replaying import CHOICES
    from api.report.summary import expected_text
    from solvers.judging.counted import refuse_token_options

    given = {f"/objective/{name}": asked.get("objective", name) for name in (*CHOICES, "decode_batch")}
    refuse_token_options(given | {"/pass_tokens": asked.get("pass_tokens")})
    assert replays.expected is not None
    policy = asked.get("objective", "replica_policy")
    found, documents = {}, []
    for (name, file), (plan, where) in zip(names.items(), replays.plans, strict=True):
        found[name] = replays.expected(file, plan, where, policy)
        own: dict[str, Any] = {"plan": str(file), "topology": where.name}
        documents.append(own | found[name].as_dict())
    for note in replays.notes:
        say(note, "note")
    if as_json:
        print_json(
            {"kind": "counts", "trace": str(trace), "part": part, "notes": list(replays.notes), "plans": documents}
        )
        return
    write(
        expected_text(
            {name: figures.loads for name, figures in found.items()},
            {name: figures.dumps for name, figures in found.items()},
        )
    )
