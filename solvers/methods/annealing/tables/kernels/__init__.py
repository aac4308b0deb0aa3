"""Compiled loops of the search by tables."""
