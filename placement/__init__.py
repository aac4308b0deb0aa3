"""Step 2 of 4: what a plan is, what it costs, and what it may do.

Letters: L layers, E logical experts per layer, K experts per token, G GPUs, N nodes, C slots per GPU, S = G * C slots.
"""

from moe_placement import require

require("traces")

from placement.cost.bounds import lower_bound as lower_bound
from placement.cost.score import Score as Score
from placement.cost.score import Term as Term
from placement.cost.score import score as score
from placement.files import load_plan as load_plan
from placement.files import load_topology as load_topology
from placement.files import save_plan as save_plan
from placement.loads.split import TokenSplit as TokenSplit
from placement.loads.split import optimal_split as optimal_split
from placement.plan.plan import Plan as Plan
from placement.plan.plan import Termination as Termination
from placement.problem.constraints import Constraints as Constraints
from placement.problem.constraints import Group as Group
from placement.problem.constraints import LayerCap as LayerCap
from placement.problem.constraints import Pin as Pin
from placement.problem.objective import Objective as Objective
from placement.problem.objective import SettledObjective as SettledObjective
from placement.problem.problem import Problem as Problem
from placement.replay.evaluation import Evaluation as Evaluation
from placement.replay.evaluation import HotLink as HotLink
from placement.replay.evaluation import evaluate as evaluate
from placement.topology.topology import PRESETS as PRESETS
from placement.topology.topology import Link as Link
from placement.topology.topology import Topology as Topology

__all__ = [
    "PRESETS",
    "Constraints",
    "Evaluation",
    "Group",
    "HotLink",
    "LayerCap",
    "Link",
    "Objective",
    "Pin",
    "Plan",
    "Problem",
    "Score",
    "SettledObjective",
    "Term",
    "Termination",
    "TokenSplit",
    "Topology",
    "evaluate",
    "load_plan",
    "load_topology",
    "lower_bound",
    "optimal_split",
    "save_plan",
    "score",
]
