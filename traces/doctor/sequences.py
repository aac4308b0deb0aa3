"""Sequences that occur again, told by hashes of their rows: a few bytes each, of 65,536 sequences at most."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from traces.batch import IntArray
from traces.doctor.kernels import Hashes, chain_rows
from traces.profile.sample import row_priority

__all__ = ["Sequences"]

MOST = 65_536
LEAST_ROWS = 8  # prompts of a few tokens are alike by themselves


@dataclass
class Sequences:
    """Chains of row hashes by sequence; of many sequences, those whose hashed `seq_id` is small.

    Attributes
    ----------
    limit : int
        Sequences whose hash is as large are not followed.
    chains : dict of int to list
        By `seq_id`: chain and length of its prompt, then those of the rows whose phase is not known.
    """

    limit: int = 1 << 64
    chains: dict[int, list[int]] = field(default_factory=dict)

    def add(self, hashes: Hashes, seq_id: IntArray, phase: npt.NDArray[np.uint8]) -> None:
        """Take in the rows of a batch; decoded ones are left out where the phase is known."""
        known, number = np.unique(np.asarray(seq_id, np.int64), return_inverse=True)
        followed = row_priority(known, 0) <= np.uint64(self.limit - 1)
        position = np.where(followed, np.cumsum(followed) - 1, -1)
        names = known[followed].tolist()
        held = np.array([self.chains.get(name, [0, 0, 0, 0]) for name in names], np.uint64).reshape(-1, 4)
        index = position[number.ravel()]
        for part, code in ((0, 0), (2, 2)):
            chain, length = held[:, part].copy(), held[:, part + 1].astype(np.int64)
            chain_rows(hashes, np.where(phase == code, index, -1), chain, length)
            held[:, part], held[:, part + 1] = chain, length
        self.chains.update(zip(names, held.tolist(), strict=True))
        while len(self.chains) > MOST:
            self.limit //= 2
            priority = row_priority(np.array(list(self.chains), np.int64), 0).tolist()
            kept = zip(self.chains.items(), priority, strict=True)
            self.chains = {name: chain for (name, chain), one in kept if one < self.limit}

    @property
    def number(self) -> int:
        """Sequences, about."""
        return round(len(self.chains) * (1 << 64) / self.limit)

    def repeats(self) -> tuple[int, int]:
        """Return how many of the sequences of 8 rows or more have occurred before, and how many such there are."""
        ends = [tuple(chain) for chain in self.chains.values() if chain[1] + chain[3] >= LEAST_ROWS]
        return len(ends) - len(set(ends)), len(ends)
