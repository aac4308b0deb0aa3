"""Compiled loops of load balancing."""
