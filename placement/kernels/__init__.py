"""Compiled loops of the cost model."""
