"""Whether a plan was made for the way that tokens travel in an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from placement.engines.engine import Engine
from placement.engines.registry import ENGINES
from traces.support.errors import InputError

__all__ = ["check_travel", "engine_of_export"]

WAYS = {
    "context_coherent": "go straight from one layer's experts to the next (context-coherent, ExFlow)",
    "dispatch": "go home after every layer (dispatch and combine)",
}


def engine_of_export(name: str) -> Engine | None:
    """Return the engine that loads a placement format; None for formats of no engine, such as ``csv``.

    Parameters
    ----------
    name : str
        Name of a format in `placement.exports`. Formats that differ by a release or a pull request, such as
        ``vllm_pr49572``, begin with the engine's name.
    """
    own = ENGINES.get(name.replace("_", "-"))  # several engines may load one format
    exact = own or next((engine for engine in ENGINES.values() if engine.export == name), None)
    if exact is not None:
        return exact
    begun = [engine for engine in ENGINES.values() if name.startswith(f"{engine.name.replace('-', '_')}_")]
    return max(begun, key=lambda engine: len(engine.name), default=None)


def check_travel(provenance: Mapping[str, Any], engine: Engine) -> None:
    """Check that a plan was made for the way that tokens travel in an engine.

    Parameters
    ----------
    provenance : mapping
        The plan's. One that records no objective, such as a plan made by hand, fits every engine.
    engine : Engine

    Raises
    ------
    InputError
        If it was made for the other way (code ``engine_travels_otherwise``): what it saves there is not saved here, and
        it can be worse than no plan.
    """
    objective = provenance.get("objective")
    made_for = objective.get("execution") if isinstance(objective, Mapping) else None
    if made_for not in WAYS or made_for == engine.execution:
        return
    detail = f"The plan was made for tokens that {WAYS[made_for]}; those of {engine.title} {WAYS[engine.execution]}."
    remedy = f"Solve with engine '{engine.name}', or write it all the same with `force`."
    raise InputError.of("engine_travels_otherwise", "/engine", detail, remedy)
