"""ExFlow, arXiv 2401.08383, from its repository and paper: the engine itself is not published."""

from placement.engines.engine import Engine

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="exflow",
    title="ExFlow",
    version="2696131 (main branch)",
    page="exflow",
    execution="context_coherent",
    dedup=None,
    ownership=None,
    default_layout="contiguous",
    export="exflow",
    sources={
        "execution": "README.md: section 0, only the first Alltoall of a layer is kept",
        "dedup": "solve_affinity.py: calculate_cost (a token has one expert per layer, and goes where that is)",
        "ownership": "README.md: section 0, every GPU has the context of all tokens",
        "algorithms": "solve_affinity.py: solve_graph_optimization, constraint allone (one GPU per expert)",
        "full_slots": "solve_affinity.py: solve_graph_optimization, constraint hardLoadBalance",
        "default_layout": "arXiv 2401.08383: the baseline is DeepSpeed's expert parallelism",
        "export": "README.md: section 5",
    },
    notes=(
        "The published solver is for one expert per token; where there are more, every expert is paired with every "
        "one of the next layer.",
    ),
)
