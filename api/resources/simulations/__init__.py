"""Simulations of policies of re-planning over a series."""
