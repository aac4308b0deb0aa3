"""Residency: which experts should stay in a GPU's memory, and what the others cost."""
