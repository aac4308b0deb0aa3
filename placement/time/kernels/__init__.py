"""Compiled loops of the time model."""
