"""Compiled loops of the search by expected loads."""
