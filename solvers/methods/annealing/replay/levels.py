"""What messages to GPUs and nodes cost the sampled tokens, as sets of tokens by price."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from placement import Problem
from placement.cost.shares import home_share
from placement.replay.replay import homes_of
from solvers.methods.annealing.replay.kernels.state import Level

__all__ = ["Ground", "Grounds", "as_bits", "empty_level"]

# A level of more prices is searched with so many, each the mean of those around it; plans are scored by the real ones.
MAX_PRICES = 8

Array = npt.NDArray[np.float64]


class Ground:
    """What all layers share: where the first sampled tokens live, and what messages to each place cost them.

    Parameters
    ----------
    problem : Problem
        Dispatch, with a sample of tokens.
    tokens : int, optional
        How many of the sampled tokens; all by default.

    Attributes
    ----------
    problem : Problem
    tokens : int
    homes : (n,) int64
    shares : (L, E, G) float64 or None
        Of each expert's tokens by home, where homes are measured.
    messages : int
        Assignments (dedup none), or tokens and layers (else), that the traffic is a mean over.
    gpus, nodes : (mask (B, n, W) uint64, value (n,) float64)
        By price, the tokens that pay it for a message to each place.
    most_saved : float
        By a change of one assignment of a token, in message cost.
    """

    def __init__(self, problem: Problem, tokens: int | None = None) -> None:
        sample, topology, objective = problem.profile.sample, problem.topology, problem.objective
        assert sample is not None  # Annealing.supports refuses counts
        self.problem = problem
        self.tokens = n = len(sample) if tokens is None else min(tokens, len(sample))
        present = sample.topk_ids[:n] >= 0
        self.messages = max(1, int((present if objective.dedup == "none" else present.any(axis=2)).sum()))
        self.shares = home_share(problem)
        homes = homes_of(objective, problem.num_gpus, sample.rows[:n], sample.seq_id[:n], sample.source_rank[:n])
        self.homes = homes.astype(np.int64)
        hop, node = topology.hop_cost, topology.node_of_gpu
        gpu_cost, node_cost = hop, np.zeros((problem.num_gpus, 0))
        if objective.dedup == "node" and topology.num_nodes > 1:
            gpu_cost = hop[topology.entry_gpu[:, node], np.arange(problem.num_gpus)[None, :]]
            node_cost = hop[np.arange(problem.num_gpus)[:, None], topology.entry_gpu]
        self.gpus, self.nodes = _masks(gpu_cost, self.homes), _masks(node_cost, self.homes)
        self.most_saved = float(gpu_cost.max() + node_cost.max(initial=0.0))


class Grounds:
    """Those of a search, by the number of tokens, each made once."""

    def __init__(self, problem: Problem) -> None:
        sample = problem.profile.sample
        assert sample is not None
        self.problem, self.most = problem, len(sample)
        self._made: dict[int, Ground] = {}
        self._lock = threading.Lock()

    def of(self, tokens: int | None = None) -> Ground:
        """Return the ground of so many tokens, or of all."""
        count = self.most if tokens is None else min(tokens, self.most)
        with self._lock:
            if count not in self._made:
                self._made[count] = Ground(self.problem, count)
            return self._made[count]


def _masks(cost: Array, homes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint64], Array]:
    """Return by place and price which tokens pay it, (B, n, W), and the prices (n,); cost is (G, B)."""
    value, kind = _prices(cost)
    words, places = -(-len(homes) // 64), cost.shape[1]
    mask = np.zeros((places, len(value), words), np.uint64)
    for place in range(places):
        of_token = kind[homes, place]
        for price in range(len(value)):
            mask[place, price] = as_bits(of_token == price)
    return mask, value


def empty_level(masks: tuple[npt.NDArray[np.uint64], Array], top_k: int, *, distinct: bool) -> Level:
    """Return a level without any token served yet.

    Parameters
    ----------
    masks : (B, n, W) uint64, (n,) float64
    top_k : int
        Assignments of a token, at most.
    distinct : bool
        Whether a place pays once for a token, however many of its experts are there.
    """
    mask, value = masks
    places, _, words = mask.shape
    if not distinct:
        return Level(np.zeros((places, 0, words), np.uint64), mask, mask, mask, value)
    planes = np.zeros((places, (top_k + 1).bit_length(), words), np.uint64)  # one more while tokens are on their way
    return Level(planes, mask.copy(), np.zeros_like(mask), mask, value)


def as_bits(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Return a set of tokens, (n,) bool, as words of 64, (ceil(n / 64),)."""
    padded = np.zeros(-(-len(member) // 64) * 64, bool)
    padded[: len(member)] = member
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)


def _prices(cost: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the prices above 0, (n,), and which of them each entry of a cost matrix is, -1 for 0."""
    value, kind = np.unique(cost, return_inverse=True)
    kind = kind.reshape(cost.shape)
    free = int(len(value) > 0 and value[0] == 0)
    value, kind = value[free:], kind - free
    if len(value) > MAX_PRICES:
        group = np.repeat(np.arange(MAX_PRICES), [len(part) for part in np.array_split(value, MAX_PRICES)])
        sizes = np.bincount(kind[kind >= 0], minlength=len(value))
        value = np.bincount(group, sizes * value) / np.bincount(group, sizes)
        kind = np.where(kind < 0, -1, group[kind])
    return np.ascontiguousarray(value, np.float64), kind
