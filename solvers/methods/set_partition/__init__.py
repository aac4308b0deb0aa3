"""Proven optima of fan-out without replicas."""
