from placement import Problem
from solvers.search import Search
def improve_fanout(problem, search, *, hot, cold): raise RuntimeError
