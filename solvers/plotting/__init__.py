"""Charts: SVG without a library, matplotlib where it is there."""

from solvers.plotting.plots import plot_affinity as plot_affinity
from solvers.plotting.plots import plot_front as plot_front
from solvers.plotting.plots import plot_history as plot_history
from solvers.plotting.plots import plot_loads as plot_loads

__all__ = ["plot_affinity", "plot_front", "plot_history", "plot_loads"]
