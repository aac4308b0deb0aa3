"""What no plan can beat: bounds by semidefinite relaxation, safe at any moment."""

from solvers.bounds.anytime import raise_bound

__all__ = ["raise_bound"]
