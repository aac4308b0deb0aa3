"""Which GPUs and nodes may change their names without a change of score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.problem.problem import Problem
from placement.topology.topology import Topology

__all__ = ["Freedom"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Freedom:
    """Names that nothing tells apart.

    GPUs of a node are *twins* if exchanging the two changes neither costs nor speeds nor room. Nodes are of one kind if
    exchanging them, GPU by GPU, changes nothing either. Any exchange of twins and of nodes of one kind leaves a plan's
    score as it is; on a machine of equal nodes with one cost inside and one between them these are all there are.

    Attributes
    ----------
    node_of_gpu : (G,) int64
    twins : (G,) int64
        Class of each GPU among those of its node; the same number in nodes of one kind.
    kind_of_node : (N,) int64
    coupled : bool
        Whether all layers share the names: where tokens go straight from layer to layer.
    exact : bool
        Whether the score stays the same to rounding. Else it does in expectation over the tokens' homes, and the figure
        of a sample of tokens with hashed homes differs a little.
    """

    node_of_gpu: Ints
    twins: Ints
    kind_of_node: Ints
    coupled: bool
    exact: bool

    @classmethod
    def of(cls, problem: Problem) -> Freedom:
        """Return the freedom that a problem leaves.

        Pins, exclusions and measured homes name GPUs: there is none then. Messages once per node enter it at the GPU
        with the index of their home, which treats the GPUs of a node alike only if all nodes have the same size.
        """
        objective, constraints, topology = problem.objective, problem.constraints, problem.topology
        dispatch = objective.execution == "dispatch"
        named = bool(constraints.pins or constraints.forbidden)
        named |= dispatch and objective.ownership == "measured"
        named |= dispatch and objective.dedup == "node" and len(set(topology.gpus_per_node)) > 1
        sampled = dispatch and (objective.dedup != "none" or objective.activated_weight > 0)
        sampled &= objective.traffic_weight > 0 or objective.activated_weight > 0
        coupled = not dispatch
        if named:
            return cls.none(topology, coupled=coupled)
        return cls.of_topology(topology, capacity=problem.capacity, coupled=coupled, exact=not sampled)

    @classmethod
    def none(cls, topology: Topology, *, coupled: bool = True) -> Freedom:
        """Return the freedom of a machine whose GPUs all have their names for good."""
        return cls(
            node_of_gpu=topology.node_of_gpu,
            twins=np.arange(topology.num_gpus),
            kind_of_node=np.arange(topology.num_nodes),
            coupled=coupled,
            exact=True,
        )

    @classmethod
    def of_topology(
        cls, topology: Topology, *, capacity: Ints | None = None, coupled: bool = True, exact: bool = True
    ) -> Freedom:
        """Return the freedom of a machine where no rule names a GPU."""
        node, count = topology.node_of_gpu, topology.num_nodes
        marks = _marks(topology, capacity)
        hop = topology.hop_cost
        members = [np.flatnonzero(node == number) for number in range(count)]
        kind = np.arange(count)
        for number in range(count):
            for other in range(number):
                if kind[other] == other and _nodes_alike(hop, marks, members[other], members[number]):
                    kind[number] = other
                    break
        twins = np.zeros(topology.num_gpus, np.int64)
        for number, gpus in enumerate(members):
            twins[gpus] = _twins(hop, marks, gpus) if kind[number] == number else twins[members[kind[number]]]
        return cls(node_of_gpu=node, twins=twins, kind_of_node=kind, coupled=coupled, exact=exact)

    @property
    def any(self) -> bool:
        """Whether anything may change its name."""
        if len(set(self.kind_of_node.tolist())) < len(self.kind_of_node):
            return True
        pairs = list(zip(self.node_of_gpu.tolist(), self.twins.tolist(), strict=True))
        return len(set(pairs)) < len(pairs)


def _marks(topology: Topology, capacity: Ints | None) -> Ints:
    """Return a number for each GPU that is the same where speed, memory and room are, (G,)."""
    columns = [topology.speed, *(item for item in (topology.memory_gb, topology.slots, capacity) if item is not None)]
    rows = np.stack([np.asarray(item, np.float64) for item in columns], axis=1)
    found: Ints = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return found


def _nodes_alike(hop: npt.NDArray[np.float64], marks: Ints, a: Ints, b: Ints) -> bool:
    if len(a) != len(b) or not np.array_equal(marks[a], marks[b]):
        return False
    name = np.arange(len(hop))
    name[a], name[b] = b, a
    return np.array_equal(hop[np.ix_(name, name)], hop)


def _twins(hop: npt.NDArray[np.float64], marks: Ints, gpus: Ints) -> Ints:
    """Return the class of each of the GPUs; being twins is transitive, so each is compared with one of each class."""
    found = np.full(len(gpus), -1)
    for index, gpu in enumerate(gpus):
        for first in range(index):
            other = gpus[first]
            if found[first] != first or marks[other] != marks[gpu] or hop[gpu, other] != hop[other, gpu]:
                continue
            rest = np.ones(len(hop), bool)
            rest[[gpu, other]] = False
            if np.array_equal(hop[gpu, rest], hop[other, rest]) and np.array_equal(hop[rest, gpu], hop[rest, other]):
                found[index] = first
                break
        else:
            found[index] = index
    return found
