"""Annealing where tokens are replayed to price a change: dispatch with one message per GPU or node, or replicas."""
