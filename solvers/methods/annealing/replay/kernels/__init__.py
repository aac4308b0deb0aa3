"""Compiled loops of the search by replay."""
