"""GRACE-MoE's placement."""
