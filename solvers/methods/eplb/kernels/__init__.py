"""Compiled loops of EPLB."""
