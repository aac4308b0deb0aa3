"""Advice: whether a change of placement is worth it in milliseconds."""
