"""Sufficient statistics of a trace: all that placement needs, in one pass and memory that does not grow with tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from traces.counts import LoadCounts
from traces.profile.checks import Counts, check_load, check_matrices, counts_only
from traces.profile.later import LARGE_BYTES, Later, Pairs, size_of_pairs
from traces.profile.merging import merged
from traces.profile.sample import TokenSample
from traces.profile.saved import read_profile, reading, write_profile
from traces.profile.sources import ProfileSource
from traces.profile.windows import WindowedLoad
from traces.rules import check_layout
from traces.support.content import ByContent
from traces.support.errors import InputError, Violations
from traces.support.frames import frame
from traces.support.kinds import checked
from traces.support.shown import Facts, Shown, runs
from traces.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Profile"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Profile(Shown, ByContent):
    """Mergeable statistics of one or more traces of the same model.

    Memory: ``8 E^2 (2 L - 1)`` bytes for the matrices, ``8 L E`` per window (at most 128 windows, 256 while counting)
    and bucket of sequences (64), and ``2 L K`` per sampled token (at most 32,768): 0.1 GB for 58 x 256 top-8, whatever
    the length of the trace.

    Attributes
    ----------
    layer_ids : (L,) int64
    num_experts, top_k : int
        E and K.
    tokens : int
        Tokens that were counted; 0 if only loads are known.
    load : (L, E) float64
        Tokens per layer and expert; a layer's sum lies between 1e-100 and 1e100.
    affinity : (L-1, E, E) int64 or None
        ``affinity[l, i, j]``: pairs (token, i in its top-k of layer l, j in its top-k of layer l+1). None for counts.
    coactivation : (L, E, E) int64 or None
        Tokens that use i and j in the same layer; the diagonal is the load.
    distant : dict of int to (L-d, E, E) int64
        As `affinity`, for the layer distances d > 1 that were asked for.
    windows : WindowedLoad or None
    source_load : (R, L, E) int64 or None
        Tokens of source rank r that use expert e; present where the trace names source ranks.
    sequence_load : (64, L, E) int64 or None
        As `load`, of the sequences whose hashed `seq_id` falls into each of 64 buckets; whole sequences stay together.
        Present where the trace names sequences.
    sample : TokenSample or None
        Whole tokens, for costs that pairs can't express (fan-out).
    sources : tuple of ProfileSource
        Sorted by digest.
    """

    MADE_BY: ClassVar = "Use traces.Profile.of(trace)."

    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    top_k: int
    tokens: int
    load: npt.NDArray[np.float64]
    affinity: Pairs = Pairs()  # noqa: RUF009  # no default: a descriptor, which counts when it is read
    coactivation: Pairs = Pairs()  # noqa: RUF009
    distant: dict[int, Counts]
    windows: WindowedLoad | None
    source_load: Counts | None
    sample: TokenSample | None
    sources: tuple[ProfileSource, ...]
    sequence_load: Counts | None = None

    def __post_init__(self) -> None:
        found = Violations()
        counts = {name: getattr(self, name) for name in ("distant", "source_load", "sequence_load")}
        counts |= {name: None if self.pairs_later else getattr(self, name) for name in ("affinity", "coactivation")}
        check_layout(found, self.layer_ids, self.num_experts, self.top_k)
        check_load(found, self.load, self.layer_ids, self.num_experts)
        check_matrices(found, self.num_layers, self.num_experts, **counts)
        found.raise_if_any()
        distant = counts.pop("distant")
        for array in (self.layer_ids, self.load, *counts.values(), *distant.values()):
            if array is not None:
                array.flags.writeable = False

    def _shown(self) -> tuple[str, Facts]:
        hottest = self.load.max(axis=1) / self.load.mean(axis=1)
        worst = int(hottest.argmax())
        known = ["affinity and coactivation, when they are asked for"] if self.pairs_later else []
        named = ("source_load",) if known else ("affinity", "coactivation", "source_load")
        known += [name for name in named if getattr(self, name) is not None]
        known += [f"pairs at distance {runs(sorted(self.distant))}"] if self.distant else []
        load = f"hottest expert {hottest[worst]:.2f} times the mean of its layer ({self.layer_ids[worst]})"
        sources = [f"{item.source} ({item.format}, {item.tokens:,} tokens)" for item in self.sources]
        title = f"{self.num_layers} MoE layers ({runs(self.layer_ids.tolist())}), {self.num_experts} experts"
        of = f"{self.tokens:,} tokens, {title}, top-{self.top_k}" if self.tokens else f"loads, {title}"
        windows = "none" if self.windows is None else f"{len(self.windows)} of {self.windows.window_tokens:,} tokens"
        return f"Profile of {of}", [
            ("load", load),
            ("counts", ", ".join(known) or "loads only"),
            ("windows", windows),
            ("sample", "none" if self.sample is None else f"{len(self.sample):,} tokens"),
            ("engine", self.engine or "not known from the format"),
            *(("source", text) for text in sources[:3]),
            *([("source", f"{len(sources) - 3} more")] if len(sources) > 3 else []),
        ]

    @property
    def num_layers(self) -> int:
        """Number of MoE layers, L."""
        return len(self.layer_ids)

    @property
    def pairs_later(self) -> bool:
        """Whether `affinity` and `coactivation` are still to be counted: when they are first read, by another pass."""
        return isinstance(self.__dict__["affinity"], Later)

    def __getstate__(self) -> dict[str, Any]:
        return self._values()  # with the matrices: whoever gets it may not have the trace

    @property
    def engine(self) -> str | None:
        """The serving engine whose format all sources were read from, or None where they don't agree on one."""
        engines = {item.engine for item in self.sources}
        return engines.pop() if len(engines) == 1 else None

    @property
    def conditional(self) -> npt.NDArray[np.float64]:
        """``P[l, i, j]``: probability of expert j in layer l+1 given i in l, (L-1, E, E); 0 for unused experts i."""
        if self.affinity is None:
            raise counts_only("Conditional affinity")
        total = self.affinity.sum(axis=2, keepdims=True)
        shares: npt.NDArray[np.float64] = np.zeros(self.affinity.shape)
        np.divide(self.affinity, total, out=shares, where=total > 0)
        return shares

    @property
    def digest(self) -> str:
        """Digest of the trace, or of the sorted list of traces, behind the profile."""
        if len(self.sources) == 1:
            return self.sources[0].digest
        import hashlib

        joined = "\n".join(f"{item.digest} {item.tokens}" for item in self.sources)
        return f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}"

    @classmethod
    @checked
    def of(
        cls,
        trace: Trace | LoadCounts,
        *,
        workers: int | None = None,
        distances: tuple[int, ...] = (1,),
        window_tokens: int = 512,
        sample_tokens: int = 32_768,
        pairs_later: bool = False,
    ) -> Profile:
        """Count a trace in one pass.

        Parameters
        ----------
        trace : Trace or LoadCounts
            Counts give a profile with loads only.
        workers : int, optional
            Threads; all available cores by default. The result does not depend on it.
        distances : tuple of int
            Layer distances to count; 1 is always counted. Counts have none.
        window_tokens : int
            Smallest width of a load window.
        sample_tokens : int
            Tokens to keep whole; 0 for none.
        pairs_later : bool
            Leave `affinity` and `coactivation` to a second pass, when they are first read, if they take more than
            256 MB. The trace has to stay as it is until then.

        Returns
        -------
        Profile

        Raises
        ------
        InputError
            If the trace breaks a rule or holds no token, or distances are asked of counts.
        """
        if isinstance(trace, LoadCounts):
            if set(distances) - {1}:
                raise InputError.of(
                    "counts_only",
                    "/distances",
                    f"Counts per expert have no pairs of layers to count at distances {distances}.",
                    "Leave `distances` out, or give a trace with token identity (topk_ids).",
                )
            return cls._of_counts(trace)
        from traces.profile.counting import count_trace  # compiles, so it is imported when tokens are counted

        later = Later(trace, workers) if pairs_later and size_of_pairs(trace) > LARGE_BYTES else None
        tally = count_trace(trace, workers, distances, window_tokens, sample_tokens, pairs=later is None)
        return cls(
            layer_ids=trace.layer_ids.copy(),
            num_experts=trace.num_experts,
            top_k=trace.top_k,
            tokens=tally.tokens,
            load=tally.load,
            affinity=tally.affinity if later is None else later,
            coactivation=tally.coactivation if later is None else later,
            distant=tally.distant,
            windows=tally.windows,
            source_load=tally.source_load,
            sequence_load=tally.sequence_load,
            sample=tally.sample,
            sources=(ProfileSource.of(trace.provenance, tally.digest, tally.tokens, tally.notes),),
        )

    @classmethod
    def _of_counts(cls, counts: LoadCounts) -> Profile:
        return cls(
            layer_ids=counts.layer_ids.copy(),
            num_experts=counts.num_experts,
            top_k=1,
            tokens=0,
            load=counts.load.copy(),
            affinity=None if counts.affinity is None else counts.affinity.copy(),
            coactivation=None,
            distant={},
            windows=None,
            source_load=None if counts.source_load is None else counts.source_load.copy(),
            sample=None,
            sources=(
                ProfileSource.of(counts.provenance, counts.digest, 0, counts.provenance.notes, counts.unrecorded),
            ),
        )

    def __add__(self, other: Profile) -> Profile:
        """Merge: the profile that one pass over both traces gives, bit for bit."""
        return Profile(**merged(self._values(), other._values()))

    def _values(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """Return the load as a table, a row per layer and expert; needs pandas (the extra ``frame``).

        Returns
        -------
        DataFrame
            Columns ``layer`` (of the model), ``expert``, ``load`` (tokens), ``share`` (of the layer's load), and
            ``load_over_mean`` (1 is even).

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        layers, experts = self.load.shape
        total = self.load.sum(axis=1, keepdims=True)
        return frame(
            {
                "layer": np.repeat(self.layer_ids, experts),
                "expert": np.tile(np.arange(experts), layers),
                "load": self.load.ravel(),
                "share": (self.load / total).ravel(),
                "load_over_mean": (self.load / total * experts).ravel(),
            }
        )

    def save(self, path: str | Path) -> None:
        """Write the profile as a compressed `.npz`, whole or not at all."""
        write_profile(path, self._values())

    @classmethod
    def load_file(cls, path: str | Path) -> Profile:
        """Read a profile that `save` wrote.

        Raises
        ------
        InputError
            If the file is not a profile of a known version, or is damaged.
        """
        values = read_profile(path)
        with reading(path):
            return cls(**values)
