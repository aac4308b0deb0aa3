"""Annealing, from layer to layer and under dispatch."""
