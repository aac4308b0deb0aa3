"""Compiled loops of the load model."""
