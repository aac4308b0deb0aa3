"""Compiled loops of residency."""
