"""The contract suite of solvers, for one's own: `check_solver(MySolver())`.

A solver is a frozen dataclass of parameters with a `name`, a `summary`, `supports(problem)` and `run(problem, search)`;
see `solvers.Solver`. What the suite holds it to is what `solvers.solve`, fronts and comparisons rely on.
"""

from solvers.testing.checks import check_bound as check_bound
from solvers.testing.checks import check_cancel as check_cancel
from solvers.testing.checks import check_interface as check_interface
from solvers.testing.checks import check_names as check_names
from solvers.testing.checks import check_plan as check_plan
from solvers.testing.checks import check_solver as check_solver
from solvers.testing.checks import check_start as check_start
from solvers.testing.checks import check_time as check_time
from solvers.testing.checks import check_workers as check_workers
from solvers.testing.problems import brute_force as brute_force
from solvers.testing.problems import hard_problem as hard_problem
from solvers.testing.problems import problems as problems
from solvers.testing.problems import tiny_problems as tiny_problems

__all__ = [
    "brute_force",
    "check_bound",
    "check_cancel",
    "check_interface",
    "check_names",
    "check_plan",
    "check_solver",
    "check_start",
    "check_time",
    "check_workers",
    "hard_problem",
    "problems",
    "tiny_problems",
]
