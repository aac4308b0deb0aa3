"""Compiled loops of the replay."""
