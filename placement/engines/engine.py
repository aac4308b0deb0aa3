"""What an engine is: how tokens travel, which replica they use, what file is loaded, and where its code says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from placement.engines.words import Dedup, Execution, Ownership, ReplicaPolicy

__all__ = ["Engine", "EngineChoice", "Layout"]

Layout = Literal["contiguous", "modulo", "overlapping"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One serving engine, as its code of one version has it.

    Every engine here gives all ranks the same number of slots: experts and redundant experts together must be divisible
    by the ranks.

    Attributes
    ----------
    name : str
        As people write it: lower case, hyphens.
    title : str
        As the engine writes it.
    version : str
        Whose code was read: a release, or a commit of the main branch.
    page : str
        Its page, ``docs/engines/PAGE.md``.
    execution : {"context_coherent", "dispatch"}
        How tokens travel: straight from layer to layer, or home after each.
    dedup : {"none", "gpu", "node"} or None
        Messages of a dispatch with `backend`. None where tokens don't go home.
    ownership : {"token", "sequence"} or None
        Whether the home rank belongs to a token or to its sequence. None where tokens don't go home.
    backend : str
        The engine's setting that `dedup` and `algorithms` stand for, as the engine spells it; empty where there is one
        way only.
    backends : mapping of str to {"none", "gpu", "node"} or None
        Messages of the engine's other settings. None: every rank gets every token (all-gather), so that a plan changes
        loads, and no traffic.
    algorithms : mapping of str to {"fair", "same_gpu", "same_node"}
        How the engine chooses between the replicas of an expert, by its own names, as the replica policy that comes
        closest; the first is its default. Where the engine has no name for its only way, the name says what it does.
        Empty: the engine has no redundant experts.
    full_slots : bool
        Whether every slot must hold an expert.
    default_layout : {"contiguous", "modulo", "overlapping"}
        Where experts are when nobody plans: see `default_slots`.
    export : str or None
        The placement format that it loads, a name in `placement.exports`.
    also_named : tuple of str
        Other spellings that are understood.
    sources : mapping of str to str
        Where the engine's code has it: "file: function", for each of the fields above that states a default.
    notes : tuple of str
        What the fields can't say, a sentence each: where a default is an approximation, or depends on a setting.
    """

    name: str
    title: str
    version: str
    page: str
    execution: Execution
    dedup: Dedup | None
    ownership: Ownership | None
    backend: str = ""
    backends: Mapping[str, Dedup | None] = field(default_factory=dict)
    algorithms: Mapping[str, ReplicaPolicy] = field(default_factory=dict)
    full_slots: bool = True
    default_layout: Layout
    export: str | None
    also_named: tuple[str, ...] = ()
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def has_replicas(self) -> bool:
        """Whether an expert may be in several slots of a layer."""
        return bool(self.algorithms)

    @property
    def trace_formats(self) -> tuple[str, ...]:
        """Trace formats that only this engine writes: the readers in `traces` that say so."""
        from traces.formats.registry import READERS  # loads NumPy, which declarations do without

        return tuple(reader.name for reader in READERS if reader.engine == self.name)

    def named(self, name: str) -> bool:
        """Whether it goes by this name; case does not matter, and underscores are as good as hyphens."""
        return name.strip().lower().replace("_", "-") in (self.name, *self.also_named)


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """An engine with one of its dispatch algorithms, as in ``sglang:static``.

    Attributes
    ----------
    engine : Engine
    algorithm : str or None
        None where the engine has no redundant experts.
    """

    engine: Engine
    algorithm: str | None

    def __str__(self) -> str:
        return self.engine.name if self.algorithm is None else f"{self.engine.name}:{self.algorithm}"

    @property
    def replica_policy(self) -> ReplicaPolicy | None:
        """Which replica of an expert a token uses; None where the engine has no redundant experts."""
        return None if self.algorithm is None else self.engine.algorithms[self.algorithm]
