"""The ranks of TensorRT-LLM's expert statistics: their tensors, complete iterations, and which hold the same."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np

from traces.decoding.tensor_files import TensorFile
from traces.formats.shared.matrices import MAX_LAYERS
from traces.support.errors import InputError, Violations
from traces.support.shown import layers_that

__all__ = ["RankTensors", "ranks_of", "same_tensors", "without_copies"]

RANK = re.compile(r"rank_?(\d{1,6})")


@dataclass(frozen=True, kw_only=True)
class RankTensors:
    """The tensors of one rank, and its complete iterations."""

    number: int
    tensors: TensorFile
    iterations: dict[int, list[int]]


def without_copies(ranks: list[RankTensors]) -> tuple[list[RankTensors], list[str]]:
    """Leave out ranks that have the very tokens of another one, as all have without data-parallel attention."""
    kept: list[RankTensors] = []
    notes = []
    for rank in ranks:
        for earlier in kept:
            if rank.iterations and rank.iterations == earlier.iterations and same_tensors(rank, earlier):
                notes.append(f"Rank {rank.number} has the same tokens as rank {earlier.number} and was left out.")
                break
        else:
            kept.append(rank)
    return kept, notes


def same_tensors(one: RankTensors, other: RankTensors) -> bool:
    """Compare the tensors of two ranks, as far as they are alike."""
    if one.tensors.shapes != other.tensors.shapes:
        return False
    pairs = zip(one.tensors.read(one.iterations), other.tensors.read(other.iterations), strict=True)
    return all(np.array_equal(values[layer], others[layer]) for (_, values), (_, others) in pairs for layer in values)


def ranks_of(parts: list[tuple[str, TensorFile]]) -> tuple[list[RankTensors], list[int], list[str]]:
    """Check that iterations are contiguous and have all layers; the last one of a rank may have been cut off."""
    found = Violations()
    layers = sorted({layer for _, tensors in parts for _, layer in tensors.shapes})
    ranks: dict[int, RankTensors] = {}
    notes = []
    if len(layers) > MAX_LAYERS:
        raise InputError.of("layer_missing", parts[0][0], f"{len(layers)} layers?", "Check the files.")
    for number, (member, tensors) in enumerate(parts):
        named = RANK.search(member.rpartition("/")[2])
        rank = number if named is None else int(named[1])
        name, iterations = tensors.file.name, tensors.iterations
        if rank in ranks:
            found.add("duplicate_rank", name, f"Rank {rank} is there twice.", "Give the files of one recording.")
        order = list(iterations)
        if order[-1] - order[0] != len(order) - 1:
            gap = next(a for a, b in itertools.pairwise(order) if b != a + 1)
            found.add("iteration_gap", name, f"Iteration {gap + 1} is missing.", "Record it again.")
        if iterations[order[-1]] != layers and len(order) > 1:
            del iterations[order[-1]]
            notes.append(f"{name}: the last iteration lacks layers and was left out.")
        for iteration, present in iterations.items():
            if present != layers:
                lacking = sorted(set(layers) - set(present))[:8]
                found.add(
                    "layer_missing",
                    f"{name}#/{iteration}",
                    f"{layers_that(lacking, 'is', 'are')} missing.",
                    "Record it again.",
                )
        ranks[rank] = RankTensors(number=rank, tensors=tensors, iterations=iterations)
    found.raise_if_any()
    return [ranks[rank] for rank in sorted(ranks)], layers, notes
