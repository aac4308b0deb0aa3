"""Compiled loops of annealing."""
