"""Advice: whether to change the placement at all, what it is worth, and what else could be done."""
