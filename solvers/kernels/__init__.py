"""Compiled search loops."""
