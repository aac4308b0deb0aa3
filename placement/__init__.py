"""Step 2 of 4: what a plan is, what it costs, and what it may do.

Letters: L layers, E logical experts per layer, K experts per token, G GPUs, N nodes, C slots per GPU, S = G * C slots.
"""

from placement.bounds import lower_bound as lower_bound
from placement.constraints import Constraints as Constraints
from placement.constraints import Group as Group
from placement.constraints import LayerCap as LayerCap
from placement.constraints import Pin as Pin
from placement.cost import Score as Score
from placement.cost import Term as Term
from placement.cost import score as score
from placement.evaluation import Evaluation as Evaluation
from placement.evaluation import HotLink as HotLink
from placement.evaluation import evaluate as evaluate
from placement.files import load_plan as load_plan
from placement.files import load_topology as load_topology
from placement.files import save_plan as save_plan
from placement.objective import Objective as Objective
from placement.plan import Plan as Plan
from placement.plan import Termination as Termination
from placement.problem import Problem as Problem
from placement.split import TokenSplit as TokenSplit
from placement.split import optimal_split as optimal_split
from placement.topology import PRESETS as PRESETS
from placement.topology import Link as Link
from placement.topology import Topology as Topology

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
