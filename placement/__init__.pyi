from .checkpoint.renumber import Renumbered as Renumbered
from .checkpoint.renumber import renumber as renumber
from .cost.bounds import lower_bound as lower_bound
from .cost.score import Score as Score
from .cost.score import Term as Term
from .cost.score import score as score
from .cost.split import TokenSplit as TokenSplit
from .cost.split import optimal_split as optimal_split
from .moves.relabel import Relabelled as Relabelled
from .moves.relabel import relabel as relabel
from .plan.diff import Diff as Diff
from .plan.diff import diff as diff
from .plan.plan import Plan as Plan
from .plan.termination import Termination as Termination
from .problem.constraints import Constraints as Constraints
from .problem.constraints import Group as Group
from .problem.constraints import LayerCap as LayerCap
from .problem.constraints import Pin as Pin
from .problem.objective import Objective as Objective
from .problem.objective import SettledObjective as SettledObjective
from .problem.problem import Problem as Problem
from .replay.evaluate import evaluate as evaluate
from .replay.evaluation import Evaluation as Evaluation
from .replay.evaluation import HotLink as HotLink
from .replay.expected import ExpectedLoads as ExpectedLoads
from .replay.expected import expected_loads as expected_loads
from .replay.passes import PassFigures as PassFigures
from .survival.survival import Survival as Survival
from .survival.survival import prove_survival as prove_survival
from .survival.survive import Survive as Survive
from .topology.links import PRESETS as PRESETS
from .topology.links import Link as Link
from .topology.load import load_topology as load_topology
from .topology.topology import Topology as Topology

__all__ = [
    "PRESETS",
    "Constraints",
    "Diff",
    "Evaluation",
    "ExpectedLoads",
    "Group",
    "HotLink",
    "LayerCap",
    "Link",
    "Objective",
    "PassFigures",
    "Pin",
    "Plan",
    "Problem",
    "Relabelled",
    "Renumbered",
    "Score",
    "SettledObjective",
    "Survival",
    "Survive",
    "Term",
    "Termination",
    "TokenSplit",
    "Topology",
    "diff",
    "evaluate",
    "expected_loads",
    "load_topology",
    "lower_bound",
    "optimal_split",
    "prove_survival",
    "relabel",
    "renumber",
    "score",
]
