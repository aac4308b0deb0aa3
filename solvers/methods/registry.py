"""The solvers by name. A solver is frozen parameters plus ``run(problem, search)``."""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any, ClassVar, Protocol, get_type_hints, runtime_checkable

from placement import Problem
from solvers.searching.search import Search
from traces import InputError, Violations

__all__ = ["Solver", "names", "parameters_of", "solver_class", "solver_from"]

MAX_FLOAT = sys.float_info.max  # neither infinity nor NaN is below, nor an integer that no float can hold

# Name -> module and class. Modules load on first use, as the libraries behind some of them are slow to import.
REGISTRY: dict[str, tuple[str, str]] = {
    "auto": ("solvers.methods.auto", "Auto"),
    "contiguous": ("solvers.methods.baselines", "Contiguous"),
    "round_robin": ("solvers.methods.baselines", "RoundRobin"),
    "random": ("solvers.methods.baselines", "Random"),
    "eplb": ("solvers.methods.eplb.solver", "Eplb"),
    "lazarus": ("solvers.methods.lazarus", "Lazarus"),
    "load_balance": ("solvers.methods.load_balance.solver", "LoadBalance"),
    "load_search": ("solvers.methods.load_search.solver", "LoadSearch"),
    "assignment": ("solvers.methods.assignment.solver", "Assignment"),
    "annealing": ("solvers.methods.annealing.solver", "Annealing"),
    "chain_dp": ("solvers.methods.chain_dp.solver", "ChainDp"),
    "set_partition": ("solvers.methods.set_partition.solver", "SetPartition"),
    "exflow": ("solvers.methods.exflow.solver", "Exflow"),
    "grace": ("solvers.methods.grace.solver", "Grace"),
    "moetuner": ("solvers.methods.moetuner.solver", "MoeTuner"),
    "topology_load": ("solvers.methods.topology_load", "TopologyLoad"),
    "cp_sat": ("solvers.methods.cp_sat.solver", "CpSat"),
    "mtkahypar": ("solvers.methods.mtkahypar", "MtKaHyPar"),
}


@runtime_checkable
class Solver(Protocol):
    """The interface of every method: a frozen dataclass of parameters.

    Attributes
    ----------
    name : str
        Key in the registry.
    summary : str
        One sentence: what it does and where it comes from.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def supports(self, problem: Problem) -> str | None:
        """Return why the solver can't take the problem, as a sentence; None if it can."""

    def run(self, problem: Problem, search: Search) -> None:
        """Offer plans to `search` until done."""


def names() -> tuple[str, ...]:
    """Return the names of all solvers, `auto` first."""
    return tuple(REGISTRY)


def solver_class(name: str) -> type[Any]:
    """Return the class of a solver.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, REGISTRY, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Choose one of {list(REGISTRY)}."
        raise InputError.of("unknown_solver", "/solver", f"There is no solver {name!r}.", hint)
    module, attribute = REGISTRY[name]
    loaded: type[Any] = getattr(import_module(module), attribute)
    return loaded


def solver_from(name: str, options: Mapping[str, Any] | None = None) -> Solver:
    """Build a solver from its name and options, refusing unknown options and wrong types."""
    kind = solver_class(name)
    known = {item.name: hint for item, hint in ((item, get_type_hints(kind)[item.name]) for item in fields(kind))}
    found = Violations()
    for option, value in (options or {}).items():
        if option not in known:
            detail = f"{name} has no option {option!r}."
            found.add("unknown_option", f"/options/{option}", detail, f"Its options are {sorted(known)}.")
        elif not _fits(value, known[option]):
            detail = f"{reprlib.repr(value)} does not fit."
            found.add("option_type", f"/options/{option}", detail, f"Give {_words(known[option])}.")
    found.raise_if_any()
    solver: Solver = kind(**(options or {}))
    return solver


def parameters_of(solver: Solver) -> dict[str, Any]:
    """Return a solver's parameters as a JSON-ready dictionary."""
    return asdict(solver)  # type: ignore[call-overload, no-any-return]  # a protocol can't ask for a dataclass


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits a parameter's annotation (int, float, str, bool, None, Literal and unions of them)."""
    from types import NoneType, UnionType
    from typing import Literal, Union, get_args, get_origin

    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is None or hint is NoneType:
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_FLOAT
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """Say what fits a parameter's annotation."""
    from types import NoneType, UnionType
    from typing import Literal, Union, get_args, get_origin

    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in get_args(hint))
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    names = {int: "an integer", float: "a finite number", bool: "true or false", str: "a text", NoneType: "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
