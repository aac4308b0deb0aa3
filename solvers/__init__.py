"""Step 3 of 4: how to find a good plan, and how good it is."""

from moe_placement import require

require("traces", "placement")

from solvers.comparing import Comparison as Comparison
from solvers.fronts.front import front as front
from solvers.fronts.pareto import Against as Against
from solvers.fronts.pareto import Front as Front
from solvers.fronts.pareto import FrontPoint as FrontPoint
from solvers.registry import Solver as Solver
from solvers.registry import names as names
from solvers.registry import parameters_of as parameters_of
from solvers.registry import solver_class as solver_class
from solvers.registry import solver_from as solver_from
from solvers.request import FrontRequest as FrontRequest
from solvers.request import Request as Request
from solvers.searching.limits import Limits as Limits
from solvers.searching.search import Event as Event
from solvers.searching.search import Search as Search
from solvers.searching.solution import NoPlanError as NoPlanError
from solvers.searching.solution import Solution as Solution
from solvers.searching.solution import Step as Step
from solvers.solving import check_start as check_start
from solvers.solving import make_plan as make_plan
from solvers.solving import solve as solve
from solvers.study import Study as Study

__all__ = [
    "Against",
    "Comparison",
    "Event",
    "Front",
    "FrontPoint",
    "FrontRequest",
    "Limits",
    "NoPlanError",
    "Request",
    "Search",
    "Solution",
    "Solver",
    "Step",
    "Study",
    "check_start",
    "front",
    "make_plan",
    "names",
    "parameters_of",
    "solve",
    "solver_class",
    "solver_from",
]
