"""Survival: what a plan is proven to survive."""
