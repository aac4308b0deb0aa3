"""Mixtures: one plan for several domains."""
