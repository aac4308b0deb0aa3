"""Sufficient statistics of a trace: all that placement needs, in one pass and memory that does not grow with tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from traces import rules as checks
from traces.counts import LoadCounts
from traces.profile.sample import TokenSample
from traces.profile.windows import WindowedLoad
from traces.support.atomic import atomic_write
from traces.support.errors import InputError, Violations
from traces.trace import Trace

__all__ = ["SEQUENCE_BUCKETS", "Profile", "ProfileSource"]

SCHEMA_VERSION = 1
SEQUENCE_BUCKETS = 64
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, order=True)
class ProfileSource:
    """One trace that went into a profile: its digest, its tokens, and the notes of its reader."""

    digest: str
    source: str
    tokens: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
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

    layer_ids: npt.NDArray[np.int64]
    num_experts: int
    top_k: int
    tokens: int
    load: npt.NDArray[np.float64]
    affinity: Counts | None
    coactivation: Counts | None
    distant: dict[int, Counts]
    windows: WindowedLoad | None
    source_load: Counts | None
    sample: TokenSample | None
    sources: tuple[ProfileSource, ...]
    sequence_load: Counts | None = None

    def __post_init__(self) -> None:
        found = Violations()
        checks.check_layout(found, self.layer_ids, self.num_experts, self.top_k)
        if self.load.shape != (self.num_layers, self.num_experts):
            found.add(
                "load_shape", "/load", f"Load has shape {self.load.shape}, not (L, E).", "Give one row per layer."
            )
        elif not np.isfinite(self.load).all() or (self.load < 0).any():
            found.add("load_not_finite", "/load", "Load holds NaN, infinite or negative values.", "Correct the counts.")
        elif (empty := np.flatnonzero(~self.load.any(axis=1))).size:
            found.add(
                "zero_tokens",
                f"/load/{empty[0]}",
                f"No token was routed in layer(s) {self.layer_ids[empty].tolist()}.",
                "Record tokens in every layer, or leave the layer out.",
            )
        else:
            checks.check_load_range(found, self.load, "/load/")
        self._check_matrices(found)
        found.raise_if_any()
        for array in (
            self.layer_ids,
            self.load,
            self.affinity,
            self.coactivation,
            self.source_load,
            self.sequence_load,
            *self.distant.values(),
        ):
            if array is not None:
                array.flags.writeable = False

    def _check_matrices(self, found: Violations) -> None:
        layers, experts = self.num_layers, self.num_experts
        expected: list[tuple[str, Counts | None, int]] = [
            ("affinity", self.affinity, layers - 1),
            ("coactivation", self.coactivation, layers),
            *((f"distant/{distance}", counts, layers - distance) for distance, counts in self.distant.items()),
        ]
        shapes = [(name, array, (length, experts, experts)) for name, array, length in expected if array is not None]
        if self.source_load is not None:
            shapes.append(("source_load", self.source_load, (len(self.source_load), layers, experts)))
        if self.sequence_load is not None:
            shapes.append(("sequence_load", self.sequence_load, (SEQUENCE_BUCKETS, layers, experts)))
        for name, array, shape in shapes:
            if array.shape != shape or array.dtype != np.int64:
                detail = f"Expected int64 {shape}; got {array.dtype} {array.shape}."
                found.add("matrix_shape", f"/{name}", detail, "Profile the trace again.")

    @property
    def num_layers(self) -> int:
        """Number of MoE layers, L."""
        return len(self.layer_ids)

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
    def of(
        cls,
        trace: Trace | LoadCounts,
        *,
        workers: int | None = None,
        distances: tuple[int, ...] = (1,),
        window_tokens: int = 512,
        sample_tokens: int = 32_768,
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

        Returns
        -------
        Profile

        Raises
        ------
        InputError
            If the trace breaks a rule or holds no token, or distances are asked of counts.
        """
        from traces.profile.counting import profile_counts, profile_trace

        if isinstance(trace, LoadCounts):
            if set(distances) - {1}:
                raise InputError.of(
                    "counts_only",
                    "/distances",
                    f"Counts per expert have no pairs of layers to count at distances {distances}.",
                    "Leave distances (--distance) out, or give a trace with token identity (topk_ids).",
                )
            return profile_counts(trace)
        return profile_trace(trace, workers, distances, window_tokens, sample_tokens)

    def __add__(self, other: Profile) -> Profile:
        """Merge: the profile that one pass over both traces gives, bit for bit."""
        found = Violations()
        for name in ("num_experts", "top_k"):
            if getattr(self, name) != getattr(other, name):
                detail = f"{getattr(self, name)} and {getattr(other, name)} differ."
                found.add("profiles_differ", f"/{name}", detail, "Merge profiles of the same model only.")
        if self.layer_ids.tolist() != other.layer_ids.tolist():
            found.add("profiles_differ", "/layer_ids", "The layers differ.", "Merge profiles of the same layers only.")
        for name in ("affinity", "coactivation", "distant", "windows", "source_load", "sequence_load", "sample"):
            mine, others = getattr(self, name), getattr(other, name)
            if (mine is None) != (others is None) or (name == "distant" and set(mine) != set(others)):
                found.add(
                    "profiles_differ",
                    f"/{name}",
                    f"One profile has {name}, or distances of it, that the other lacks.",
                    "Profile both traces with the same options, from traces with the same columns; loads alone can't "
                    "be merged with tokens.",
                )
        if self.windows and other.windows and not self.windows.aligned_to(other.windows.window_tokens):
            found.add(
                "profiles_differ",
                "/windows",
                f"Windows of {self.windows.window_tokens} and {other.windows.window_tokens} tokens don't nest.",
                "Profile both traces with the same window_tokens.",
            )
        found.raise_if_any()
        windows = None
        if self.windows is not None and other.windows is not None:
            windows = WindowedLoad.union([self.windows, other.windows])
        sample = None
        if self.sample is not None and other.sample is not None:
            sample = TokenSample.union([self.sample, other.sample])
        return replace(
            self,
            tokens=self.tokens + other.tokens,
            load=self.load + other.load,
            affinity=_sum(self.affinity, other.affinity),
            coactivation=_sum(self.coactivation, other.coactivation),
            distant={distance: counts + other.distant[distance] for distance, counts in self.distant.items()},
            windows=windows,
            source_load=_sum_padded(self.source_load, other.source_load),
            sample=sample,
            sources=tuple(sorted(self.sources + other.sources)),
            sequence_load=_sum(self.sequence_load, other.sequence_load),
        )

    def save(self, path: str | Path) -> None:
        """Write the profile as a compressed `.npz`, whole or not at all."""
        arrays: dict[str, Any] = {"layer_ids": self.layer_ids, "load": self.load}
        for name in ("affinity", "coactivation", "source_load", "sequence_load"):
            if (value := getattr(self, name)) is not None:
                arrays[name] = value
        arrays |= {f"distant_{distance}": counts for distance, counts in self.distant.items()}
        header: dict[str, Any] = {
            "profile_version": SCHEMA_VERSION,
            "num_experts": self.num_experts,
            "top_k": self.top_k,
            "tokens": self.tokens,
            "sources": [[item.digest, item.source, item.tokens, list(item.notes)] for item in self.sources],
        }
        if self.windows is not None:
            header["windows"] = [self.windows.window_tokens, self.windows.limit]
            arrays |= {f"windows_{name}": getattr(self.windows, name) for name in ("source", "index", "tokens", "load")}
        if self.sample is not None:
            header["sample"] = self.sample.capacity
            names = ("topk_ids", "rows", "seq_id", "source_rank", "priority")
            arrays |= {f"sample_{name}": getattr(self.sample, name) for name in names}
        with atomic_write(path) as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

    @classmethod
    def load_file(cls, path: str | Path) -> Profile:
        """Read a profile that `save` wrote.

        Raises
        ------
        InputError
            If the file is not a profile of a known version, or is damaged.
        """
        from traces.formats.npz import read_arrays

        arrays = read_arrays(Path(path))
        try:
            header = json.loads(str(arrays.pop("header")))
            if header["profile_version"] != SCHEMA_VERSION:
                raise InputError.of(
                    "profile_version",
                    f"{Path(path).name}#/profile_version",
                    f"Version {header['profile_version']} is not {SCHEMA_VERSION}.",
                    "Profile the trace again with this version of moe-placement.",
                )
            return cls._from_arrays(header, arrays)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError.of(
                "not_a_profile",
                Path(path).name,
                f"This is not a profile: {error}.",
                "Make one with `moe-placement profile`.",
            ) from error

    @classmethod
    def _from_arrays(cls, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Profile:
        windows = sample = None
        if "windows" in header:
            width, limit = header["windows"]
            parts = {name: arrays[f"windows_{name}"] for name in ("source", "index", "tokens", "load")}
            windows = WindowedLoad(window_tokens=width, limit=limit, **parts)
        if "sample" in header:
            names = ("topk_ids", "rows", "seq_id", "source_rank", "priority")
            sample = TokenSample(capacity=header["sample"], **{name: arrays[f"sample_{name}"] for name in names})
        return cls(
            layer_ids=arrays["layer_ids"],
            num_experts=header["num_experts"],
            top_k=header["top_k"],
            tokens=header["tokens"],
            load=arrays["load"],
            affinity=arrays.get("affinity"),
            coactivation=arrays.get("coactivation"),
            distant={int(k.removeprefix("distant_")): v for k, v in arrays.items() if k.startswith("distant_")},
            windows=windows,
            source_load=arrays.get("source_load"),
            sequence_load=arrays.get("sequence_load"),
            sample=sample,
            sources=tuple(
                ProfileSource(digest=digest, source=source, tokens=tokens, notes=tuple(notes))
                for digest, source, tokens, notes in header["sources"]
            ),
        )


def counts_only(what: str) -> InputError:
    """Return the error for a statistic that counts can't give."""
    return InputError.of(
        "counts_only",
        "/profile",
        f"{what} needs tokens, but the profile was made from counts per expert.",
        "Record a trace with token identity (topk_ids), or choose an objective that needs loads only.",
    )


def _sum(a: Counts | None, b: Counts | None) -> Counts | None:
    return None if a is None or b is None else a + b


def _sum_padded(a: Counts | None, b: Counts | None) -> Counts | None:
    """Add two source x expert counts whose number of ranks may differ."""
    if a is None or b is None:
        return None
    ranks = max(len(a), len(b))
    pad = [np.pad(x, ((0, ranks - len(x)), (0, 0), (0, 0))) for x in (a, b)]
    return pad[0] + pad[1]
