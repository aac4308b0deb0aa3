"""What a search loads when it first needs it, loaded at once: by the process that worker processes are copies of.

Copies share it, and begin at once; each would load it anew otherwise, which takes longer than a small plan. Programs
that search in their own process do not import this: few searches need all of it.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from traces.duplicates import find_duplicate

__all__: list[str] = []

# For bounds, assignments and linear programs.
for name in ("scipy.cluster.hierarchy", "scipy.optimize", "scipy.spatial.distance"):
    import_module(name)
find_duplicate(np.zeros((1, 1, 1), np.uint8))  # with the first compiled loop, numba loads all that it knows of types
