"""Compiled loops of the cost."""
